package kernel

import (
	"context"
	"errors"
	"time"
)

// scope is a context that the kernel made: of a node, of a group, or with a
// deadline. Scopes form a tree next to the contexts' own, so that the end of
// one wakes those who wait under it in a fixed order and without a look at
// anybody else. The standard library's tree would do for the ending itself, but
// it keeps children in a map and tells nobody.
type scope struct {
	context.Context
	cancel   context.CancelCauseFunc
	k        *Kernel
	parent   *scope
	children []*scope
	slot     int // in parent.children
	waiters  []*waiter
	deadline time.Time // on the clock of whoever asked; zero: the parent's
	timer    *timer
	expired  bool
	ended    bool
	// known: every context between this and the root is a scope, so that it
	// cannot end without the kernel's knowledge.
	known bool
}

type scopeKey struct{}

func (k *Kernel) newScope(ctx context.Context, parent *scope) *scope {
	s := &scope{k: k, parent: parent}
	s.Context, s.cancel = context.WithCancelCause(ctx)
	if parent == nil {
		s.known = true
		return s
	}
	s.known = parent.known && ctx.Done() == parent.Done()
	s.slot = len(parent.children)
	parent.children = append(parent.children, s)
	return s
}

// under makes a scope whose parent is any context under a scope of k.
func (k *Kernel) under(ctx context.Context) *scope {
	parent, _ := ctx.Value(scopeKey{}).(*scope)
	if parent == nil {
		parent = k.root
	}
	return k.newScope(ctx, parent)
}

// Value implements context.Context.
func (s *scope) Value(key any) any {
	if _, ok := key.(scopeKey); ok {
		return s
	}
	return s.Context.Value(key)
}

// Deadline implements context.Context.
func (s *scope) Deadline() (time.Time, bool) {
	if !s.deadline.IsZero() {
		return s.deadline, true
	}
	return s.Context.Deadline()
}

// Err implements context.Context.
func (s *scope) Err() error {
	err := s.Context.Err()
	if err != nil && (s.expired || errors.Is(context.Cause(s.Context), context.DeadlineExceeded)) {
		return context.DeadlineExceeded
	}
	return err
}

// end cancels the scope and wakes all who wait under it, oldest first.
func (s *scope) end(cause error) {
	if s.ended {
		return
	}
	s.cancel(cause)
	s.detach()
	s.wakeAll()
}

func (s *scope) wakeAll() {
	s.ended = true
	if s.timer != nil {
		s.timer.Stop()
	}
	for _, w := range s.waiters {
		w.slot = -1
		s.k.wake(w)
	}
	s.waiters = nil
	for _, c := range s.children {
		c.wakeAll()
	}
	s.children = nil
}

func (s *scope) detach() {
	if p := s.parent; p != nil && s.slot < len(p.children) && p.children[s.slot] == s {
		last := len(p.children) - 1
		p.children[s.slot] = p.children[last]
		p.children[s.slot].slot = s.slot
		p.children[last] = nil
		p.children = p.children[:last]
	}
}

// watch makes sure that w is woken when ctx ends.
func (k *Kernel) watch(ctx context.Context, w *waiter) *foreigner {
	s, _ := ctx.Value(scopeKey{}).(*scope)
	if s == nil {
		s = k.root
	}
	w.scope, w.slot = s, len(s.waiters)
	s.waiters = append(s.waiters, w)
	if s.known && ctx.Done() == s.Done() || ctx.Done() == nil {
		return nil
	}
	return k.foreign.add(ctx, w)
}

func (w *waiter) unwatch() {
	s := w.scope
	if w.slot < 0 || s == nil || s.ended {
		return
	}
	last := len(s.waiters) - 1
	s.waiters[w.slot] = s.waiters[last]
	s.waiters[w.slot].slot = w.slot
	s.waiters[last] = nil
	s.waiters = s.waiters[:last]
	w.slot = -1
}

// foreigners are the contexts under which tasks wait and that a task may end
// behind the kernel's back, with a cancel function of the standard library. They
// are few; they are looked at after every switch, once each, however many tasks
// wait under one.
type foreigners struct {
	list  []*foreigner
	index map[<-chan struct{}]*foreigner
}

type foreigner struct {
	ctx     context.Context
	waiters []*waiter
	slot    int
}

func (f *foreigners) add(ctx context.Context, w *waiter) *foreigner {
	e := f.index[ctx.Done()]
	if e == nil {
		if f.index == nil {
			f.index = map[<-chan struct{}]*foreigner{}
		}
		e = &foreigner{ctx: ctx, slot: len(f.list)}
		f.index[ctx.Done()] = e
		f.list = append(f.list, e)
	}
	e.waiters = append(e.waiters, w)
	return e
}

// forget ends the watch over w.
func (e *foreigner) forget(k *Kernel, w *waiter) {
	w.unwatch()
	if e == nil {
		return
	}
	for i, other := range e.waiters {
		if other == w {
			e.waiters = append(e.waiters[:i], e.waiters[i+1:]...)
			break
		}
	}
	if len(e.waiters) == 0 {
		k.foreign.remove(e)
	}
}

func (f *foreigners) remove(e *foreigner) {
	if e.slot >= len(f.list) || f.list[e.slot] != e {
		return
	}
	last := len(f.list) - 1
	f.list[e.slot] = f.list[last]
	f.list[e.slot].slot = e.slot
	f.list[last] = nil
	f.list = f.list[:last]
	delete(f.index, e.ctx.Done())
}

func (f *foreigners) wakeEnded(k *Kernel) {
	for i := 0; i < len(f.list); {
		e := f.list[i]
		if e.ctx.Err() == nil {
			i++
			continue
		}
		for _, w := range e.waiters {
			k.wake(w)
		}
		f.remove(e)
	}
}
