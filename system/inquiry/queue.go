package inquiry

import (
	"container/list"
	"maps"
	"time"
)

// lately is for how long a cluster counts as one that had values: about as long as
// a value lives.
const lately = 10 * time.Minute

// queue is where a question waits, or waited, to be sent.
func (t *Table) queue(q *question) *list.List {
	if q.valued {
		return &t.first
	}
	return &t.others
}

func (t *Table) enqueue(q *question) { q.place = t.queue(q).PushBack(q) }

// dequeue takes the question out that is to be sent next. There is one.
func (t *Table) dequeue() *question {
	next := t.first.Front()
	if next == nil {
		next = t.others.Front()
	}
	q := next.Value.(*question)
	t.unqueue(q)
	return q
}

func (t *Table) unqueue(q *question) {
	if q.place != nil {
		t.queue(q).Remove(q.place)
		q.place = nil
	}
}

// drop ends a question, sent or not.
func (t *Table) drop(q *question) {
	t.unqueue(q)
	delete(t.asked, q.cluster)
}

// toSend is how many questions wait to be sent.
func (t *Table) toSend() int { return t.first.Len() + t.others.Len() }

// noteValued remembers that a cluster had values. When there are too many of
// these, others are as good.
func (t *Table) noteValued(cluster string, r Result, now time.Time) {
	if len(r.Values) == 0 {
		return
	}
	if len(t.valued) >= t.policy.MaxRemember {
		maps.DeleteFunc(t.valued, func(_ string, until time.Time) bool { return !now.Before(until) })
	}
	if _, known := t.valued[cluster]; known || len(t.valued) < t.policy.MaxRemember {
		t.valued[cluster] = now.Add(lately)
	}
}
