package main

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

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

// renewEvery is how often our drones ask for another term: 18 s before a lease
// says so, which is after 30 s.
const renewEvery = 12 * time.Second

// restingDrone is a drone that asks for a renewal of each backend it is given,
// each at a time of its own, and gives signs of life.
func restingDrone(name string) (*node, func(backends []string)) {
	n := newNode(name)
	given := make(chan []string, 1)
	var backends []string
	var began time.Time
	turn, beat := 0, time.Now()
	n.next = func(ctx context.Context) []byte {
		if len(backends) == 0 {
			select {
			case backends = <-given:
				began = time.Now()
			default:
			}
		}
		due := beat
		if len(backends) > 0 {
			if at := began.Add(time.Duration(turn) * renewEvery / time.Duration(len(backends))); at.Before(due) {
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
		turn++
		n.asked.Add(1)
		return protocol.EncodeFromDrone(protocol.RenewKey{Backend: backends[turn%len(backends)], LocalTime: now})
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
