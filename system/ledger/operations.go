package ledger

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"plane/system/backend"
	"plane/system/port"
)

// Nodes implements port.Operations.
func (l *Ledger) Nodes(now time.Time) []port.Node {
	var all []port.Node
	for _, name := range slices.Sorted(maps.Keys(l.clusters)) {
		c := l.clusters[name]
		for _, d := range byName(c.droneOrder) {
			n := d.shown(now, port.DroneNode, name)
			n.Pool, n.Draining, n.Backends, n.Capacity, n.Promised = d.pool, d.draining, d.live.Len(), d.capacity, d.promised
			all = append(all, n)
		}
		for _, p := range byName(c.proxyOrder) {
			all = append(all, p.shown(now, port.ProxyNode, name))
		}
	}
	return all
}

func byName(nodes []*node) []*node {
	return slices.SortedFunc(slices.Values(nodes), func(a, b *node) int { return cmp.Compare(a.name, b.name) })
}

// shown is what drones and proxies have in common.
func (n *node) shown(now time.Time, kind port.NodeKind, cluster string) port.Node {
	return port.Node{
		ID: n.id, Kind: kind, Cluster: cluster, Name: n.name, Version: n.version,
		Controller: n.controller, Connected: n.connected, Silent: max(now.Sub(n.seen), 0),
	}
}

// TerminationCandidates implements port.Operations.
func (l *Ledger) TerminationCandidates(now time.Time, p port.SweepParams, limit int) []port.TerminationCandidate {
	var found []port.TerminationCandidate
	for _, id := range slices.Sorted(maps.Keys(l.backends)) {
		if len(found) >= limit {
			break
		}
		b := l.backends[id]
		if why := l.whyEnds(now, p, b); why != "" {
			found = append(found, port.TerminationCandidate{
				Backend: l.view(b), Why: why, Kind: b.askedFor(), Drone: b.drone.name, Silent: max(now.Sub(b.drone.seen), 0),
			})
		}
	}
	return found
}

// whyEnds returns why a backend is to end, or nothing.
func (l *Ledger) whyEnds(now time.Time, p port.SweepParams, b *backendRow) port.WhyEnds {
	if b.terminated() {
		return ""
	}
	reason, _ := overdue(now, p, b)
	switch {
	case b.lost:
		return port.MarkedLost
	case reason == backend.Lost:
		return port.DroneLost
	case reason == backend.KeyExpired:
		return port.LeaseExpired
	case b.final:
		return port.FinalLease
	case b.pastLifetime(now):
		return port.OverLifetime
	case l.idle(now, p, b):
		return port.Idle
	case b.askedFor() != "":
		return port.EndAskedFor
	}
	return ""
}

// askedFor is the hardest termination that was asked for, if any was.
func (b *backendRow) askedFor() backend.Kind {
	switch {
	case !b.hardAt.IsZero():
		return backend.Hard
	case !b.softAt.IsZero():
		return backend.Soft
	}
	return ""
}

// PreventRenew implements port.Operations.
func (l *Ledger) PreventRenew(id string) (bool, error) {
	b, err := l.liveBackend(id)
	if err != nil {
		return false, err
	}
	already := b.final
	b.final = true
	return !already, nil
}

// MarkLost implements port.Operations.
func (l *Ledger) MarkLost(now time.Time, id string) (time.Duration, error) {
	b, err := l.liveBackend(id)
	if err != nil {
		return 0, err
	}
	b.final, b.lost = true, true
	return max(b.leaseEnd.Sub(now), 0), nil
}

func (l *Ledger) liveBackend(id string) (*backendRow, error) {
	b, err := l.backend(id)
	if err == nil && b.terminated() {
		return nil, fmt.Errorf("backend %q is terminated, a live one is %w", id, port.ErrNotFound)
	}
	return b, err
}
