// Package port holds the interfaces between Plane's roles and the world, and
// their sentinel errors. Role logic is ordinary blocking Go over these; the
// same code runs on real adapters, in the simulator (one task at a time,
// virtual time, everything drawn from a seed) and in a testing/synctest bubble.
//
// For every method its comment says whether it is atomic, whether it blocks,
// what not-found and already-there return, and whether calling it twice is
// harmless. A method that blocks takes a context and returns the context's
// cause soon after that ends. Errors of the outside that have no sentinel here
// mean "unclear": the call may or may not have had its effect.
package port

import (
	"context"
	"errors"
	"time"
)

// Clock is one machine's clock. It may differ from other clocks by any amount
// and run up to 2 % fast or slow, but it never goes back: not when the wall
// clock is stepped, not when the process restarts, and for a drone (whose clock
// is kept with its journal) not when the machine does.
type Clock interface {
	// Now does not block.
	Now() time.Time
	// Sleep blocks until d has passed. It returns nil then, or the context's
	// cause if that ends first. d ≤ 0 returns at once, but lets other tasks run.
	Sleep(ctx context.Context, d time.Duration) error
	// SleepUntil blocks until the clock shows t, or the context ends.
	SleepUntil(ctx context.Context, t time.Time) error
	// WithDeadline is context.WithDeadline on this clock; does not block.
	WithDeadline(ctx context.Context, t time.Time) (context.Context, context.CancelFunc)
}

// WithTimeout is context.WithTimeout on the clock.
func WithTimeout(ctx context.Context, c Clock, d time.Duration) (context.Context, context.CancelFunc) {
	return c.WithDeadline(ctx, c.Now().Add(d))
}

// Tasks starts concurrent work. No method blocks.
type Tasks interface {
	// Go runs fn as a task of this node. Its context ends when the node stops.
	// The name is for traces.
	Go(name string, fn func(ctx context.Context))
	// Group makes a scope for tasks that belong together; see Group.
	Group(ctx context.Context) Group
	// EventCount makes an event count that starts at zero.
	EventCount() EventCount
}

// Group is a set of tasks that end together: the first that returns an error
// ends the context of all. To end a group in good order, return an error that
// its owner knows.
type Group interface {
	// Go runs fn in the group, with a context that is derived from the group's.
	// Does not block.
	Go(name string, fn func(ctx context.Context) error)
	// Wait blocks until every task of the group has returned and gives the
	// first error. Called once. The group's context has ended afterwards.
	Wait() error
}

// EventCount is the one way in which tasks of a process wait for each other: a
// number that grows. Read it, look at the state that it guards, and if there is
// nothing to do, await a greater number. No wake-up is lost.
type EventCount interface {
	// Advance adds one and wakes all who wait. Does not block.
	Advance()
	// Read returns the number. Does not block.
	Read() uint64
	// Await blocks until the number is greater than seen; it returns nil then,
	// or the context's cause.
	Await(ctx context.Context, seen uint64) error
}

// Rand is a source of random numbers that nobody can guess. Does not block.
type Rand interface {
	Uint64() uint64
	// IntN returns a number in [0,n); n must be positive.
	IntN(n int) int
	// Float64 returns a number in [0,1).
	Float64() float64
}

// ErrClosed is what a Conn returns once either side has closed it or the
// network has broken it.
var ErrClosed = errors.New("connection closed")

// Dialer opens message sessions to whichever controller answers.
type Dialer interface {
	// Dial blocks until the session is open. The address, the path and the
	// authorisation belong to the adapter.
	Dial(ctx context.Context) (Conn, error)
}

// Conn is a session of text messages, in order, each whole or not at all. When
// it breaks nothing is known of the messages under way. One task may send while
// another receives; Close may be called from any, and more than once.
type Conn interface {
	// Send blocks until the message is handed to the network, not until it has
	// arrived. An error means that the session is over.
	Send(ctx context.Context, msg []byte) error
	// Recv blocks for the next message. Its slice belongs to the caller. A
	// peer that is silent for too long (the adapter pings) ends the session.
	Recv(ctx context.Context) ([]byte, error)
	// Close ends the session at once, and both methods with ErrClosed. Does not
	// block.
	Close(reason string)
}
