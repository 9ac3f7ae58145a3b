package drone

import (
	"context"
	"fmt"
	"time"

	"plane/system/backend"
	"plane/system/lease"
	"plane/system/lifecycle"
	"plane/system/port"
	"plane/system/protocol"
)

// paper is what a keeper knows of the journal.
type paper struct {
	dirty     bool           // the journal does not say what life says
	status    backend.Status // in the journal
	unclear   bool           // a write failed, and may be there all the same
	changedAt time.Time      // when the status became what it is
	endEvent  int64          // tells the end of the backend
	owed      []string       // actions to be acknowledged once life is written
	fails     int
	retryAt   time.Time
}

// write makes durable what has changed: the journal, then what may be told
// because it is there, then a new term of the lease, then the guard. What fails
// is tried again soon; deadlines go on counting meanwhile.
func (k *keeper) write(ctx context.Context) {
	p := &k.paper
	if k.writePending() && !k.d.Clock.Now().Before(p.retryAt) {
		if err := k.writeAll(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			p.fails++
			wait := backoff(p.fails, 500*time.Millisecond, 5*time.Second)
			p.retryAt = k.d.Clock.Now().Add(k.d.jittered(wait))
			k.log.Error("cannot write what has changed; trying again", "error", err, "tries", p.fails)
		} else {
			p.fails, p.retryAt = 0, time.Time{}
		}
	}
	if !p.dirty {
		for _, id := range p.owed {
			k.d.acknowledge(id)
		}
		p.owed = nil
	}
}

func (k *keeper) writePending() bool {
	return k.paper.dirty || k.term.offered() || k.guardPending()
}

func (k *keeper) writeDue() time.Time {
	if k.writePending() {
		return k.paper.retryAt
	}
	return time.Time{}
}

func (k *keeper) writeAll(ctx context.Context) error {
	if k.paper.dirty {
		if err := k.save(ctx); err != nil {
			return err
		}
	}
	if k.term.offered() {
		if err := k.takeOffer(ctx); err != nil {
			return err
		}
	}
	if k.guardPending() {
		return k.guard(ctx, k.life.Deadlines.HardTerminateAt)
	}
	return nil
}

// save writes the record and, when the status has changed, the event that tells
// it. After an unclear failure it looks first, so that no event is there twice.
func (k *keeper) save(ctx context.Context) error {
	p := &k.paper
	state := k.life.State
	var event *port.Event
	if state.Status != p.status {
		event = &port.Event{BackendID: k.id, State: state, Time: p.changedAt}
	}
	if event != nil && p.unclear {
		there, endEvent, err := k.findEvent(ctx, state.Status)
		if err != nil {
			return err
		}
		if there {
			event, p.endEvent = nil, endEvent
		}
	}
	id, err := k.put(ctx, k.life.Deadlines, event)
	if err != nil {
		p.unclear = true
		return fmt.Errorf("journal: %w", err)
	}
	if event != nil && state.Status == backend.Terminated {
		p.endEvent = id
	}
	if p.status != state.Status {
		k.logStatus()
		k.d.events.Advance()
	}
	p.dirty, p.unclear, p.status = false, false, state.Status
	return nil
}

// findEvent asks the journal whether the backend has come to the status there;
// then its event is or was there too. The event that tells the end stays until
// this keeper lets it go.
func (k *keeper) findEvent(ctx context.Context, status backend.Status) (there bool, endEvent int64, err error) {
	ctx, cancel := k.diskContext(ctx)
	defer cancel()
	records, err := k.d.Journal.Records(ctx)
	if err != nil {
		return false, 0, fmt.Errorf("journal: read records: %w", err)
	}
	for _, r := range records {
		there = there || r.BackendID == k.id && r.State.Status == status
	}
	if !there || status != backend.Terminated {
		return there, 0, nil
	}
	events, err := k.d.Journal.Events(ctx)
	if err != nil {
		return false, 0, fmt.Errorf("journal: read events: %w", err)
	}
	for _, e := range events {
		if e.BackendID == k.id && e.State.Status == status {
			endEvent = e.ID
		}
	}
	return true, endEvent, nil
}

func (k *keeper) put(ctx context.Context, deadlines lease.Deadlines, event *port.Event) (int64, error) {
	ctx, cancel := k.diskContext(ctx)
	defer cancel()
	return k.d.Journal.Put(ctx, port.Record{
		BackendID: k.id, Spec: k.spec, State: k.life.State, Deadlines: protocol.Deadlines(deadlines),
		Port: k.spec.Port, Boot: k.d.Boot.BootID(), StopBy: k.life.StopBy, ReadyBy: k.life.ReadyBy,
	}, event)
}

// diskContext bounds a call that the keeper waits for, so that it is never late
// for a hard deadline.
func (k *keeper) diskContext(ctx context.Context) (context.Context, context.CancelFunc) {
	now := k.d.Clock.Now()
	limit := now.Add(k.d.cfg.Timing.DiskCall)
	if hard := k.life.Deadlines.HardTerminateAt; k.life.State.Status < backend.HardTerminating && now.Before(hard) {
		limit = lifecycle.Earliest(limit, hard)
	}
	return k.d.Clock.WithDeadline(ctx, limit)
}

func (k *keeper) logStatus() {
	s := k.life.State
	args := []any{"status", s.Status.String()}
	if s.Reason != "" {
		args = append(args, "reason", string(s.Reason))
	}
	if s.Status == backend.Terminated {
		if s.ExitCode != nil {
			args = append(args, "exit_code", *s.ExitCode)
		}
		args = append(args, "oom", s.OOM, "message", s.Message)
	}
	k.log.Info("backend is "+s.Status.String(), args...)
}

// backoff doubles from first to most.
func backoff(fails int, first, most time.Duration) time.Duration {
	wait := first
	for range fails - 1 {
		if wait >= most {
			break
		}
		wait *= 2
	}
	return min(wait, most)
}
