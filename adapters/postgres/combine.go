package postgres

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"
)

// batchTime bounds a batch. The server's own limits end a statement before;
// this is for a server that is out of reach.
const batchTime = 6 * time.Second

// combiner turns the calls of many tasks into few statements: what arrives while
// a batch is under way is the next one. A call belongs to one batch with all of
// its items. It is answered by itself: where a batch fails because of what is in
// it, each of its calls is tried alone. A caller whose context ends leaves; its
// items may still take effect.
//
// It has no tasks of its own while nothing is asked of it. Who finds nothing under
// way does its batch itself: to wake another task for it, and to be woken, takes
// as long as a small statement.
type combiner[I, O any] struct {
	// run does all items, in one transaction or a few, and answers in their order.
	// What it has done before it fails must be harmless to do again.
	run func(ctx context.Context, items []I) ([]O, error)
	// workers is how many batches may be under way at a time, most how many items
	// a batch has at most (a call with more is a batch of its own).
	workers, most int
	// gather is how far apart batches begin in the long run: what is not in a
	// hurry comes in fewer. The first few after a quiet time begin at once, so
	// that who asks now and then does not wait. With it there is one worker.
	gather time.Duration

	mu      sync.Mutex
	waiting []*call[I, O]
	running int
	next    time.Time // when another batch may begin
}

// atOnce is how many batches begin at once after a quiet time.
const atOnce = 4

// call is what one caller asks for.
type call[I, O any] struct {
	ctx   context.Context //nolint:containedctx // the caller's, to know whether it still waits
	items []I
	out   []O
	err   error
	done  chan struct{}
}

// do blocks until the items are done, or the context ends.
func (c *combiner[I, O]) do(ctx context.Context, items []I) ([]O, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if len(items) == 0 {
		return nil, nil
	}
	c.mu.Lock()
	if c.gather == 0 && c.running == 0 {
		c.running++
		c.mu.Unlock()
		defer c.leave()
		out, err := c.attempt(ctx, items)
		if err != nil && ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return out, err
	}
	own := &call[I, O]{ctx: ctx, items: items, done: make(chan struct{})}
	c.waiting = append(c.waiting, own)
	if c.running < c.workers {
		c.running++
		go c.work()
	}
	c.mu.Unlock()
	select {
	case <-own.done:
		return own.out, own.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// leave ends a batch that its one caller did itself, and has another task do
// what came meanwhile.
func (c *combiner[I, O]) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.waiting) > 0 {
		go c.work()
		return
	}
	c.running--
}

// work does batches until nothing waits.
func (c *combiner[I, O]) work() {
	for {
		// Those that were just answered, or want the same as who comes first, may
		// ask now: a batch of one costs as much as the next one of thirty.
		runtime.Gosched()
		c.pause()
		batch := c.take()
		if batch == nil {
			return
		}
		c.serve(batch)
	}
}

// pause waits until another batch may begin, if there is to be one.
func (c *combiner[I, O]) pause() {
	c.mu.Lock()
	wait := time.Until(c.next)
	wanted := len(c.waiting) > 0
	c.mu.Unlock()
	if wanted && wait > 0 {
		<-time.After(wait)
	}
}

// take returns the calls of the next batch whose callers still wait; nil ends
// the worker.
func (c *combiner[I, O]) take() []*call[I, O] {
	c.mu.Lock()
	defer c.mu.Unlock()
	var batch []*call[I, O]
	items := 0
	for len(c.waiting) > 0 {
		next := c.waiting[0]
		if items > 0 && items+len(next.items) > c.most {
			break
		}
		c.waiting[0] = nil
		c.waiting = c.waiting[1:]
		if next.ctx.Err() == nil {
			batch = append(batch, next)
			items += len(next.items)
		}
	}
	if batch == nil {
		c.running--
		return nil
	}
	c.next = c.after(time.Now())
	return batch
}

// after says when another batch may begin after one that begins now. Each has
// its turn, a gather after the one before; they may be so many turns early.
func (c *combiner[I, O]) after(now time.Time) time.Time {
	next := c.next
	if quiet := now.Add(-(atOnce - 1) * c.gather); next.Before(quiet) {
		next = quiet
	}
	return next.Add(c.gather)
}

// serve does a batch and answers its calls.
func (c *combiner[I, O]) serve(batch []*call[I, O]) {
	items := batch[0].items
	if len(batch) > 1 {
		items = nil
		for _, b := range batch {
			items = append(items, b.items...)
		}
	}
	out, err := c.attempt(context.Background(), items)
	if err != nil && len(batch) > 1 && isRefusal(err) {
		for _, b := range batch {
			c.serve([]*call[I, O]{b})
		}
		return
	}
	for _, b := range batch {
		if b.err = err; err == nil {
			b.out, out = out[:len(b.items):len(b.items)], out[len(b.items):]
		}
		close(b.done)
	}
}

// attempt runs items. What the server has taken back whole, for no fault of
// theirs, is done anew.
func (c *combiner[I, O]) attempt(ctx context.Context, items []I) (out []O, err error) {
	ctx, cancel := context.WithTimeout(ctx, batchTime)
	defer cancel()
	err = insist(func() error {
		out, err = c.run(ctx, items)
		return err
	})
	if err == nil && len(out) != len(items) {
		return nil, fmt.Errorf("the database answered %d items of %d", len(out), len(items))
	}
	return out, err
}
