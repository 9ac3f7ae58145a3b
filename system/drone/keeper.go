package drone

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"plane/system/backend"
	"plane/system/lease"
	"plane/system/lifecycle"
	"plane/system/port"
	"plane/system/protocol"
	"plane/system/queue"
)

// keeper looks after one backend. Its fields belong to its own task; others
// only tell it things, and read status.
type keeper struct {
	d      *Drone
	id     string
	log    *slog.Logger
	mail   queue.Queue[func()]
	news   port.EventCount
	status atomic.Int64 // of life

	life  lifecycle.Life
	known lifecycle.Known
	spec  port.ContainerSpec

	paper paper
	term  term
	work  work
}

// hired makes the keeper of a new backend.
func (d *Drone) hired(backendID string, s protocol.Spawn) *keeper {
	now := d.Clock.Now()
	k := d.newKeeper(backendID)
	k.spec = port.ContainerSpec{
		BackendID: backendID, Executable: s.Executable, Key: s.Key.Key, FencingToken: s.Key.Token,
	}
	if s.StaticToken != nil {
		k.spec.StaticToken = *s.StaticToken
	}
	k.known.Container = lifecycle.Absent
	k.turn(now, lifecycle.Spawned(now, lease.Deadlines(s.Key.Deadlines), d.limits))
	if err := d.Runtime.Validate(k.spec); err != nil {
		k.turn(now, k.life.Rejected(forUser(err, "the request cannot be started")))
	}
	return k
}

// adopted makes the keeper of a backend that the journal knows. endEvent is the
// event that tells its end, 0 when there is none or it is recorded already.
func (d *Drone) adopted(rec port.Record, endEvent int64) *keeper {
	k := d.newKeeper(rec.BackendID)
	k.spec = rec.Spec
	k.spec.Port = rec.Port
	k.life = lifecycle.Life{State: rec.State, Deadlines: lease.Deadlines(rec.Deadlines), ReadyBy: rec.ReadyBy, StopBy: rec.StopBy}
	k.status.Store(int64(rec.State.Status))
	k.paper.status, k.paper.endEvent = rec.State.Status, endEvent
	k.known.Acked = rec.State.Status == backend.Terminated && endEvent == 0
	now := d.Clock.Now()
	if rec.State.Status == backend.Starting || rec.State.Last == backend.Starting {
		k.work.settledAt = now.Add(settleTime) // the last agent may have died over it
	}
	if rec.Boot != d.Boot.BootID() {
		k.turn(now, k.life.Terminate(now, backend.Hard, backend.Lost, "its machine was restarted", d.limits))
	}
	return k
}

func (d *Drone) newKeeper(backendID string) *keeper {
	return &keeper{d: d, id: backendID, log: d.log.With("backend", backendID), news: d.Tasks.EventCount()}
}

// tell hands the keeper something to do in its own task, next. It does not
// block; a keeper that is done does not hear it.
func (k *keeper) tell(do func()) {
	k.mail.Put(do)
	k.news.Advance()
}

// run keeps the backend until it is forgotten.
func (k *keeper) run(ctx context.Context) error {
	for {
		seen := k.news.Read()
		for _, do := range k.mail.TakeAll() {
			do()
		}
		k.mind()
		if k.overdue() {
			k.step(ctx) // a kill at the hard deadline waits for no disk
		}
		k.write(ctx)
		k.renew()
		next := k.step(ctx)
		if k.work.forgotten {
			k.d.keepers.Remove(k.id)
			return nil
		}
		if err := k.rest(ctx, seen, next); err != nil {
			return err
		}
	}
}

// mind lets time have its effect.
func (k *keeper) mind() {
	now := k.d.Clock.Now()
	next := k.life.At(now, k.d.limits)
	if next.State.Reason == backend.StartupTimeout && k.life.State.Status.Alive() && k.work.trouble != "" {
		next.Message += "; " + k.work.trouble
	}
	k.turn(now, next)
}

// overdue reports whether the lease has run out.
func (k *keeper) overdue() bool { return !k.d.Clock.Now().Before(k.life.Deadlines.HardTerminateAt) }

// turn takes over the next life.
func (k *keeper) turn(now time.Time, next lifecycle.Life) {
	if next.State.Status != k.life.State.Status {
		k.status.Store(int64(next.State.Status))
		k.paper.dirty, k.paper.changedAt = true, now
		k.paper.retryAt = time.Time{} // what has failed before does not delay it
	}
	k.life = next
}

// rest waits for news, or until something is due.
func (k *keeper) rest(ctx context.Context, seen uint64, step time.Time) error {
	wake := lifecycle.Earliest(step, k.life.NextDue(), k.writeDue(), k.renewDue())
	if wake.IsZero() {
		return k.news.Await(ctx, seen)
	}
	until, cancel := k.d.Clock.WithDeadline(ctx, wake)
	defer cancel()
	if err := k.news.Await(until, seen); err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// The rest of this file is what a keeper can be told.

// owe notes an action to be acknowledged.
func (k *keeper) owe(actionID string) { k.paper.owed = append(k.paper.owed, actionID) }

func (k *keeper) terminate(actionID string, t protocol.Terminate) {
	k.owe(actionID)
	now := k.d.Clock.Now()
	k.turn(now, k.life.Terminate(now, t.Kind, t.Reason, "", k.d.limits))
}

// reconnected: a new session is open, so what went into the last may be lost.
func (k *keeper) reconnected() { k.term.askAt = time.Time{} }

// look: the container may have ended.
func (k *keeper) look() {
	if k.known.Container != lifecycle.Absent || k.work.doing == lifecycle.Start {
		k.work.look = true
	}
}

// present: there was a container when all were listed.
func (k *keeper) present() {
	if k.life.State.Status == backend.Terminated {
		k.known.Removed = false
	}
}

// endRecorded: a controller knows that the backend is over.
func (k *keeper) endRecorded() { k.known.Acked = true }

// dismiss: the journal has forgotten the backend.
func (k *keeper) dismiss() { k.work.forgotten = true }

// forUser is what a user is told of an error: its text where that is made for
// users, and nothing of it elsewhere.
func forUser(err error, otherwise string) string {
	if errors.Is(err, port.ErrBadExecutable) {
		return err.Error()
	}
	return otherwise
}
