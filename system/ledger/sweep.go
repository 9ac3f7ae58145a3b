package ledger

import (
	"fmt"
	"time"

	"plane/system/backend"
	"plane/system/port"
)

// dueFrom is a time before which Sweep has nothing to do with the backend,
// whatever its parameters are. It may lie too early, never too late; where a
// change makes it earlier, reconsider must follow.
func (b *backendRow) dueFrom() time.Time {
	due := b.leaseEnd
	if !b.hardAt.IsZero() {
		return due
	}
	if b.swept {
		due = earlier(due, b.softAt)
	}
	if b.lifetime > 0 {
		due = earlier(due, b.created.Add(b.lifetime))
	}
	if b.maxIdle > 0 && b.state.Status == backend.Ready {
		due = earlier(due, b.idleFrom())
	}
	return due
}

// idleFrom is when the backend, which is ready, has been idle for its limit,
// unless a proxy uses it.
func (b *backendRow) idleFrom() time.Time {
	return later(b.readyAt, b.used).Add(b.maxIdle)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// reconsider moves a backend forward in the agenda. What makes it due later
// leaves it where it is: Sweep finds that out when it gets there.
func (l *Ledger) reconsider(b *backendRow) {
	if due := b.dueFrom(); b.inDue != nil && due.Before(b.inDue.at) {
		l.due.move(b.inDue, due)
	}
}

// TakeTurn reports whether a sweep has to look, and notes that it does: the first
// step of Sweep, for who takes the two apart. The second then is a Sweep with an
// Every of 0.
func (l *Ledger) TakeTurn(now time.Time, p port.SweepParams) bool {
	if p.Every <= 0 {
		return true
	}
	if !l.looked.IsZero() && now.Sub(l.looked) < p.Every {
		return false
	}
	if !p.SkipIdle {
		l.looked = now
	}
	return true
}

// Sweep implements port.Store.
func (l *Ledger) Sweep(now time.Time, p port.SweepParams) (handled int, more bool) {
	if !l.TakeTurn(now, p) {
		return 0, false
	}
	var looked []*backendRow
	for handled < p.Limit {
		item, ok := l.due.first(now)
		if !ok {
			break
		}
		b := item.value
		l.due.remove(item)
		b.inDue = nil
		looked = append(looked, b)
		if l.sweep(now, p, b) {
			handled++
		}
	}
	for _, b := range looked {
		if !b.terminated() {
			b.inDue = l.due.add(b, b.dueFrom(), b.seq)
		}
	}
	return handled, handled == p.Limit
}

// sweep does what is due for one backend and reports whether that was anything.
func (l *Ledger) sweep(now time.Time, p port.SweepParams, b *backendRow) bool {
	if reason, message := overdue(now, p, b); reason != "" {
		end, _ := backend.TerminatedState(b.state, backend.Hard, reason)
		end.Message = message
		l.enter(now, b, end, now)
		return true
	}
	if !b.hardAt.IsZero() || !b.swept && !l.pastLimit(now, p, b) {
		return false
	}
	b.swept = true
	switch {
	case b.softAt.IsZero():
		l.terminate(now, b, p.NewActionID(), backend.Soft, backend.Swept)
	case now.Sub(b.softAt) >= p.HardAfter:
		l.terminate(now, b, p.NewActionID(), backend.Hard, backend.Swept)
	default:
		return false
	}
	return true
}

// overdue returns why a backend counts as ended though its drone has not said
// so, or nothing. Only one whose lease has expired can: until then it may run,
// and its key must not become free.
func overdue(now time.Time, p port.SweepParams, b *backendRow) (backend.Reason, string) {
	if !b.lapsed(now) {
		return "", ""
	}
	quiet := now.Sub(b.drone.seen)
	switch {
	case b.lost:
		return backend.Lost, "an operator marked it as lost"
	case quiet > p.DroneLost:
		return backend.Lost, fmt.Sprintf("drone %s has not been heard from for %v", b.drone.name, quiet.Round(time.Second))
	case b.state.Status == backend.Scheduled:
		return backend.KeyExpired, fmt.Sprintf("drone %s did not start it before its lease expired", b.drone.name)
	case now.Sub(b.leaseEnd) >= p.LeaseGrace:
		return backend.KeyExpired, fmt.Sprintf("drone %s did not renew its lease, and did not say how it ended", b.drone.name)
	}
	return "", ""
}

func (l *Ledger) pastLimit(now time.Time, p port.SweepParams, b *backendRow) bool {
	return b.pastLifetime(now) || l.idle(now, p, b)
}

func (b *backendRow) pastLifetime(now time.Time) bool {
	return b.lifetime > 0 && !now.Before(b.created.Add(b.lifetime))
}

func (l *Ledger) idle(now time.Time, p port.SweepParams, b *backendRow) bool {
	if p.SkipIdle || b.maxIdle <= 0 || b.state.Status != backend.Ready || now.Before(b.idleFrom()) {
		return false
	}
	for _, u := range b.uses {
		if !u.void() && now.Sub(later(u.at, u.proxy.seen)) < p.ProxyGone {
			return false
		}
	}
	for _, n := range l.cluster(b.cluster).proxyOrder {
		if n.outOfTouch(now, b.idleFrom(), p.ProxyGone) {
			return false
		}
	}
	return true
}

// Cleanup implements port.Store.
func (l *Ledger) Cleanup(now time.Time, minAge time.Duration, limit int) int {
	deleted := 0
	for ; minAge > 0 && deleted < limit; deleted++ {
		e := l.ended.Front()
		if e == nil || now.Sub(e.Value.(*backendRow).endedAt) < minAge {
			break
		}
		l.forget(e.Value.(*backendRow))
	}
	for ; deleted < limit; deleted++ {
		item, ok := l.expiring.first(now)
		if !ok {
			break
		}
		l.void(item.value)
	}
	return deleted
}
