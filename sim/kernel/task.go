package kernel

import (
	"context"
	"iter"
)

// task is one logical goroutine of a node.
type task struct {
	id     uint64
	name   string
	node   *Node
	slot   int // in node.tasks
	body   func()
	worker *worker
	wait   *waiter // while parked
	ended  bool
}

// waiter is one park of a task. It is woken once: by what it waits for, by the
// end of its context, or by the crash of its node.
type waiter struct {
	t     *task
	woken bool
	fired bool // what it waited for has come
	scope *scope
	slot  int // in scope.waiters
}

// worker is a coroutine that runs one task after another, because a new
// coroutine costs more than a task.
type worker struct {
	task  *task
	yield func() bool // false when the kernel is closed
	next  func() (struct{}, bool)
	stop  func()
}

func (k *Kernel) newWorker() *worker {
	w := &worker{}
	w.next, w.stop = iter.Pull(func(yield func(struct{}) bool) {
		w.yield = func() bool { return yield(struct{}{}) }
		for {
			w.runTask(k)
			if !w.yield() {
				return
			}
		}
	})
	return w
}

func (w *worker) runTask(k *Kernel) {
	t := w.task
	defer func() {
		t.ended = true
		switch cause := recover().(type) {
		case nil, crashed:
		default:
			k.fail(t.node.name+" "+t.name, cause)
		}
	}()
	t.enter()
	t.body()
}

// crashed unwinds a task of a crashed node.
type crashed struct{}

func (t *task) enter() {
	if t.node.crashed {
		panic(crashed{})
	}
}

// spawn makes body a task of n.
func (k *Kernel) spawn(n *Node, name string, body func()) {
	k.tasks++
	k.live++
	t := &task{id: k.tasks, name: name, node: n, slot: len(n.tasks), body: body}
	n.tasks = append(n.tasks, t)
	k.ready = append(k.ready, t)
}

// step resumes t until it parks or ends.
func (k *Kernel) step(t *task) {
	if t.worker == nil {
		if n := len(k.idle); n > 0 {
			t.worker, k.idle = k.idle[n-1], k.idle[:n-1]
		} else {
			t.worker = k.newWorker()
		}
		t.worker.task = t
	}
	prev := k.current
	k.current = t
	k.switches++
	k.running.Store(&t.name)
	k.beat.Add(1)
	t.worker.next()
	k.beat.Add(1)
	k.current = prev
	if t.ended {
		k.live--
		t.node.forget(t)
		k.idle = append(k.idle, t.worker)
		t.worker, t.body = nil, nil
	}
}

// enter is the first thing that every port does.
func (k *Kernel) enter() {
	if k.current != nil {
		k.current.enter()
	}
}

// newWaiter makes the waiter of the current task's next park.
func (k *Kernel) newWaiter() *waiter {
	if k.current == nil {
		panic("kernel: a blocking port was called outside of any task")
	}
	return &waiter{t: k.current, slot: -1}
}

// park blocks the current task until its waiter is woken. It returns nil when
// that fired, or the context's cause.
func (k *Kernel) park(ctx context.Context, w *waiter) error {
	t := w.t
	t.enter()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if !w.woken {
		t.wait = w
		entry := k.watch(ctx, w)
		t.worker.yield()
		entry.forget(k, w)
		t.wait = nil
		t.enter()
	}
	if !w.fired {
		return context.Cause(ctx)
	}
	return nil
}

// fire wakes the task because what it waited for has come.
func (k *Kernel) fire(w *waiter) {
	if !w.woken {
		w.fired = true
		k.wake(w)
	}
}

func (k *Kernel) wake(w *waiter) {
	if !w.woken {
		w.woken = true
		if w.t.wait == w {
			k.ready = append(k.ready, w.t)
		}
	}
}
