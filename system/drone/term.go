package drone

import (
	"context"
	"fmt"
	"time"

	"plane/system/backend"
	"plane/system/lease"
	"plane/system/lifecycle"
	"plane/system/protocol"
)

// term is what a keeper knows of its backend's lease, besides the deadlines
// that count.
type term struct {
	guarded time.Time       // the deadline that the guard has confirmed to this process
	offer   lease.Deadlines // from a controller, not yet written and guarded
	asked   time.Time       // the last time that was sent with a request
	tries   int             // requests since the last answer
	askAt   time.Time       // when to ask again
	lost    bool            // the key is gone for good
}

// mostRenewWait is how long an unanswered renewal may wait for the next, however
// often it was repeated.
const mostRenewWait = 2 * time.Second

func (t *term) offered() bool { return !t.offer.HardTerminateAt.IsZero() }

// renewable reports whether another term is worth asking for.
func (k *keeper) renewable(now time.Time) bool {
	return k.life.State.Status != backend.Terminated && !k.term.lost && !k.term.offered() &&
		k.paper.status != 0 && now.Before(k.life.Deadlines.SoftTerminateAt)
}

// askFrom is when the next term is first asked for: together with those of other
// backends whose time is near.
func (k *keeper) askFrom() time.Time {
	return k.d.slots.Last(k.life.Deadlines.RenewAt.Add(-k.d.cfg.Timing.RenewAhead))
}

// renew asks for another term when it is time, and again until there is an
// answer, on whatever session is open.
func (k *keeper) renew() {
	now, t := k.d.Clock.Now(), &k.term
	if !k.renewable(now) || now.Before(k.askFrom()) || now.Before(t.askAt) {
		return
	}
	local := now.Truncate(time.Millisecond)
	t.asked = local // before it is sent
	if !k.d.send(protocol.EncodeFromDrone(protocol.RenewKey{Backend: k.id, LocalTime: protocol.Millis{Time: local}})) {
		return
	}
	t.tries++
	t.askAt = now.Add(k.d.jittered(min(time.Duration(t.tries)*k.d.cfg.Timing.RenewRetry, mostRenewWait)))
	if t.tries > 1 {
		k.log.Warn("a renewal was not answered; asking again", "tries", t.tries, "left", k.life.Deadlines.SoftTerminateAt.Sub(now).Round(time.Millisecond))
	}
}

// renewDue is when renew next has something to do. Without a session it has
// nothing: a new one is told.
func (k *keeper) renewDue() time.Time {
	now := k.d.Clock.Now()
	switch {
	case !k.renewable(now):
		return time.Time{}
	case now.Before(k.askFrom()):
		return k.askFrom()
	case k.d.out.Load() == nil:
		return time.Time{}
	default:
		return k.term.askAt
	}
}

// renewed is told of a controller's answer; nil means that the key is lost.
func (k *keeper) renewed(offer *lease.Deadlines) {
	now, t := k.d.Clock.Now(), &k.term
	switch {
	case k.life.State.Status == backend.Terminated || t.lost:
	case offer == nil:
		k.log.Warn("the controller refused to renew the lease; ending the backend at once")
		t.lost, t.offer = true, lease.Deadlines{}
		k.turn(now, k.life.Terminate(now, backend.Hard, backend.KeyExpired, "its lease was lost to another", k.d.limits))
	default:
		if err := k.life.CheckOffer(now, t.asked, *offer, k.d.limits); err != nil {
			k.log.Warn("refused deadlines of the controller", "error", err)
			return
		}
		if lifecycle.Newer(*offer, k.life.Deadlines) && lifecycle.Newer(*offer, t.offer) {
			t.offer = *offer
		}
	}
}

// takeOffer makes a new term count: first it is written, then guarded, then
// relied on.
func (k *keeper) takeOffer(ctx context.Context) error {
	t := &k.term
	if k.life.State.Status == backend.Terminated || !k.d.Clock.Now().Before(k.life.Deadlines.HardTerminateAt) {
		t.offer = lease.Deadlines{} // too late
		return nil
	}
	if _, err := k.put(ctx, t.offer, nil); err != nil {
		return fmt.Errorf("journal: renewed lease: %w", err)
	}
	if k.guarding() {
		if err := k.guard(ctx, t.offer.HardTerminateAt); err != nil {
			return err
		}
	}
	k.life.Deadlines = t.offer
	t.offer, t.tries, t.askAt = lease.Deadlines{}, 0, time.Time{}
	k.log.Debug("lease renewed", "hard_terminate_at", k.life.Deadlines.HardTerminateAt)
	return nil
}

// guarding reports whether there may be a container, now or with the next step.
func (k *keeper) guarding() bool {
	s := k.life.State.Status
	return s >= backend.Starting && s < backend.Terminated
}

func (k *keeper) guardPending() bool {
	hard := k.life.Deadlines.HardTerminateAt
	return k.guarding() && !k.term.guarded.Equal(hard) && k.d.Clock.Now().Before(hard)
}

func (k *keeper) guard(ctx context.Context, deadline time.Time) error {
	ctx, cancel := k.diskContext(ctx)
	defer cancel()
	if err := k.d.Guard.Set(ctx, k.id, deadline); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	k.term.guarded = deadline
	return nil
}
