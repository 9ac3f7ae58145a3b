package main

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"plane/system/lease"
	"plane/system/port"
	"plane/system/protocol"
)

// node is the far end of a session with a controller, as a drone or proxy with
// backends at rest looks from there: it says what it is, and then what is due,
// when it is due. It implements port.Conn.
type node struct {
	greeting []byte
	asked    atomic.Int64 // renewals asked for, or backends said to be in use
	renewed  atomic.Int64
	refused  atomic.Int64

	next   func(ctx context.Context) []byte // blocks until there is something to say; nil when ctx has ended
	greets sync.Once
	closed chan struct{}
	close  sync.Once
}

func newNode(name string) *node {
	return &node{
		greeting: protocol.EncodeHandshake(protocol.Handshake{Version: version, Name: name}),
		closed:   make(chan struct{}),
	}
}

// Recv implements port.Conn.
func (n *node) Recv(ctx context.Context) ([]byte, error) {
	first := false
	n.greets.Do(func() { first = true })
	if first {
		return n.greeting, nil
	}
	if frame := n.next(ctx); frame != nil {
		return frame, nil
	}
	return nil, context.Cause(ctx)
}

// Send implements port.Conn: it notes what the controller answers to renewals.
func (n *node) Send(_ context.Context, frame []byte) error {
	m, err := protocol.DecodeToDrone(frame)
	if answer, ok := m.(protocol.RenewKeyResponse); err == nil && ok {
		if answer.Deadlines == nil {
			n.refused.Add(1)
		} else {
			n.renewed.Add(1)
		}
	}
	return nil
}

// Close implements port.Conn.
func (n *node) Close(string) { n.close.Do(func() { close(n.closed) }) }

// sleepUntil reports whether it was slept through.
func (n *node) sleepUntil(ctx context.Context, t time.Time) bool {
	if d := time.Until(t); d > 0 {
		select {
		case <-ctx.Done():
			return false
		case <-n.closed:
			return false
		case <-time.After(d):
		}
	}
	return ctx.Err() == nil
}

// Our drones ask for another term every renewEvery: 18 s before a lease says so,
// which is after 30 s. They ask in slots, renewSlot apart.
const (
	renewEvery = 12 * time.Second
	renewSlot  = 500 * time.Millisecond
)

// slotOf is in which of the slots of a term the i-th of n backends is asked for.
func slotOf(i, n int) time.Duration {
	return time.Duration(i*int(renewEvery/renewSlot)/n) * renewSlot
}

// restingDrone is a drone that asks for a renewal of each backend it is given,
// once in a term, and gives signs of life. Like ours it asks in slots, which its
// name puts at other times than those of other drones. Ours have in a slot what
// happened to begin within one; here that is the same number in each, so that
// there are as many renewals in any second as backends by the length of a term.
// What a slot has is asked for at once, one after the other: so it reaches the
// store as it does from a drone, in a batch.
func restingDrone(name string) (*node, func(backends []string)) {
	n := newNode(name)
	given := make(chan []string, 1)
	slots := lease.SlotsOf(name, renewSlot)
	var backends []string
	var term time.Time // when the present one began
	turn, beat := 0, time.Now()
	n.next = func(ctx context.Context) []byte {
		if len(backends) == 0 {
			select {
			case backends = <-given:
				term = slots.Last(time.Now())
			default:
			}
		}
		due := beat
		if len(backends) > 0 {
			if at := term.Add(slotOf(turn, len(backends))); at.Before(due) {
				due = at
			}
		}
		if !n.sleepUntil(ctx, due) {
			return nil
		}
		now := protocol.Millis{Time: time.Now()}
		if due.Equal(beat) {
			beat = beat.Add(port.HeartbeatEvery)
			return protocol.EncodeFromDrone(protocol.Heartbeat{LocalTime: now})
		}
		frame := protocol.EncodeFromDrone(protocol.RenewKey{Backend: backends[turn], LocalTime: now})
		n.asked.Add(1)
		if turn++; turn == len(backends) {
			turn, term = 0, term.Add(renewEvery)
		}
		return frame
	}
	return n, func(all []string) { given <- all }
}

// restingProxy is a proxy through which all the backends it is given are used:
// every 7 s it says so of each, and then that this was all.
func restingProxy(name string) (*node, func(backends []string)) {
	n := newNode(name)
	given := make(chan []string, 1)
	var backends []string
	said, due := 0, time.Now()
	n.next = func(ctx context.Context) []byte {
		if said == 0 {
			if !n.sleepUntil(ctx, due) {
				return nil
			}
			due = due.Add(port.HeartbeatEvery)
			select {
			case backends = <-given:
			default:
			}
		}
		if said < len(backends) {
			said++
			n.asked.Add(1)
			return protocol.EncodeFromProxy(protocol.KeepAlive{Backend: backends[said-1]})
		}
		said = 0
		return protocol.EncodeFromProxy(protocol.Heartbeat{LocalTime: protocol.Millis{Time: time.Now()}})
	}
	return n, func(all []string) { given <- all }
}
