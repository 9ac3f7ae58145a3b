package drone

import (
	"context"
	"errors"
	"fmt"
	"time"

	"plane/system/backend"
	"plane/system/lifecycle"
	"plane/system/port"
	"plane/system/protocol"
)

// work is what a keeper knows of the steps that are carried out for it.
type work struct {
	doing     lifecycle.Step // one at a time
	giveUp    context.CancelFunc
	givenUp   bool
	look      bool      // the engine hinted that the container has ended
	settledAt time.Time // when a start whose end nobody saw can have no effect any more; zero: there is none
	fails     [lifecycle.StepsEnd]int
	notBefore [lifecycle.StepsEnd]time.Time
	portTries int
	doom      string // why it can never be started, for the user
	trouble   string // what keeps it from starting, for the user
	forgotten bool
}

// mostPorts is how many ports are tried before a spawn is given up.
const mostPorts = 8

// settleTime is how long the engine may still carry out a start after whoever
// asked for it has given up or died.
const settleTime = 5 * time.Second

// outcome is what a step brought.
type outcome struct {
	err       error
	sight     lifecycle.Sight
	port      int
	forgotten bool
}

// step begins the next step, gives up one that has become pointless, and
// returns when the next is due (zero: after some news).
func (k *keeper) step(ctx context.Context) time.Time {
	now, w := k.d.Clock.Now(), &k.work
	k.known.Saved = !k.paper.dirty
	k.known.Startable = k.life.Fresh(now) && k.term.guarded.Equal(k.life.Deadlines.HardTerminateAt)
	k.known.Expired = !now.Before(k.life.Deadlines.HardTerminateAt)
	if w.look && w.doing != lifecycle.Start {
		k.known.Container, w.look = lifecycle.Unknown, false
	}
	if !w.settledAt.IsZero() && !now.Before(w.settledAt) && w.doing == lifecycle.None {
		k.known.Container, w.settledAt = lifecycle.Unknown, time.Time{}
	}
	k.known.Unsettled = !w.settledAt.IsZero()
	want := lifecycle.Plan(k.life, k.known)
	switch {
	case w.doing != lifecycle.None:
		if want != w.doing && w.doing.Interruptible() && !w.givenUp {
			w.givenUp = true
			w.giveUp()
		}
		return time.Time{}
	case want == lifecycle.None:
		if k.known.Released && !k.known.Expired {
			return k.life.Deadlines.HardTerminateAt
		}
		return w.settledAt
	case now.Before(w.notBefore[want]):
		return w.notBefore[want]
	}
	k.begin(ctx, now, want)
	return time.Time{}
}

// begin carries a step out in a task of its own, on copies of what it needs.
func (k *keeper) begin(ctx context.Context, now time.Time, step lifecycle.Step) {
	limit := now.Add(k.d.cfg.Timing.EngineCall)
	switch step {
	case lifecycle.Pull:
		limit = k.life.ReadyBy
	case lifecycle.Start: // never given up before its time, but long before the lease is over
		limit = lifecycle.Earliest(now.Add(6*k.d.cfg.Timing.EngineCall), k.life.Deadlines.SoftTerminateAt)
	}
	ctx, cancel := k.d.Clock.WithDeadline(ctx, limit)
	k.work.doing, k.work.giveUp, k.work.givenUp = step, cancel, false
	spec := k.spec
	spec.Deadlines = protocol.Deadlines(k.life.Deadlines)
	order := order{d: k.d, id: k.id, spec: spec, address: k.life.State.Address, endEvent: k.paper.endEvent}
	k.d.group.Go(step.String()+" "+k.id, func(context.Context) error {
		defer cancel()
		done := order.carryOut(ctx, step)
		k.tell(func() { k.finished(step, done) })
		return nil
	})
}

// finished takes in what a step brought.
func (k *keeper) finished(step lifecycle.Step, o outcome) {
	now, w := k.d.Clock.Now(), &k.work
	givenUp := w.givenUp
	w.doing, w.givenUp = lifecycle.None, false
	if o.err != nil {
		if !givenUp {
			k.failed(now, step, o.err)
		}
		return
	}
	w.fails[step], w.notBefore[step] = 0, time.Time{}
	switch step {
	case lifecycle.Pull:
		k.spec.Executable = protocol.WithoutCredentials(k.spec.Executable)
		k.spec.Port, w.trouble = o.port, ""
		k.turn(now, k.life.Moved(backend.Starting, ""))
	case lifecycle.NewPort:
		k.known.PortTaken = false
		if o.port == 0 { // there is no need for one
			k.saw(now, o.sight)
			break
		}
		k.spec.Port, k.known.Container = o.port, lifecycle.Absent
		k.paper.dirty = true
	case lifecycle.Inspect, lifecycle.Start, lifecycle.Kill:
		k.saw(now, o.sight)
	case lifecycle.Probe:
		k.turn(now, k.life.Moved(backend.Ready, k.life.State.Address))
	case lifecycle.Stop:
		k.known.Asked, w.look = true, true // in case it has ended before
	case lifecycle.Discard:
		k.known.Removed, k.known.Container = true, lifecycle.Absent
		if w.doom != "" && k.life.State.Status.Alive() {
			k.turn(now, k.life.Rejected(w.doom))
		}
		k.turn(now, k.life.Gone())
	case lifecycle.Release:
		k.known.Released = true
	case lifecycle.Forget:
		w.forgotten = o.forgotten
		w.notBefore[step] = now.Add(k.d.cfg.Timing.Relist) // an older event is not recorded yet
	}
}

// saw takes in what the engine shows of the container.
func (k *keeper) saw(now time.Time, s lifecycle.Sight) {
	k.known.Container, k.work.trouble = s.Presence, ""
	if s.Presence == lifecycle.Running || s.Presence == lifecycle.Ended {
		k.work.settledAt = time.Time{}
	}
	k.turn(now, k.life.Seen(now, s, k.d.limits))
}

// failed decides what a failure means. Where it is unclear what was done, the
// engine is asked before the step is repeated.
func (k *keeper) failed(now time.Time, step lifecycle.Step, err error) {
	w := &k.work
	w.fails[step]++
	first, most := 500*time.Millisecond, 5*time.Second
	log := k.log.Warn
	switch {
	case step == lifecycle.Probe:
		first, most, log = 250*time.Millisecond, time.Second, k.log.Debug
	case (step == lifecycle.Pull || step == lifecycle.Start) && errors.Is(err, port.ErrBadExecutable):
		k.known.Doomed, w.doom = true, forUser(err, "")
	case step == lifecycle.Pull:
		first, most = time.Second, 15*time.Second
		w.trouble = "its image could not be made ready"
	case step == lifecycle.Start && errors.Is(err, port.ErrPortTaken):
		k.known.PortTaken = true
		if w.portTries++; w.portTries >= mostPorts {
			k.known.Doomed, w.doom = true, fmt.Sprintf("no free port was found in %d tries", mostPorts)
		}
	case step == lifecycle.Start:
		k.known.Container, w.settledAt = lifecycle.Unknown, now.Add(settleTime)
		w.trouble = "the container engine did not start it"
	case step == lifecycle.Kill:
		log = k.log.Error
	}
	w.notBefore[step] = now.Add(k.d.jittered(backoff(w.fails[step], first, most)))
	log("a step failed", "step", step.String(), "tries", w.fails[step], "error", err)
}
