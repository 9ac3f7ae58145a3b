// Package world is what a simulated cluster stands on, whichever engine turns
// it: the cooperative kernel (sim/kernel), where one task runs at a time and a
// seed replays to the byte, or a testing/synctest bubble (sim/bubble), where
// tasks are goroutines and the race detector watches. The fakes and the cluster
// are written once, over World and Node.
//
// A World has one lock. Callbacks of After run with it held; a fake takes it
// around what it does to shared state and never blocks meanwhile. In the kernel
// it is a no-op. Streams and Tell need it held.
package world

import (
	"context"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"

	"plane/system/port"
)

// Epoch is the true time at which every run begins. No node's clock shows it.
var Epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// World is true time, randomness and nodes.
type World interface {
	sync.Locker

	// Now is the true time, which no node knows.
	Now() time.Time
	// After calls fn, with the lock held, once d of true time has passed, unless
	// it is stopped before. fn must not block.
	After(d time.Duration, fn func()) Timer
	// Start begins an incarnation of a node.
	Start(name string, incarnation int, c Clockwork) Node
	// Stream is the random stream of one purpose, drawn from the seed. The same
	// purpose gives the same stream again.
	Stream(purpose string) *Rand
	// Tell adds an event to the trace, and to the story when there is one.
	Tell(who, format string, args ...any)
	// Mix adds numbers to the trace that the story does not tell.
	Mix(numbers ...uint64)
}

// Timer is a pending callback.
type Timer interface {
	// Stop keeps the callback from being called. It needs the lock; harmless
	// when the callback has been called already.
	Stop()
}

// Node is one incarnation of a process: from its start to its crash.
type Node interface {
	Name() string
	Incarnation() int
	Clock() port.Clock
	Tasks() port.Tasks
	Random() port.Rand
	// Sleep blocks the calling task for true time, whatever the node's clock.
	Sleep(ctx context.Context, d time.Duration) error
	// Enter must be the first thing that a port of this node does: when the node
	// has crashed it does not return, but unwinds the calling task.
	Enter()
	// Alive reports whether the node has not crashed. Needs the lock.
	Alive() bool
	// Crash ends the node: its tasks unwind at their next port call and touch
	// nothing more. Needs the lock; harmless twice.
	Crash()
}

// Rand is a random stream.
type Rand struct{ *rand.Rand }

// NewStream makes the stream of a purpose.
func NewStream(seed uint64, purpose string) *Rand {
	h := fnv.New64a()
	h.Write([]byte(purpose))
	return &Rand{rand.New(rand.NewPCG(seed, h.Sum64()))} //nolint:gosec // it must be repeatable
}

// Chance is true with probability p.
func (r *Rand) Chance(p float64) bool { return p > 0 && r.Float64() < p }

// Between returns a duration in [lo,hi].
func (r *Rand) Between(lo, hi time.Duration) time.Duration {
	if hi <= lo {
		return lo
	}
	return lo + time.Duration(r.Int64N(int64(hi-lo)+1))
}

// Soon returns a duration in [lo,hi] that is mostly near lo.
func (r *Rand) Soon(lo, hi time.Duration) time.Duration {
	f := r.Float64()
	return lo + time.Duration(f*f*f*float64(hi-lo))
}

// Clockwork is how a machine's clock differs from true time.
type Clockwork struct {
	Offset time.Duration // at Epoch
	PPM    int64         // how much faster it runs, in millionths
}

// Local is what the clock shows at a true time. It never goes back as that
// goes on.
func (c Clockwork) Local(truth time.Time) time.Time {
	e := int64(truth.Sub(Epoch))
	return Epoch.Add(c.Offset + time.Duration(e+e/1e6*c.PPM+e%1e6*c.PPM/1e6))
}

// True is the first true time at which the clock shows at least local.
func (c Clockwork) True(local time.Time) time.Time {
	d := local.Sub(Epoch) - c.Offset
	truth := Epoch.Add(time.Duration(float64(d) * 1e6 / float64(1e6+c.PPM)))
	for c.Local(truth).Before(local) {
		truth = truth.Add(1)
	}
	for !c.Local(truth.Add(-1)).Before(local) {
		truth = truth.Add(-1)
	}
	return truth
}

// Span is how much true time passes while the clock counts d.
func (c Clockwork) Span(d time.Duration) time.Duration {
	return time.Duration(float64(d) * 1e6 / float64(1e6+c.PPM))
}
