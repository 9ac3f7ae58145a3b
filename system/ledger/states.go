package ledger

import (
	"slices"
	"time"

	"plane/system/backend"
	"plane/system/port"
)

// RecordStates implements port.Store.
func (l *Ledger) RecordStates(now time.Time, reports []port.StateReport) []port.RecordOutcome {
	outcomes := make([]port.RecordOutcome, len(reports))
	for i, r := range reports {
		b, ok := l.backends[r.BackendID]
		switch {
		case !ok || b.drone.id != r.Drone:
			outcomes[i] = port.NotOfDrone
		case !b.state.Follows(r.State):
			outcomes[i] = port.Stale
			l.hint(port.BackendTopic, b.id)
		default:
			l.enter(now, b, r.State, r.Time)
			outcomes[i] = port.Recorded
		}
	}
	return outcomes
}

// enter moves a backend to a later state.
func (l *Ledger) enter(now time.Time, b *backendRow, s backend.State, shown time.Time) {
	b.state, b.stateTime = s, shown
	b.history = append(b.history, port.HistoryEntry{State: s, Time: shown})
	switch s.Status {
	case backend.Waiting, backend.Ready:
		b.address = s.Address
	case backend.Terminated:
		l.end(now, b)
	}
	if s.Status == backend.Ready {
		b.readyAt = now
		l.reconsider(b)
	}
	l.hint(port.BackendTopic, b.id)
}

// end frees what a terminated backend held.
func (l *Ledger) end(now time.Time, b *backendRow) {
	if l.holds(b) {
		delete(l.holders, nameOf(b.key))
	}
	for e := b.tokens.Front(); e != nil; e = b.tokens.Front() {
		l.void(e.Value.(*tokenRow))
	}
	for _, id := range b.actions {
		b.drone.settle(id)
	}
	b.actions, b.uses = nil, nil
	b.drone.live.Remove(b.inLive)
	b.drone.promised.MilliCPUs -= b.asks.MilliCPUs
	b.drone.promised.MemoryBytes -= b.asks.MemoryBytes
	if b.inDue != nil {
		l.due.remove(b.inDue)
		b.inDue = nil
	}
	b.endedAt = now
	b.inEnded = l.ended.PushBack(b)
}

// RenewKeys implements port.Store.
func (l *Ledger) RenewKeys(now time.Time, renewals []port.Renewal) []bool {
	renewed := make([]bool, len(renewals))
	for i, r := range renewals {
		b, ok := l.backends[r.BackendID]
		if !ok || b.drone.id != r.Drone || !l.holds(b) || b.lapsed(now) || b.final {
			continue
		}
		b.leaseEnd = now.Add(r.Lease.Expiry)
		l.reconsider(b)
		renewed[i] = true
	}
	return renewed
}

// KeepAlive implements port.Store.
func (l *Ledger) KeepAlive(now time.Time, u port.ProxyUse) {
	n, ok := l.node(u.Proxy)
	if !ok {
		return
	}
	if u.Complete && !u.AsOf.Before(n.word) {
		n.seen, n.word = later(n.seen, u.AsOf), u.AsOf
		n.round++
	}
	for _, id := range u.Backends {
		if b, ok := l.backends[id]; ok && !b.terminated() {
			b.use(now, n)
		}
	}
}

func (b *backendRow) use(now time.Time, proxy *node) {
	b.used = now
	word := use{proxy: proxy, round: proxy.round, at: now}
	for i := range b.uses {
		if b.uses[i].proxy == proxy {
			b.uses[i] = word
			return
		}
	}
	b.uses = append(slices.DeleteFunc(b.uses, use.void), word)
}
