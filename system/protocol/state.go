package protocol

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"time"

	"plane/system/backend"
	"plane/system/lease"
)

// Millis is a time as whole milliseconds since the Unix epoch.
type Millis struct{ time.Time }

// MarshalJSON writes the milliseconds.
func (m Millis) MarshalJSON() ([]byte, error) { return json.Marshal(m.UnixMilli()) }

// UnmarshalJSON reads milliseconds.
func (m *Millis) UnmarshalJSON(b []byte) error {
	var n int64
	if err := json.Unmarshal(b, &n); err != nil {
		return fmt.Errorf("want a time in milliseconds since 1970: %w", err)
	}
	if n < 0 || n > maxMillis {
		return fmt.Errorf("time %d is out of range", n)
	}
	m.Time = time.UnixMilli(n)
	return nil
}

// maxMillis is in the year 10000, past which sums of times could overflow.
const maxMillis = 253_402_300_800_000

// State is a backend's state on the wire.
type State backend.State

type stateJSON struct {
	Status      backend.Status  `json:"status"`
	Address     string          `json:"address,omitempty"`
	Last        *backend.Status `json:"last_status,omitempty"`
	Termination backend.Kind    `json:"termination,omitempty"`
	Reason      backend.Reason  `json:"reason,omitempty"`
	ExitCode    *int            `json:"exit_code,omitempty"`
	OOM         bool            `json:"oom,omitempty"`     // ours
	Message     string          `json:"message,omitempty"` // ours
}

type terminatedJSON struct {
	Status      backend.Status  `json:"status"`
	Last        *backend.Status `json:"last_status"`
	Termination *backend.Kind   `json:"termination"`
	Reason      *backend.Reason `json:"reason"`
	ExitCode    *int            `json:"exit_code"`
	OOM         bool            `json:"oom,omitempty"`     // ours
	Message     string          `json:"message,omitempty"` // ours
}

// MarshalJSON writes the fields that belong to the status, and no others.
func (s State) MarshalJSON() ([]byte, error) {
	switch s.Status {
	case backend.Waiting, backend.Ready:
		return json.Marshal(stateJSON{Status: s.Status, Address: s.Address})
	case backend.Terminating:
		return json.Marshal(stateJSON{Status: s.Status, Last: &s.Last, Termination: s.Termination, Reason: s.Reason})
	case backend.HardTerminating:
		return json.Marshal(stateJSON{Status: s.Status, Last: &s.Last, Reason: s.Reason})
	case backend.Terminated:
		t := terminatedJSON{Status: s.Status, Last: &s.Last, ExitCode: s.ExitCode, OOM: s.OOM, Message: s.Message}
		if s.Termination != "" {
			t.Termination = &s.Termination
		}
		if s.Reason != "" {
			t.Reason = &s.Reason
		}
		return json.Marshal(t)
	default:
		return json.Marshal(stateJSON{Status: s.Status})
	}
}

// UnmarshalJSON refuses a state whose fields do not fit its status.
func (s *State) UnmarshalJSON(b []byte) error {
	var j stateJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	next := State{Status: j.Status}
	switch j.Status {
	case 0:
		return fmt.Errorf("state: status is missing")
	case backend.Waiting, backend.Ready:
		if _, err := netip.ParseAddrPort(j.Address); err != nil {
			return fmt.Errorf("state: address: %w", err)
		}
		next.Address = j.Address
	case backend.Terminating, backend.HardTerminating, backend.Terminated:
		if j.Last == nil || !j.Last.Alive() {
			return fmt.Errorf("state: last_status must be a status before any termination")
		}
		next.Last, next.Reason = *j.Last, j.Reason
		if j.Reason != "" && !j.Reason.Valid() {
			return fmt.Errorf("state: no such reason: %q", j.Reason)
		}
		if j.Reason == "" && j.Status != backend.Terminated {
			return fmt.Errorf("state: reason is missing")
		}
		switch j.Termination {
		case "":
			if j.Status == backend.Terminating {
				return fmt.Errorf("state: termination is missing")
			}
		case backend.Soft, backend.Hard:
		default:
			return fmt.Errorf("state: termination must be soft or hard, not %q", j.Termination)
		}
		next.Termination = j.Termination
		if j.Status == backend.HardTerminating {
			next.Termination = backend.Hard
		}
		if j.Status == backend.Terminated {
			next.ExitCode, next.OOM, next.Message = j.ExitCode, j.OOM, clip(j.Message, maxMessage)
		}
	}
	*s = next
	return nil
}

// maxMessage is how many bytes of a reason in words are kept.
const maxMessage = 1000

func clip(s string, most int) string {
	if len(s) > most {
		return s[:most]
	}
	return s
}

// Deadlines are a lease's deadlines on the drone's own clock.
type Deadlines lease.Deadlines

type deadlinesJSON struct {
	RenewAt         Millis `json:"renew_at"`
	SoftTerminateAt Millis `json:"soft_terminate_at"`
	HardTerminateAt Millis `json:"hard_terminate_at"`
}

// MarshalJSON writes milliseconds.
func (d Deadlines) MarshalJSON() ([]byte, error) {
	return json.Marshal(deadlinesJSON{Millis{d.RenewAt}, Millis{d.SoftTerminateAt}, Millis{d.HardTerminateAt}})
}

// UnmarshalJSON refuses deadlines that are out of order.
func (d *Deadlines) UnmarshalJSON(b []byte) error {
	var j deadlinesJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return fmt.Errorf("deadlines: %w", err)
	}
	if j.SoftTerminateAt.Before(j.RenewAt.Time) || j.HardTerminateAt.Before(j.SoftTerminateAt.Time) {
		return fmt.Errorf("deadlines: want renew_at ≤ soft_terminate_at ≤ hard_terminate_at")
	}
	*d = Deadlines{j.RenewAt.Time, j.SoftTerminateAt.Time, j.HardTerminateAt.Time}
	return nil
}
