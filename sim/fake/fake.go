// Package fake holds the outside world of a simulated cluster: network, store,
// machines with their container engines, disks and lease guards. The fakes are
// adversarial within the faults that Plane must live with (F1 to F6) and within
// what the ports promise, and no further.
//
// They are written over sim/world and run in the kernel and in the bubble. A
// call that goes to another process (store, engine, a peer) takes effect there
// by itself: it may do so after its caller has given up or crashed. What a port
// gives out belongs to one incarnation of one node; a node that has crashed
// touches nothing more.
package fake

import (
	"context"
	"errors"
	"time"

	"plane/sim/fault"
	"plane/sim/world"
)

// Env is what all fakes of a cluster share.
type Env struct {
	world.World
	Weather *fault.Weather // changes while the run goes on; needs the lock
}

// ErrInjected is in every error that the weather made.
var ErrInjected = errors.New("injected fault")

// call sends a request to another process: apply is called there, with the
// lock held, after before; the answer is back after a further while. An error is
// the context's cause, and then apply may have been called or may be called yet.
func (e *Env) call(ctx context.Context, n world.Node, before, after time.Duration, apply func()) error {
	return e.callLong(ctx, n, before, after, func(done func()) {
		apply()
		done()
	})
}

// callLong is call for what takes the other process a while: apply begins it, and
// done, called with the lock held, ends it.
func (e *Env) callLong(ctx context.Context, n world.Node, before, after time.Duration, apply func(done func())) error {
	n.Enter()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	answered := n.Tasks().EventCount()
	e.Lock()
	e.After(before, func() {
		apply(func() { e.After(after, answered.Advance) })
	})
	e.Unlock()
	err := answered.Await(ctx, 0)
	n.Enter()
	return err
}

// answer is what a request brings back. It lives on its own, because its
// request may be served when nobody waits for it any more.
type answer[T any] struct {
	value T
	err   error
}

// ask is call with an answer.
func ask[T any](ctx context.Context, e *Env, n world.Node, before, after time.Duration, apply func() (T, error)) (T, error) {
	a := &answer[T]{}
	if err := e.call(ctx, n, before, after, func() { a.value, a.err = apply() }); err != nil {
		var zero T
		return zero, err
	}
	e.Lock()
	defer e.Unlock()
	return a.value, a.err
}
