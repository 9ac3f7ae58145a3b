package fake

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"plane/sim/world"
	"plane/system/port"
)

// Network carries message sessions between machines. A session belongs to one
// incarnation at each end. It can be slow, stall and be cut, both ways or one;
// a connection can break so that one end learns of it much later than the
// other, and what was under way may or may not arrive.
type Network struct {
	env   *Env
	rnd   *world.Rand
	hosts map[string]*host
	cuts  map[path]int
	links []*link
}

type host struct {
	node    world.Node
	machine string
	serve   Handler
}

// Handler serves one session, in a task of the listening node.
type Handler func(ctx context.Context, path string, conn port.Conn)

type path struct{ from, to string }

// Silence is how long a peer may say nothing before an adapter's pings end the
// session: at least and at most.
const (
	SilenceLeast = 15 * time.Second
	SilenceMost  = 45 * time.Second
)

// window is how many messages may be under way in one direction.
const window = 256

// NewNetwork makes a network without hosts.
func NewNetwork(env *Env) *Network {
	return &Network{env: env, rnd: env.Stream("network"), hosts: map[string]*host{}, cuts: map[path]int{}}
}

// Listen lets the node take sessions at an address until it crashes. Needs the
// lock.
func (n *Network) Listen(address string, node world.Node, machine string, serve Handler) {
	n.hosts[address] = &host{node, machine, serve}
}

// Cut stops messages from one machine to another until Heal; cuts add up. Needs
// the lock.
func (n *Network) Cut(from, to string) {
	n.cuts[path{from, to}]++
	for _, l := range n.links {
		if l.between(from, to) {
			l.quieten(n)
		}
	}
}

// Heal takes one cut back. Needs the lock.
func (n *Network) Heal(from, to string) {
	p := path{from, to}
	if n.cuts[p]--; n.cuts[p] > 0 {
		return
	}
	delete(n.cuts, p)
	for _, l := range slices.Clone(n.links) {
		if l.between(from, to) && !n.blocked(l.ends[0], l.ends[1]) && !n.blocked(l.ends[1], l.ends[0]) {
			l.epoch++
		}
		for _, e := range l.ends {
			e.pump()
		}
	}
}

// Connected reports whether messages pass between two machines, both ways.
// Needs the lock.
func (n *Network) Connected(a, b string) bool {
	return n.cuts[path{a, b}] == 0 && n.cuts[path{b, a}] == 0
}

// HealAll takes all cuts back. Needs the lock.
func (n *Network) HealAll() {
	for _, p := range slices.SortedFunc(maps.Keys(n.cuts), func(a, b path) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to))
	}) {
		n.cuts[p] = 1
		n.Heal(p.from, p.to)
	}
}

// Sound reports whether the node has a session, dialled to one of the
// addresses, that is open at both ends and lets messages through without delay.
// Needs the lock.
func (n *Network) Sound(node world.Node) bool {
	for _, l := range n.links {
		a, b := l.ends[0], l.ends[1]
		if a.node == node && !a.closed && !b.closed && b.node.Alive() && !n.blocked(a, b) && !n.blocked(b, a) {
			return true
		}
	}
	return false
}

// Gone ends the sessions of a crashed node. When its machine has died too,
// nobody tells its peers. Needs the lock.
func (n *Network) Gone(node world.Node, machineDied bool) {
	for _, l := range slices.Clone(n.links) {
		for _, e := range l.ends {
			if e.node == node {
				e.shut(!machineDied)
			}
		}
	}
}

// BreakOne breaks a connection somewhere: one end learns of it at once, the
// other sooner or later. Needs the lock.
func (n *Network) BreakOne() {
	if len(n.links) == 0 {
		return
	}
	l := n.links[n.rnd.IntN(len(n.links))]
	e := l.ends[n.rnd.IntN(2)]
	n.env.Tell("network", "connection %s breaks at %s", l, e.node.Name())
	e.flight = e.flight[:n.rnd.IntN(len(e.flight)+1)]
	e.peer.flight = nil
	e.shut(!n.rnd.Chance(0.7))
	// Word of an end may be among what is lost. Silence tells it all the same.
	for _, each := range l.ends {
		n.env.After(n.rnd.Between(SilenceLeast, SilenceMost), func() { each.shut(false) })
	}
}

// Dialer opens sessions from a node to one of the addresses, chosen at random
// as a load balancer would.
func (n *Network) Dialer(node world.Node, machine, path string, addresses []string) port.Dialer {
	return dialer{n, node, machine, path, addresses}
}

type dialer struct {
	net       *Network
	node      world.Node
	machine   string
	path      string
	addresses []string
}

// Dial implements port.Dialer.
func (d dialer) Dial(ctx context.Context) (port.Conn, error) {
	d.net.env.Lock()
	address := d.addresses[d.net.rnd.IntN(len(d.addresses))]
	if answering := d.net.answering(d.addresses); len(answering) > 0 && d.net.rnd.Chance(0.8) {
		address = answering[d.net.rnd.IntN(len(answering))]
	}
	d.net.env.Unlock()
	return d.net.Dial(ctx, d.node, d.machine, address, d.path)
}

// answering is those of the addresses where a node lives: what a load balancer
// knows, mostly.
func (n *Network) answering(addresses []string) []string {
	var live []string
	for _, a := range addresses {
		if h := n.hosts[a]; h != nil && h.node.Alive() {
			live = append(live, a)
		}
	}
	return live
}

// Dial opens a session to an address.
func (n *Network) Dial(ctx context.Context, node world.Node, machine, address, urlPath string) (port.Conn, error) {
	for {
		n.env.Lock()
		h := n.hosts[address]
		cut := h == nil || !n.Connected(machine, h.machine)
		there, back := n.delay(), n.delay()
		n.env.Unlock()
		if !cut {
			return n.open(ctx, node, machine, address, urlPath, there, back)
		}
		if err := node.Sleep(ctx, time.Second); err != nil {
			return nil, fmt.Errorf("connect to %s: %w", address, err)
		}
	}
}

func (n *Network) open(ctx context.Context, node world.Node, machine, address, urlPath string, there, back time.Duration) (port.Conn, error) {
	var opened *end
	conn, err := ask(ctx, n.env, node, there, back, func() (*end, error) {
		h := n.hosts[address]
		if !h.node.Alive() || !node.Alive() || !n.Connected(machine, h.machine) {
			return nil, fmt.Errorf("connect to %s: refused", address)
		}
		l := &link{name: node.Name() + " to " + address + urlPath}
		opened = &end{net: n, link: l, node: node, machine: machine, arrived: node.Tasks().EventCount(), room: node.Tasks().EventCount()}
		other := &end{net: n, link: l, node: h.node, machine: h.machine, arrived: h.node.Tasks().EventCount(), room: h.node.Tasks().EventCount()}
		opened.peer, other.peer = other, opened
		l.ends = [2]*end{opened, other}
		n.links = append(n.links, l)
		h.node.Tasks().Go("serve "+urlPath, func(ctx context.Context) { h.serve(ctx, urlPath, other) })
		return opened, nil
	})
	if err != nil {
		n.env.Lock()
		defer n.env.Unlock()
		if opened != nil {
			opened.shut(true)
		}
		return nil, err
	}
	return conn, nil
}

func (n *Network) delay() time.Duration {
	w := n.env.Weather
	if n.rnd.Chance(w.Slow) {
		return n.rnd.Between(time.Millisecond, w.SlowBy)
	}
	return n.rnd.Soon(200*time.Microsecond, 20*time.Millisecond)
}

func (n *Network) blocked(from, to *end) bool { return n.cuts[path{from.machine, to.machine}] > 0 }

// link is one connection.
type link struct {
	name  string
	ends  [2]*end
	epoch int // counts times of trouble that are over
}

func (l *link) String() string { return l.name }

func (l *link) between(a, b string) bool {
	x, y := l.ends[0].machine, l.ends[1].machine
	return x == a && y == b || x == b && y == a
}

// quieten ends the session at each end that hears nothing for too long.
func (l *link) quieten(n *Network) {
	epoch := l.epoch
	for _, e := range l.ends {
		n.env.After(n.rnd.Between(SilenceLeast, SilenceMost), func() {
			if l.epoch == epoch && (n.blocked(e, e.peer) || n.blocked(e.peer, e)) {
				e.shut(true)
			}
		})
	}
}

// end is one side of a connection; it implements port.Conn.
type end struct {
	net     *Network
	link    *link
	node    world.Node
	machine string
	peer    *end
	inbox   [][]byte // nil: the peer has closed
	arrived port.EventCount
	flight  []message // sent by this side, on the way
	room    port.EventCount
	pumping world.Timer
	pumpAt  time.Time
	closed  bool
}

type message struct {
	at    time.Time
	frame []byte // nil: the end
}

// Send implements port.Conn.
func (e *end) Send(ctx context.Context, msg []byte) error {
	e.node.Enter()
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		seen := e.room.Read()
		sent, err := e.trySend(msg)
		if sent || err != nil {
			return err
		}
		if err := e.room.Await(ctx, seen); err != nil {
			e.Close("cancelled while sending")
			return err
		}
	}
}

func (e *end) trySend(msg []byte) (bool, error) {
	e.net.env.Lock()
	defer e.net.env.Unlock()
	if e.closed {
		return false, port.ErrClosed
	}
	if len(e.flight) >= window {
		return false, nil
	}
	e.post(append([]byte{}, msg...))
	return true, nil
}

func (e *end) post(frame []byte) {
	at := e.net.env.Now().Add(e.net.delay())
	if n := len(e.flight); n > 0 && at.Before(e.flight[n-1].at) {
		at = e.flight[n-1].at
	}
	e.flight = append(e.flight, message{at, frame})
	e.pump()
}

// pump delivers what is due, in order, as long as the path is open.
func (e *end) pump() {
	now := e.net.env.Now()
	for len(e.flight) > 0 && !e.net.blocked(e, e.peer) {
		m := e.flight[0]
		if m.at.After(now) {
			if e.pumping == nil || e.pumpAt.After(m.at) {
				if e.pumping != nil {
					e.pumping.Stop()
				}
				e.pumpAt = m.at
				e.pumping = e.net.env.After(m.at.Sub(now), func() {
					e.pumping = nil
					e.pump()
				})
			}
			return
		}
		e.flight = e.flight[1:]
		e.room.Advance()
		e.peer.receive(m.frame)
	}
}

func (e *end) receive(frame []byte) {
	if e.closed || !e.node.Alive() {
		return
	}
	e.net.env.Mix(checksum(frame))
	e.inbox = append(e.inbox, frame)
	e.arrived.Advance()
}

// checksum is FNV-1a.
func checksum(b []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}

// Recv implements port.Conn.
func (e *end) Recv(ctx context.Context) ([]byte, error) {
	e.node.Enter()
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		seen := e.arrived.Read()
		frame, err := e.take()
		if frame != nil || err != nil {
			return frame, err
		}
		if err := e.arrived.Await(ctx, seen); err != nil {
			return nil, err
		}
	}
}

func (e *end) take() ([]byte, error) {
	e.net.env.Lock()
	defer e.net.env.Unlock()
	if e.closed {
		return nil, port.ErrClosed
	}
	if len(e.inbox) == 0 {
		return nil, nil
	}
	frame := e.inbox[0]
	if frame == nil {
		e.shut(false)
		return nil, port.ErrClosed
	}
	e.inbox = e.inbox[1:]
	return frame, nil
}

// Close implements port.Conn.
func (e *end) Close(string) {
	e.node.Enter()
	e.net.env.Lock()
	defer e.net.env.Unlock()
	e.shut(true)
}

// shut ends this side. The other side learns of it after what is under way,
// or, when it is not told, by silence.
func (e *end) shut(tell bool) {
	if e.closed {
		return
	}
	e.closed = true
	e.inbox = nil
	e.arrived.Advance()
	e.room.Advance()
	if e.peer.closed {
		e.net.links = slices.DeleteFunc(e.net.links, func(l *link) bool { return l == e.link })
		return
	}
	if tell && !e.net.rnd.Chance(e.net.env.Weather.Unnoticed) {
		e.post(nil)
		return
	}
	e.net.env.After(e.net.rnd.Between(0, SilenceMost), func() { e.peer.shut(false) })
}
