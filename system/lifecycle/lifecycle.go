// Package lifecycle decides what happens to one backend on its drone: how its
// state moves with time and with what is seen of its container, whether a lease
// that is offered may be taken, and which step comes next.
//
// It owns no state and does nothing itself. Everything is a value or a pure
// function over the drone's own clock, safe from anywhere at once; the drone
// writes a Life to its journal and carries the steps out.
//
// The rules that it keeps: a status only grows; nothing is started without a
// lease that has not come to its renewal; a backend past its hard deadline is
// killed, whatever else it was about to do.
package lifecycle

import (
	"fmt"
	"time"

	"plane/system/backend"
	"plane/system/lease"
)

// Limits are the times that a backend's life on the drone is held to.
type Limits struct {
	Grace time.Duration // between a soft termination and the kill
	Ready time.Duration // from the spawn to the first HTTP answer
	Lease lease.Timing
}

// Life is what must be known of a backend to go on with it.
type Life struct {
	State     backend.State
	Deadlines lease.Deadlines
	ReadyBy   time.Time // when it must have answered HTTP
	StopBy    time.Time // when a soft termination turns hard; zero without one
	Message   string    // in words, why it is being ended; not durable
}

// Spawned is the life that begins with a spawn: loading, or over at once where
// the lease has run out on the way. Deadlines that no clock of this drone can
// have led to count as due for renewal.
func Spawned(now time.Time, d lease.Deadlines, lim Limits) Life {
	l := Life{State: backend.State{Status: backend.Scheduled}, Deadlines: d, ReadyBy: now.Add(lim.Ready)}
	if !now.Before(d.SoftTerminateAt) || !now.Before(d.HardTerminateAt) {
		return l.over(backend.Hard, backend.KeyExpired, "the spawn arrived after its lease had run out; it was not started")
	}
	l.State.Status = backend.Loading
	if d.HardTerminateAt.After(now.Add(lim.Lease.Hard)) {
		l.Deadlines = lim.Lease.Deadlines(now.Truncate(time.Millisecond))
		l.Deadlines.RenewAt = now.Truncate(time.Millisecond)
	}
	return l
}

// Rejected is the life of a spawn that can never work.
func (l Life) Rejected(why string) Life {
	return l.over("", backend.InternalError, why)
}

// Fresh reports whether the lease is far enough from its end to start the
// container on it.
func (l Life) Fresh(now time.Time) bool { return now.Before(l.Deadlines.RenewAt) }

// Moved is the life at a later status on the way up to ready; the address
// belongs to waiting and ready. A life that is past that status, or being ended,
// stays as it is.
func (l Life) Moved(to backend.Status, address string) Life {
	if l.State.Status.Alive() && to > l.State.Status {
		l.State = backend.State{Status: to, Address: address}
	}
	return l
}

// Terminate begins to end the backend, or turns a soft end into a hard one.
func (l Life) Terminate(now time.Time, kind backend.Kind, reason backend.Reason, message string, lim Limits) Life {
	next, ok := backend.TerminatingState(l.State, kind, reason)
	if !ok {
		return l
	}
	if l.Message == "" {
		l.Message = message
	}
	l.State = next
	l.StopBy = time.Time{}
	if kind == backend.Soft {
		l.StopBy = now.Add(lim.Grace)
	}
	return l
}

// At is the life when the clock shows now: what has run out has its effect.
func (l Life) At(now time.Time, lim Limits) Life {
	due := func(t time.Time) bool { return !now.Before(t) }
	switch s := l.State.Status; {
	case s >= backend.HardTerminating:
		return l
	case due(l.Deadlines.HardTerminateAt):
		return l.Terminate(now, backend.Hard, backend.KeyExpired, "its lease ran out", lim)
	case s == backend.Terminating && due(l.StopBy):
		return l.Terminate(now, backend.Hard, l.State.Reason, "", lim)
	case s == backend.Terminating:
		return l
	case due(l.Deadlines.SoftTerminateAt):
		return l.Terminate(now, backend.Soft, backend.KeyExpired, "its lease could not be renewed in time", lim)
	case s < backend.Ready && due(l.ReadyBy):
		return l.Terminate(now, backend.Hard, backend.StartupTimeout, fmt.Sprintf("it did not answer HTTP within %v", lim.Ready), lim)
	}
	return l
}

// NextDue is when At next has an effect; zero for never.
func (l Life) NextDue() time.Time {
	switch s := l.State.Status; {
	case s >= backend.HardTerminating:
		return time.Time{}
	case s == backend.Terminating:
		return Earliest(l.StopBy, l.Deadlines.HardTerminateAt)
	case s == backend.Ready:
		return Earliest(l.Deadlines.SoftTerminateAt, l.Deadlines.HardTerminateAt)
	default:
		return Earliest(l.ReadyBy, l.Deadlines.SoftTerminateAt, l.Deadlines.HardTerminateAt)
	}
}

// Earliest returns the first of the times, without those that are zero.
func Earliest(times ...time.Time) time.Time {
	var first time.Time
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}

// Presence is what is known of a backend's container.
type Presence int

// The kinds of presence.
const (
	Unknown Presence = iota // ask the engine
	Absent                  // there is none
	Created                 // there, but it has never run
	Running
	Ended
)

// Sight is what the engine said of a container.
type Sight struct {
	Presence Presence
	Address  string
	ExitCode *int
	OOM      bool
}

// Seen is the life after a look at its container.
func (l Life) Seen(now time.Time, s Sight, lim Limits) Life {
	status := l.State.Status
	started := status == backend.Waiting || status == backend.Ready
	switch s.Presence {
	case Ended:
		return l.ended(s)
	case Absent, Created:
		if started {
			return l.over("", "", "its container is gone")
		}
	case Running:
		if started && s.Address != l.State.Address {
			return l.Terminate(now, backend.Hard, backend.InternalError, "its container serves at another address than before", lim)
		}
		return l.Moved(backend.Waiting, s.Address)
	case Unknown:
	}
	return l
}

// ended is the end of a container by itself or as it was told to.
func (l Life) ended(s Sight) Life {
	why := ""
	switch {
	case s.OOM:
		why = "its process was killed because it was out of memory"
	case !l.State.Status.Alive():
	case s.ExitCode == nil:
		why = "its process ended; the exit code is not known"
	case l.State.Status < backend.Ready:
		why = fmt.Sprintf("its process ended with exit code %d before it answered HTTP", *s.ExitCode)
	case *s.ExitCode == 137:
		why = "its process was killed from outside (exit code 137)"
	default:
		why = fmt.Sprintf("its process ended with exit code %d", *s.ExitCode)
	}
	was := l.State.Status
	l = l.over("", "", why)
	if was != backend.Terminated {
		l.State.ExitCode, l.State.OOM = s.ExitCode, s.OOM
	}
	return l
}

// Gone is the end of a backend that was being ended and has no container.
func (l Life) Gone() Life { return l.over("", "", "") }

func (l Life) over(kind backend.Kind, reason backend.Reason, message string) Life {
	next, ok := backend.TerminatedState(l.State, kind, reason)
	if !ok {
		return l
	}
	if l.Message == "" {
		l.Message = message
	}
	next.Message = l.Message
	l.State = next
	l.StopBy = time.Time{}
	return l
}

// CheckOffer refuses new deadlines that may not be taken: asked is the last
// time that was sent with a request for them (zero: none was).
func (l Life) CheckOffer(now, asked time.Time, offer lease.Deadlines, lim Limits) error {
	switch {
	case asked.IsZero():
		return fmt.Errorf("no renewal was asked for")
	case offer.HardTerminateAt.After(asked.Add(lim.Lease.Hard)):
		return fmt.Errorf("hard_terminate_at is %v after the last request, more than the %v of a lease; the controller has other lease timings",
			offer.HardTerminateAt.Sub(asked), lim.Lease.Hard)
	case !offer.HardTerminateAt.After(now):
		return fmt.Errorf("hard_terminate_at has passed")
	case !now.Before(l.Deadlines.HardTerminateAt):
		return fmt.Errorf("the lease has run out")
	}
	return nil
}

// Newer reports whether the offer reaches further than the deadlines.
func Newer(offer, present lease.Deadlines) bool {
	return offer.HardTerminateAt.After(present.HardTerminateAt)
}
