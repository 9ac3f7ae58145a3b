// Package backend holds the rules of a backend's life: its statuses, the one
// direction in which they move, and why it ended.
//
// It owns no state and does no input or output; everything here is a pure
// function or a value and may be used from anywhere at once.
package backend

import "fmt"

// Status is a step in a backend's life. The order of the constants is the
// order of the lifecycle: a backend only ever moves to a greater status.
type Status int

// The numbers are the sort keys that stores keep.
const (
	Scheduled       Status = 10
	Loading         Status = 20
	Starting        Status = 30
	Waiting         Status = 40
	Ready           Status = 50
	Terminating     Status = 60
	HardTerminating Status = 65
	Terminated      Status = 70
)

var statusText = map[Status]string{
	Scheduled:       "scheduled",
	Loading:         "loading",
	Starting:        "starting",
	Waiting:         "waiting",
	Ready:           "ready",
	Terminating:     "terminating",
	HardTerminating: "hard-terminating",
	Terminated:      "terminated",
}

// String is the status's name on the wire.
func (s Status) String() string {
	if t, ok := statusText[s]; ok {
		return t
	}
	return fmt.Sprintf("status(%d)", int(s))
}

// MarshalText writes the wire name and refuses a number that is none.
func (s Status) MarshalText() ([]byte, error) {
	if t, ok := statusText[s]; ok {
		return []byte(t), nil
	}
	return nil, fmt.Errorf("no such backend status: %d", int(s))
}

// UnmarshalText accepts the wire names only.
func (s *Status) UnmarshalText(text []byte) error {
	parsed, err := ParseStatus(string(text))
	if err != nil {
		return err
	}
	*s = parsed
	return nil
}

// ParseStatus turns a wire name into a Status.
func ParseStatus(text string) (Status, error) {
	for s, t := range statusText {
		if t == text {
			return s, nil
		}
	}
	return 0, fmt.Errorf("no such backend status: %q", text)
}

// Alive reports whether new connections may still be sent to the backend, now
// or once it is ready.
func (s Status) Alive() bool { return s < Terminating }

// Kind says how a termination is done: softly, with time to finish, or at once.
type Kind string

// The kinds of termination.
const (
	Soft Kind = "soft"
	Hard Kind = "hard"
)

// Reason says why a backend was ended.
type Reason string

// The reasons, as they stand on the wire.
const (
	Swept          Reason = "swept"          // idle, or past its lifetime
	External       Reason = "external"       // asked for through the API
	KeyExpired     Reason = "keyexpired"     // its lease ran out
	Lost           Reason = "lost"           // its drone is gone
	StartupTimeout Reason = "startuptimeout" // it never answered HTTP
	InternalError  Reason = "internalerror"  // it could not be started
)

// Valid reports whether the reason is one of those above.
func (r Reason) Valid() bool {
	switch r {
	case Swept, External, KeyExpired, Lost, StartupTimeout, InternalError:
		return true
	}
	return false
}

// State is a status with what belongs to it. Which fields are set depends on
// the status: Address for Waiting and Ready; Last, Termination and Reason from
// Terminating on; ExitCode, OOM and Message only when Terminated.
type State struct {
	Status  Status
	Address string // ip:port where the backend serves HTTP
	Last    Status // the last status before any termination began
	// Termination is how it ends: always Hard when HardTerminating; empty when
	// the backend ended by itself.
	Termination Kind
	Reason      Reason // empty when the backend ended by itself
	ExitCode    *int   // of the process, when it is known
	OOM         bool   // the process was ended because it was out of memory
	Message     string // in words, why it ended; without secrets
}

// TerminatingState is the state after s once a termination was asked for. It
// reports false when s is already that far.
func TerminatingState(s State, kind Kind, reason Reason) (State, bool) {
	next := State{Status: Terminating, Last: s.lastAlive(), Termination: kind, Reason: reason}
	if kind == Hard {
		next.Status = HardTerminating
		if s.Status == Terminating {
			next.Reason = s.Reason // the first reason stays the reason
		}
	}
	return next, next.Status > s.Status
}

// TerminatedState is the end of s. What s says of kind and reason is kept;
// otherwise kind and reason apply, and both may be empty for a process that
// ended by itself.
func TerminatedState(s State, kind Kind, reason Reason) (State, bool) {
	if s.Status == Terminated {
		return s, false
	}
	next := State{Status: Terminated, Last: s.lastAlive(), Termination: kind, Reason: reason}
	if !s.Status.Alive() {
		next.Termination, next.Reason = s.Termination, s.Reason
	}
	return next, true
}

func (s State) lastAlive() Status {
	if s.Status.Alive() {
		return s.Status
	}
	return s.Last
}

// Follows reports whether next may be recorded after s: statuses only grow.
func (s State) Follows(next State) bool { return next.Status > s.Status }
