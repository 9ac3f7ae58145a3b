// Package kernel runs a simulated cluster on one thread in virtual time, so
// that a seed replays to the byte.
//
// Every task is a coroutine that runs until it parks inside a port; then the
// kernel draws the next of those that are ready, and when none is, moves time to
// the next timer. Everything that could differ from run to run is drawn from the
// seed: the choice among ready tasks, the order of timers at one instant, the
// random numbers of nodes. Timers and switches go into the trace hash.
//
// A node that crashes takes its tasks with it: each unwinds, deferred calls
// included, and a port called on the way ends that deferred call too, so that it
// touches nothing more. A task that panics, or blocks outside a port (a mutex
// held over a port call), fails the run with the task's name and stack.
//
// Nothing here may be used from another goroutine than the one that calls Run.
package kernel

import (
	"context"
	"fmt"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"plane/sim/world"
)

// Kernel owns virtual time and decides which task runs next. It implements
// world.World.
type Kernel struct {
	Trace world.Trace

	seed    uint64
	now     time.Duration // since world.Epoch
	timers  timers
	ready   []*task
	current *task
	dying   []*Node
	choice  *world.Rand
	streams map[string]*world.Rand
	root    *scope
	foreign foreigners
	idle    []*worker
	nodes   []*Node // that have not crashed
	tasks   uint64
	live    int

	events   int
	switches int
	failure  error
	beat     atomic.Uint64 // counts switches, for the watchdog; odd while a task runs
	running  atomic.Pointer[string]
	hang     hangWatch
}

// New makes a kernel whose every choice follows from the seed.
func New(seed uint64) *Kernel {
	k := &Kernel{seed: seed, streams: map[string]*world.Rand{}}
	k.choice = world.NewStream(seed, "kernel")
	k.root = k.newScope(context.Background(), nil)
	k.hang = hangWatch{after: DefaultHang, report: panicWithStacks}
	return k
}

// Lock implements sync.Locker; only one task runs at a time anyway.
func (k *Kernel) Lock() {}

// Unlock implements sync.Locker.
func (k *Kernel) Unlock() {}

// Now implements world.World.
func (k *Kernel) Now() time.Time { return world.Epoch.Add(k.now) }

// Elapsed is the true time since the run began.
func (k *Kernel) Elapsed() time.Duration { return k.now }

// Events is how many timers have fired; Switches how often a task was resumed.
func (k *Kernel) Events() int { return k.events }

// Switches is how often a task was resumed.
func (k *Kernel) Switches() int { return k.switches }

// Live is how many tasks have not ended.
func (k *Kernel) Live() int { return k.live }

// Stream implements world.World.
func (k *Kernel) Stream(purpose string) *world.Rand {
	r, ok := k.streams[purpose]
	if !ok {
		r = world.NewStream(k.seed, purpose)
		k.streams[purpose] = r
	}
	return r
}

// Tell implements world.World.
func (k *Kernel) Tell(who, format string, args ...any) { k.Trace.Tell(k.now, who, format, args...) }

// Mix implements world.World.
func (k *Kernel) Mix(numbers ...uint64) { k.Trace.Mix(numbers...) }

// After implements world.World.
func (k *Kernel) After(d time.Duration, fn func()) world.Timer {
	return k.at(k.now+max(d, 0), fn)
}

func (k *Kernel) at(at time.Duration, fn func()) *timer {
	t := &timer{k: k, at: max(at, k.now), tie: k.choice.Uint64(), fn: fn}
	k.timers.push(t)
	return t
}

// Run drives everything until true time has advanced by d, or nothing is left
// to happen. An error is a defect of the code under simulation: a panic in a
// task.
func (k *Kernel) Run(d time.Duration) error {
	end := k.now + d
	stop := k.hang.start(k)
	defer stop()
	for k.failure == nil {
		k.runReady()
		if k.failure != nil || len(k.timers) == 0 || k.timers[0].at > end {
			break
		}
		t := k.timers.pop()
		k.now = t.at
		k.events++
		k.Trace.Mix(uint64(t.at), 1)
		t.fn()
	}
	if k.failure == nil {
		k.now = end
	}
	return k.failure
}

func (k *Kernel) runReady() {
	for k.failure == nil {
		k.unwind()
		k.foreign.wakeEnded(k)
		n := len(k.ready)
		if n == 0 {
			return
		}
		i := 0
		if n > 1 {
			i = k.choice.IntN(n)
		}
		t := k.ready[i]
		k.ready[i] = k.ready[n-1]
		k.ready[n-1] = nil
		k.ready = k.ready[:n-1]
		if !t.ended {
			k.Trace.Mix(t.id, 2)
			k.step(t)
		}
	}
}

// Close ends every task and releases its coroutines. The kernel is of no use
// afterwards.
func (k *Kernel) Close() {
	k.failure = nil
	k.root.end(context.Canceled)
	for _, n := range slices.Clone(k.nodes) {
		n.Crash()
	}
	k.unwind()
	for _, w := range k.idle {
		w.stop()
	}
	k.idle = nil
}

// fail ends the run.
func (k *Kernel) fail(task string, cause any) {
	if k.failure == nil {
		k.failure = fmt.Errorf("task %q panicked: %v\n%s", task, cause, debug.Stack())
	}
}
