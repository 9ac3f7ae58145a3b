// Package bubble runs a simulated cluster on real goroutines in a
// testing/synctest bubble, in virtual time. It does not replay: what it is for
// is the race detector, which sees nothing in the cooperative kernel, and the
// adapters/clock that production runs on.
//
// A crashed node's goroutines leave by runtime.Goexit at their next port call;
// their contexts have ended, so that those which block return.
package bubble

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"plane/adapters/clock"
	"plane/sim/world"
	"plane/system/port"
)

// World implements world.World. Make it inside the bubble.
type World struct {
	sync.Mutex
	Trace world.Trace

	seed    uint64
	start   time.Time
	streams map[string]*world.Rand
	nodes   []*Node
	timers  map[*timer]bool
}

// New makes a world whose faults are drawn from the seed.
func New(seed uint64) *World {
	return &World{seed: seed, start: time.Now(), streams: map[string]*world.Rand{}, timers: map[*timer]bool{}}
}

// Now implements world.World.
func (w *World) Now() time.Time { return world.Epoch.Add(time.Since(w.start)) }

// Stream implements world.World.
func (w *World) Stream(purpose string) *world.Rand {
	r, ok := w.streams[purpose]
	if !ok {
		r = world.NewStream(w.seed, purpose)
		w.streams[purpose] = r
	}
	return r
}

// Tell implements world.World.
func (w *World) Tell(who, format string, args ...any) {
	w.Trace.Tell(time.Since(w.start), who, format, args...)
}

// Mix implements world.World.
func (w *World) Mix(numbers ...uint64) { w.Trace.Mix(numbers...) }

type timer struct {
	w       *World
	t       *time.Timer
	stopped bool
}

// After implements world.World.
func (w *World) After(d time.Duration, fn func()) world.Timer {
	t := &timer{w: w}
	w.timers[t] = true
	t.t = time.AfterFunc(d, func() {
		w.Lock()
		defer w.Unlock()
		if t.stopped {
			return
		}
		delete(w.timers, t)
		fn()
	})
	return t
}

// Stop implements world.Timer.
func (t *timer) Stop() {
	t.stopped = true
	t.t.Stop()
	delete(t.w.timers, t)
}

// Run lets d of virtual time pass.
func (w *World) Run(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // the time of the bubble
}

// Close crashes every node and waits for all goroutines.
func (w *World) Close() {
	w.Lock()
	for t := range w.timers {
		t.stopped = true
		t.t.Stop()
	}
	nodes := w.nodes
	for _, n := range nodes {
		n.Crash()
	}
	w.Unlock()
	for _, n := range nodes {
		n.tasks.Stop()
	}
}

// Node implements world.Node.
type Node struct {
	w           *World
	name        string
	incarnation int
	clockwork   world.Clockwork
	ctx         context.Context
	cancel      context.CancelFunc
	tasks       *clock.Tasks
	crashed     atomic.Bool
}

// Start implements world.World.
func (w *World) Start(name string, incarnation int, c world.Clockwork) world.Node {
	n := &Node{w: w, name: name, incarnation: incarnation, clockwork: c}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.tasks = clock.NewTasks(n.ctx)
	w.nodes = append(w.nodes, n)
	return n
}

// Name implements world.Node.
func (n *Node) Name() string { return n.name }

// Incarnation implements world.Node.
func (n *Node) Incarnation() int { return n.incarnation }

// Clock implements world.Node.
func (n *Node) Clock() port.Clock { return nodeClock{n} }

// Tasks implements world.Node.
func (n *Node) Tasks() port.Tasks { return n.tasks }

// Random implements world.Node.
func (n *Node) Random() port.Rand { return clock.Rand{} }

// Sleep implements world.Node.
func (n *Node) Sleep(ctx context.Context, d time.Duration) error {
	n.Enter()
	err := clock.Sleep(ctx, d)
	n.Enter()
	return err
}

// Enter implements world.Node.
func (n *Node) Enter() {
	if n.crashed.Load() {
		runtime.Goexit()
	}
}

// Alive implements world.Node.
func (n *Node) Alive() bool { return !n.crashed.Load() }

// Crash implements world.Node.
func (n *Node) Crash() {
	n.crashed.Store(true)
	n.cancel()
}

type nodeClock struct{ n *Node }

func (c nodeClock) Now() time.Time { return c.n.clockwork.Local(c.n.w.Now()) }

func (c nodeClock) Sleep(ctx context.Context, d time.Duration) error {
	return c.n.Sleep(ctx, c.n.clockwork.Span(d))
}

func (c nodeClock) SleepUntil(ctx context.Context, t time.Time) error {
	return c.n.Sleep(ctx, c.n.clockwork.True(t).Sub(c.n.w.Now()))
}

func (c nodeClock) WithDeadline(ctx context.Context, t time.Time) (context.Context, context.CancelFunc) {
	inner, cancel := context.WithTimeout(ctx, c.n.clockwork.True(t).Sub(c.n.w.Now()))
	if d, ok := ctx.Deadline(); ok && d.Before(t) {
		t = d
	}
	return localDeadline{inner, t}, cancel
}

// localDeadline shows a deadline on the node's clock.
type localDeadline struct {
	context.Context
	at time.Time
}

func (d localDeadline) Deadline() (time.Time, bool) { return d.at, true }
