package ledger

import (
	"slices"
	"strings"
	"time"

	"plane/system/backend"
	"plane/system/placement"
	"plane/system/port"
	"plane/system/protocol"
)

// The ages by which ClusterState goes.
const (
	lately = placement.Lately // a node or controller that was heard from since may be there
	fresh  = 45 * time.Second // a drone that was not heard from since is not ready
)

// Backend implements port.Store.
func (l *Ledger) Backend(id string) (port.Backend, error) {
	b, err := l.backend(id)
	if err != nil {
		return port.Backend{}, err
	}
	return l.view(b), nil
}

// Statuses implements port.Store.
func (l *Ledger) Statuses(ids []string) []backend.Status {
	statuses := make([]backend.Status, len(ids))
	for i, id := range ids {
		statuses[i] = backend.Terminated
		if b, ok := l.backends[id]; ok {
			statuses[i] = b.state.Status
		}
	}
	return statuses
}

func (l *Ledger) view(b *backendRow) port.Backend {
	v := port.Backend{
		ID: b.id, Key: b.key, Cluster: b.cluster, Drone: b.drone.name,
		State: b.state, StateTime: b.stateTime, CreatedAt: b.created,
	}
	if b.drone.connected {
		v.Controller = b.drone.controller
		if c, ok := l.controllers[v.Controller]; ok {
			v.PeerURL = c.peerURL
		}
	}
	return v
}

// History implements port.Store.
func (l *Ledger) History(id string, after backend.Status) ([]port.HistoryEntry, error) {
	b, err := l.backend(id)
	if err != nil {
		return nil, err
	}
	first := slices.IndexFunc(b.history, func(e port.HistoryEntry) bool { return e.State.Status > after })
	if first < 0 {
		return nil, nil
	}
	return slices.Clone(b.history[first:]), nil
}

// Backends implements port.Store.
func (l *Ledger) Backends(q port.BackendQuery) []port.Backend {
	c, ok := l.clusters[q.Cluster]
	if !ok {
		return nil
	}
	names := l.names(c)
	first, found := slices.BinarySearch(names, q.After)
	if found {
		first++
	}
	var page []port.Backend
	for _, id := range names[first:] {
		if len(page) >= q.Limit {
			break
		}
		if b := l.backends[id]; b.passes(q) {
			page = append(page, l.view(b))
		}
	}
	return page
}

func (b *backendRow) passes(q port.BackendQuery) bool {
	return (!q.Live || !b.terminated()) &&
		(len(q.Statuses) == 0 || slices.Contains(q.Statuses, b.state.Status)) &&
		(q.Drone == "" || q.Drone == b.drone.name) &&
		(q.Key == "" || q.Key == b.key.Name) &&
		(q.Namespace == nil || *q.Namespace == b.key.Namespace)
}

// ClusterState implements port.Store.
func (l *Ledger) ClusterState(now time.Time, clusterName string) protocol.ClusterState {
	s := protocol.ClusterState{Drones: []protocol.DroneState{}, Proxies: []protocol.NodeState{}}
	c, ok := l.clusters[clusterName]
	if !ok {
		return s
	}
	for _, d := range l.present(now, c.droneOrder) {
		s.Drones = append(s.Drones, protocol.DroneState{
			Ready:            d.connected && !d.localTime.IsZero() && now.Sub(d.seen) <= fresh,
			Draining:         d.draining,
			LastHeartbeatAge: age(now, d.seen),
			BackendCount:     int64(d.live.Len()),
			Capacity:         protocol.Capacity(d.capacity),
			Promised:         protocol.Resources(d.promised),
			Node:             l.nodeState(now, d, protocol.NodeName{Drone: d.name}),
		})
	}
	for _, p := range l.present(now, c.proxyOrder) {
		s.Proxies = append(s.Proxies, l.nodeState(now, p, protocol.NodeName{Proxy: p.name}))
	}
	return s
}

// present returns the nodes that are there, in order of name: who was heard
// from lately, and who is connected to a controller that was.
func (l *Ledger) present(now time.Time, nodes []*node) []*node {
	var there []*node
	for _, n := range nodes {
		c, known := l.controllers[n.controller]
		if now.Sub(n.seen) <= lately || n.connected && known && now.Sub(c.seen) <= lately {
			there = append(there, n)
		}
	}
	slices.SortFunc(there, func(a, b *node) int { return strings.Compare(a.name, b.name) })
	return there
}

// nodeState shows a node. Of a controller that has not given a sign of life yet
// the node's own is shown.
func (l *Ledger) nodeState(now time.Time, n *node, name protocol.NodeName) protocol.NodeState {
	seen := n.seen
	if c, ok := l.controllers[n.controller]; ok {
		seen = c.seen
	}
	return protocol.NodeState{
		Name: name, PlaneVersion: n.version.Version, PlaneHash: n.version.GitHash,
		Controller: n.controller, ControllerHeartbeatAge: age(now, seen),
	}
}

func age(now, then time.Time) int64 { return int64(max(now.Sub(then), 0) / time.Second) }
