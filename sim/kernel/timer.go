package kernel

import "time"

// timer is a callback at an instant of true time. Ties are broken by a number
// drawn from the seed.
type timer struct {
	k     *Kernel
	at    time.Duration
	tie   uint64
	fn    func()
	index int // in the heap, or -1
}

// Stop implements world.Timer.
func (t *timer) Stop() {
	if t.index >= 0 && t.index < len(t.k.timers) && t.k.timers[t.index] == t {
		t.k.timers.remove(t.index)
	}
}

// timers is a binary heap, typed and indexed so that a stopped timer leaves at
// once: most timers are time-outs that never fire.
type timers []*timer

func (q timers) less(i, j int) bool {
	if q[i].at != q[j].at {
		return q[i].at < q[j].at
	}
	return q[i].tie < q[j].tie
}

func (q timers) swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

func (q *timers) push(t *timer) {
	t.index = len(*q)
	*q = append(*q, t)
	q.up(t.index)
}

func (q *timers) pop() *timer { return q.remove(0) }

func (q *timers) remove(i int) *timer {
	old := *q
	last := len(old) - 1
	t := old[i]
	if i != last {
		old.swap(i, last)
	}
	old[last] = nil
	*q = old[:last]
	if i != last && !q.down(i) {
		q.up(i)
	}
	t.index = -1
	return t
}

func (q timers) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !q.less(i, parent) {
			return
		}
		q.swap(i, parent)
		i = parent
	}
}

func (q timers) down(i int) bool {
	start := i
	for {
		child := 2*i + 1
		if child >= len(q) {
			break
		}
		if child+1 < len(q) && q.less(child+1, child) {
			child++
		}
		if !q.less(child, i) {
			break
		}
		q.swap(i, child)
		i = child
	}
	return i > start
}
