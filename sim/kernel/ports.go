package kernel

import (
	"context"
	"time"

	"plane/system/port"
)

// Clock implements world.Node.
func (n *Node) Clock() port.Clock { return clock{n} }

// Tasks implements world.Node.
func (n *Node) Tasks() port.Tasks { return tasks{n} }

// Random implements world.Node.
func (n *Node) Random() port.Rand { return n }

type clock struct{ n *Node }

func (c clock) Now() time.Time {
	c.n.k.enter()
	return c.n.clockwork.Local(c.n.k.Now())
}

func (c clock) Sleep(ctx context.Context, d time.Duration) error {
	return c.n.k.sleep(ctx, c.n.clockwork.Span(max(d, 0)))
}

func (c clock) SleepUntil(ctx context.Context, t time.Time) error {
	k := c.n.k
	return k.sleep(ctx, c.n.clockwork.True(t).Sub(k.Now()))
}

func (c clock) WithDeadline(ctx context.Context, t time.Time) (context.Context, context.CancelFunc) {
	k := c.n.k
	k.enter()
	s := k.under(ctx)
	s.deadline = t
	if d, ok := s.Context.Deadline(); ok && d.Before(t) {
		s.deadline = d
	}
	expire := func() {
		s.expired = s.Context.Err() == nil
		s.end(context.DeadlineExceeded)
	}
	if wait := c.n.clockwork.True(t).Sub(k.Now()); wait > 0 {
		s.timer = k.at(k.now+wait, expire)
	} else {
		expire()
	}
	return s, func() { s.end(context.Canceled) }
}

// Sleep implements world.Node.
func (n *Node) Sleep(ctx context.Context, d time.Duration) error { return n.k.sleep(ctx, d) }

func (k *Kernel) sleep(ctx context.Context, d time.Duration) error {
	k.enter()
	w := k.newWaiter()
	t := k.at(k.now+max(d, 0), func() { k.fire(w) })
	defer t.Stop()
	return k.park(ctx, w)
}

type tasks struct{ n *Node }

func (t tasks) Go(name string, fn func(ctx context.Context)) {
	t.n.Enter()
	t.n.k.spawn(t.n, name, func() { fn(t.n.scope) })
}

func (t tasks) EventCount() port.EventCount { return &eventCount{k: t.n.k} }

func (t tasks) Group(ctx context.Context) port.Group {
	t.n.Enter()
	return &group{n: t.n, scope: t.n.k.under(ctx)}
}

// group is a port.Group: no lock, for only one task runs at a time.
type group struct {
	n       *Node
	scope   *scope
	running int
	err     error
	owner   *waiter
}

func (g *group) Go(name string, fn func(ctx context.Context) error) {
	g.n.Enter()
	g.running++
	g.n.k.spawn(g.n, name, func() {
		err := fn(g.scope)
		if err != nil && g.err == nil {
			g.err = err
			g.scope.end(err)
		}
		g.running--
		if g.running == 0 && g.owner != nil {
			g.n.k.fire(g.owner)
		}
	})
}

func (g *group) Wait() error {
	k := g.n.k
	k.enter()
	for g.running > 0 {
		g.owner = k.newWaiter()
		if err := k.park(context.Background(), g.owner); err != nil {
			return err
		}
	}
	g.scope.end(g.err)
	return g.err
}

// eventCount is a port.EventCount.
type eventCount struct {
	k       *Kernel
	n       uint64
	waiters []*waiter
}

func (e *eventCount) Advance() {
	e.k.enter()
	e.n++
	for i, w := range e.waiters {
		e.k.fire(w)
		e.waiters[i] = nil
	}
	e.waiters = e.waiters[:0]
}

func (e *eventCount) Read() uint64 {
	e.k.enter()
	return e.n
}

func (e *eventCount) Await(ctx context.Context, seen uint64) error {
	e.k.enter()
	if e.n > seen {
		return nil
	}
	w := e.k.newWaiter()
	e.waiters = append(e.waiters, w)
	defer e.forget(w)
	for {
		if err := e.k.park(ctx, w); err != nil {
			return err
		}
		if e.n > seen {
			return nil
		}
		w = e.k.newWaiter()
		e.waiters = append(e.waiters, w)
	}
}

func (e *eventCount) forget(w *waiter) {
	for i, other := range e.waiters {
		if other == w {
			last := len(e.waiters) - 1
			e.waiters[i] = e.waiters[last]
			e.waiters[last] = nil
			e.waiters = e.waiters[:last]
			return
		}
	}
}
