package ledger

import (
	"container/list"
	"fmt"
	"time"

	"plane/system/placement"
	"plane/system/port"
	"plane/system/protocol"
)

// stuck: a connection without a heartbeat for longer gives way to another one
// of the same drone that has them.
const stuck = 3 * port.HeartbeatEvery

// node is a drone or a proxy.
type node struct {
	id         port.NodeID
	name       string
	pool       string
	controller string
	connection string // the one that counts
	version    protocol.Version
	connected  bool
	seen       time.Time // the last sign of life

	// Of a drone:
	beat      time.Time // the last heartbeat on the connection, or its registration
	localTime time.Time // what its clock showed on this connection; zero: not told yet
	draining  bool
	capacity  placement.Capacity
	promised  placement.Resources // to live
	live      list.List           // of *backendRow, those not terminated
	pending   list.List           // of protocol.Action, those not acknowledged
	inPending map[string]*list.Element

	// Of a proxy:
	round int64     // how many complete lists of what it uses it has given
	word  time.Time // when it gave the latest one; zero: never
}

// wordLate is how old a proxy's complete list may be, which it gives every
// HeartbeatEvery, before it counts as out of touch.
const wordLate = port.HeartbeatEvery + 4*time.Second

// outOfTouch reports whether a proxy that is not gone may use a backend, which
// is idle from since on, without having been able to tell: it is cut off, has
// just come back, what it says waits for a slow store, or it has given no
// complete list since.
func (n *node) outOfTouch(now, since time.Time, gone time.Duration) bool {
	return now.Sub(n.seen) < gone && (now.Sub(n.word) > wordLate || n.word.Before(since))
}

// RegisterNode implements port.Store.
func (l *Ledger) RegisterNode(now time.Time, r port.NodeRegistration) port.NodeID {
	n := l.findOrAddNode(r)
	if n.connection != r.Connection {
		n.localTime = time.Time{}
	}
	n.seen, n.beat = now, now
	n.connected, n.connection = true, r.Connection
	n.pool, n.controller, n.version, n.capacity = r.Pool, r.Controller, r.Version, r.Capacity
	return n.id
}

func (l *Ledger) findOrAddNode(r port.NodeRegistration) *node {
	c := l.cluster(r.Cluster)
	byName, order := c.drones, &c.droneOrder
	if r.Kind == port.ProxyNode {
		byName, order = c.proxies, &c.proxyOrder
	}
	n, ok := byName[r.Name]
	if !ok {
		n = &node{id: port.NodeID(len(l.nodes) + 1), name: r.Name, inPending: map[string]*list.Element{}}
		l.nodes = append(l.nodes, n)
		byName[r.Name] = n
		*order = append(*order, n)
	}
	return n
}

// DisconnectNode implements port.Store.
func (l *Ledger) DisconnectNode(id port.NodeID, connection string) {
	if n, ok := l.node(id); ok && n.connection == connection {
		n.connected = false
	}
}

// Heartbeats implements port.Store.
func (l *Ledger) Heartbeats(now time.Time, beats []port.DroneHeartbeat) {
	for _, b := range beats {
		n, ok := l.node(b.Drone)
		if !ok {
			continue
		}
		n.seen = now
		if b.Connection != n.connection {
			if n.connected && now.Sub(n.beat) <= stuck {
				continue
			}
			// What was registered last is over, and this is not: the order in
			// which two controllers registered the drone was not that in which it
			// connected to them.
			n.connection, n.connected, n.localTime = b.Connection, true, time.Time{}
		}
		n.beat = now
		if b.LocalTime.After(n.localTime) {
			n.localTime = b.LocalTime
		}
	}
}

// ControllerHeartbeat implements port.Store.
func (l *Ledger) ControllerHeartbeat(now time.Time, c port.ControllerInfo) {
	l.controllers[c.Name] = &controller{seen: now, version: c.Version, peerURL: c.PeerURL}
}

// Drain implements port.Store.
func (l *Ledger) Drain(clusterName, drone string) (bool, error) {
	c, ok := l.clusters[clusterName]
	if !ok {
		return false, fmt.Errorf("cluster %q: %w", clusterName, port.ErrNotFound)
	}
	d, ok := c.drones[drone]
	if !ok {
		return false, fmt.Errorf("drone %q in cluster %q: %w", drone, clusterName, port.ErrNotFound)
	}
	if d.draining {
		return false, nil
	}
	d.draining = true
	return true, nil
}
