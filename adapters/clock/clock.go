// Package clock puts the Clock, Tasks and Rand ports on Go's own time,
// goroutines and random numbers. It serves production, and the bubble too: in a
// testing/synctest bubble Go's time is virtual.
//
// Everything here may be used from any goroutine.
package clock

import (
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"time"

	"plane/system/port"
)

// Monotonic is a clock that steps of the wall clock do not move: it shows the
// wall clock's time at its making plus what Go's monotonic clock has counted
// since.
type Monotonic struct{ start time.Time }

// New makes a clock that shows the present time.
func New() *Monotonic { return &Monotonic{start: time.Now()} }

// Now implements port.Clock.
func (c *Monotonic) Now() time.Time { return c.start.Add(time.Since(c.start)).Round(0) }

// Sleep implements port.Clock.
func (c *Monotonic) Sleep(ctx context.Context, d time.Duration) error { return Sleep(ctx, d) }

// SleepUntil implements port.Clock.
func (c *Monotonic) SleepUntil(ctx context.Context, t time.Time) error {
	return Sleep(ctx, t.Sub(c.Now()))
}

// WithDeadline implements port.Clock.
func (c *Monotonic) WithDeadline(ctx context.Context, t time.Time) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, t.Sub(c.Now()))
}

// Wall is the machine's time of day.
type Wall struct{}

// Wall implements port.WallClock.
func (Wall) Wall() time.Time { return time.Now().Round(0) }

// Sleep blocks for d of Go's monotonic clock, or until the context ends.
func Sleep(ctx context.Context, d time.Duration) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Tasks runs tasks as goroutines until Stop.
type Tasks struct {
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// NewTasks makes tasks that end with ctx.
func NewTasks(ctx context.Context) *Tasks {
	t := &Tasks{}
	t.ctx, t.cancel = context.WithCancel(ctx)
	return t
}

// Go implements port.Tasks.
func (t *Tasks) Go(_ string, fn func(ctx context.Context)) {
	t.running.Go(func() { fn(t.ctx) })
}

// Stop ends the context of all tasks and waits for them.
func (t *Tasks) Stop() {
	t.cancel()
	t.running.Wait()
}

// Group implements port.Tasks.
func (t *Tasks) Group(ctx context.Context) port.Group {
	g := &group{}
	g.ctx, g.cancel = context.WithCancelCause(ctx)
	return g
}

// EventCount implements port.Tasks.
func (t *Tasks) EventCount() port.EventCount { return &eventCount{changed: make(chan struct{})} }

type group struct {
	ctx     context.Context
	cancel  context.CancelCauseFunc
	running sync.WaitGroup
	once    sync.Once
	err     error
}

func (g *group) Go(_ string, fn func(ctx context.Context) error) {
	g.running.Go(func() {
		if err := fn(g.ctx); err != nil {
			g.once.Do(func() {
				g.err = err
				g.cancel(err)
			})
		}
	})
}

func (g *group) Wait() error {
	g.running.Wait()
	g.cancel(g.err)
	return g.err
}

type eventCount struct {
	mu      sync.Mutex
	n       uint64
	changed chan struct{}
}

func (e *eventCount) Advance() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.n++
	close(e.changed)
	e.changed = make(chan struct{})
}

func (e *eventCount) Read() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.n
}

func (e *eventCount) Await(ctx context.Context, seen uint64) error {
	for {
		e.mu.Lock()
		n, changed := e.n, e.changed
		e.mu.Unlock()
		if n > seen {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Rand draws from the operating system's random numbers.
type Rand struct{}

// Uint64 implements port.Rand.
func (Rand) Uint64() uint64 {
	var b [8]byte
	crand.Read(b[:]) //nolint:errcheck // never fails since Go 1.24
	return binary.LittleEndian.Uint64(b[:])
}

// IntN implements port.Rand.
func (r Rand) IntN(n int) int { return rand.New(r).IntN(n) } //nolint:gosec // the source is crypto/rand

// Float64 implements port.Rand.
func (r Rand) Float64() float64 { return rand.New(r).Float64() } //nolint:gosec // the source is crypto/rand
