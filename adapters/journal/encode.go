package journal

import (
	"encoding/json"
	"time"

	"plane/system/backend"
	"plane/system/lease"
	"plane/system/port"
	"plane/system/protocol"
)

// record, state and event are how a port.Record, a backend.State and a
// port.Event lie in the file: whole, times to the nanosecond, statuses as their
// sort keys. The wire's form would drop what does not belong on the wire.
type record struct {
	port.Record
	State     state
	Deadlines lease.Deadlines
}

type event struct {
	State state
	Time  time.Time
}

type state struct {
	Status, Last int
	Address      string         `json:",omitempty"`
	Termination  backend.Kind   `json:",omitempty"`
	Reason       backend.Reason `json:",omitempty"`
	ExitCode     *int           `json:",omitempty"`
	OOM          bool           `json:",omitempty"`
	Message      string         `json:",omitempty"`
}

func encodeRecord(r port.Record) (string, error) {
	b, err := json.Marshal(record{Record: r, State: fromState(r.State), Deadlines: lease.Deadlines(r.Deadlines)})
	return string(b), err
}

func decodeRecord(content string) (port.Record, error) {
	var r record
	if err := json.Unmarshal([]byte(content), &r); err != nil {
		return port.Record{}, err
	}
	r.Record.State, r.Record.Deadlines = r.State.state(), protocol.Deadlines(r.Deadlines)
	if string(r.Spec.Executable) == "null" {
		r.Spec.Executable = nil
	}
	return r.Record, nil
}

func encodeEvent(e port.Event) (string, error) {
	b, err := json.Marshal(event{State: fromState(e.State), Time: e.Time})
	return string(b), err
}

func decodeEvent(id int64, backendID, content string) (port.Event, error) {
	var e event
	if err := json.Unmarshal([]byte(content), &e); err != nil {
		return port.Event{}, err
	}
	return port.Event{ID: id, BackendID: backendID, State: e.State.state(), Time: e.Time}, nil
}

func fromState(s backend.State) state {
	return state{int(s.Status), int(s.Last), s.Address, s.Termination, s.Reason, s.ExitCode, s.OOM, s.Message}
}

func (s state) state() backend.State {
	return backend.State{
		Status: backend.Status(s.Status), Last: backend.Status(s.Last), Address: s.Address,
		Termination: s.Termination, Reason: s.Reason, ExitCode: s.ExitCode, OOM: s.OOM, Message: s.Message,
	}
}
