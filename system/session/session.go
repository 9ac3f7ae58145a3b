// Package session runs message sessions over a port.Conn, as every role needs
// them: one reader task, one writer task, an outbox between them and the rest,
// and for the side that dials, a loop that keeps one session going.
//
// The reader never waits for the writer: messages go out through an Outbox,
// which takes them without blocking. A peer that reads too slowly costs memory
// up to MaxQueued messages; past that the session ends with ErrSlowPeer, and
// since every message that matters is repeated after a reconnect, nothing is
// lost. An Outbox may be used from any task.
package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"plane/system/port"
	"plane/system/queue"
)

// MaxQueued is how many messages may wait for a slow peer.
const MaxQueued = 100_000

// SendTimeout is how long one message may take to be handed to the network.
const SendTimeout = 20 * time.Second

// HandshakeTimeout is how long the first message of a peer may take.
const HandshakeTimeout = 10 * time.Second

// ErrSlowPeer ends a session whose peer does not read.
var ErrSlowPeer = errors.New("peer does not read its messages")

// Outbox holds the messages that wait to be sent in one session.
type Outbox struct {
	frames  queue.Queue[[]byte]
	arrived port.EventCount
}

// NewOutbox makes an empty outbox.
func NewOutbox(tasks port.Tasks) *Outbox { return &Outbox{arrived: tasks.EventCount()} }

// Put queues a message. It never blocks; after the session's end it has no
// effect that anybody sees.
func (o *Outbox) Put(frame []byte) {
	o.frames.Put(frame)
	o.arrived.Advance()
}

// Run sends what is put into the outbox and calls receive, from one task, for
// each message that comes. It blocks until the session is over, closes the Conn
// and says why it ended: an error of the Conn, of receive, or the context's
// cause.
func Run(ctx context.Context, clock port.Clock, tasks port.Tasks, conn port.Conn, out *Outbox, receive func(ctx context.Context, frame []byte) error) error {
	defer conn.Close("session over")
	g := tasks.Group(ctx)
	g.Go("session reader", func(ctx context.Context) error {
		for {
			frame, err := conn.Recv(ctx)
			if err != nil {
				return fmt.Errorf("receive: %w", err)
			}
			if err := receive(ctx, frame); err != nil {
				return err
			}
		}
	})
	g.Go("session writer", func(ctx context.Context) error { return write(ctx, clock, conn, out) })
	return g.Wait()
}

func write(ctx context.Context, clock port.Clock, conn port.Conn, out *Outbox) error {
	for {
		seen := out.arrived.Read()
		if out.frames.Len() > MaxQueued {
			return ErrSlowPeer
		}
		frames := out.frames.TakeAll()
		for _, frame := range frames {
			if out.frames.Len() > MaxQueued {
				return ErrSlowPeer
			}
			if err := Send(ctx, clock, conn, frame); err != nil {
				return err
			}
		}
		if len(frames) > 0 {
			continue
		}
		if err := out.arrived.Await(ctx, seen); err != nil {
			return err
		}
	}
}

// Send hands one message to the network, within SendTimeout.
func Send(ctx context.Context, clock port.Clock, conn port.Conn, frame []byte) error {
	ctx, cancel := port.WithTimeout(ctx, clock, SendTimeout)
	defer cancel()
	if err := conn.Send(ctx, frame); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// First receives the first message of a session, within HandshakeTimeout.
func First(ctx context.Context, clock port.Clock, conn port.Conn) ([]byte, error) {
	ctx, cancel := port.WithTimeout(ctx, clock, HandshakeTimeout)
	defer cancel()
	frame, err := conn.Recv(ctx)
	if err != nil {
		return nil, fmt.Errorf("receive handshake: %w", err)
	}
	return frame, nil
}

// Reconnect is how the dialling side keeps a session going.
type Reconnect struct {
	First, Most time.Duration // the waits after failures
	Growth      float64       // of the wait, each time
	Stay        time.Duration // how long a session lasts before it is moved
	StaySpread  time.Duration // more or less, so that not all move at once
}

// DefaultReconnect waits 1 s, a tenth longer each time, 60 s at most; and moves
// to another controller after an hour, give or take ten minutes, so that load
// evens out.
func DefaultReconnect() Reconnect {
	return Reconnect{First: time.Second, Most: time.Minute, Growth: 1.1, Stay: time.Hour, StaySpread: 10 * time.Minute}
}

// errMove ends a session that has lasted long enough.
var errMove = errors.New("moving on to even out load")

// Keep dials and runs one session after another until the context ends. A
// session that lasted for a while resets the wait.
func Keep(ctx context.Context, r Reconnect, clock port.Clock, tasks port.Tasks, rnd port.Rand, dialer port.Dialer, log *slog.Logger, run func(ctx context.Context, conn port.Conn) error) {
	wait := r.First
	for ctx.Err() == nil {
		began := clock.Now()
		err := once(ctx, r, clock, tasks, rnd, dialer, run)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errMove) {
			log.Info("leaving the controller to even out load")
			wait = r.First
			continue
		}
		if clock.Now().Sub(began) > r.Most {
			wait = r.First
		}
		pause := time.Duration(float64(wait) * (0.5 + rnd.Float64()))
		log.Warn("no session with a controller; trying again", "error", err, "wait", pause.Round(time.Millisecond))
		if clock.Sleep(ctx, pause) != nil {
			return
		}
		wait = min(time.Duration(float64(wait)*r.Growth), r.Most)
	}
}

func once(ctx context.Context, r Reconnect, clock port.Clock, tasks port.Tasks, rnd port.Rand, dialer port.Dialer, run func(ctx context.Context, conn port.Conn) error) error {
	conn, err := dial(ctx, clock, dialer)
	if err != nil {
		return err
	}
	defer conn.Close("session over")
	stay := r.Stay + time.Duration((2*rnd.Float64()-1)*float64(r.StaySpread))
	g := tasks.Group(ctx)
	g.Go("session", func(ctx context.Context) error {
		if err := run(ctx, conn); err != nil {
			return err
		}
		return port.ErrClosed
	})
	g.Go("session age", func(ctx context.Context) error {
		if err := clock.Sleep(ctx, stay); err != nil {
			return err
		}
		return errMove
	})
	return g.Wait()
}

// DialTimeout is how long opening a session may take.
const DialTimeout = 15 * time.Second

func dial(ctx context.Context, clock port.Clock, dialer port.Dialer) (port.Conn, error) {
	ctx, cancel := port.WithTimeout(ctx, clock, DialTimeout)
	defer cancel()
	conn, err := dialer.Dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	return conn, nil
}
