// Package recent keeps the latest value of each of many names, for as long as
// new ones keep coming: what was not renewed for a while is forgotten, and where
// there are too many names, those that were renewed longest ago give way.
//
// A Table may be used by any number of tasks at once and never blocks. It knows
// no clock: times come in as arguments. Times that run back are taken as they
// are, and make a value live longer, at most.
package recent

import (
	"container/list"
	"sync"
	"time"
)

// Table holds at most so many values, none for longer than its age. Make it with
// New.
type Table[V any] struct {
	most int
	age  time.Duration

	mu     sync.Mutex
	number uint64 // of the last Put
	named  map[string]*list.Element
	latest list.List // of entry[V], the one renewed longest ago first
}

// Kept is a value with the time and the number of its Put. Numbers grow, from 1.
type Kept[V any] struct {
	Value  V
	At     time.Time
	Number uint64
}

type entry[V any] struct {
	name string
	Kept[V]
}

// New makes an empty table. Both limits must be positive.
func New[V any](most int, age time.Duration) *Table[V] {
	return &Table[V]{most: most, age: age, named: map[string]*list.Element{}}
}

// Put makes v, which is there since now, the value of name.
func (t *Table[V]) Put(name string, v V, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e, ok := t.named[name]; ok {
		t.remove(e)
	}
	t.number++
	t.named[name] = t.latest.PushBack(entry[V]{name, Kept[V]{v, now, t.number}})
	for e := t.latest.Front(); t.latest.Len() > t.most || t.over(e, now); e = t.latest.Front() {
		t.remove(e)
	}
}

// Get returns the value of name, unless there is none or it is too old.
func (t *Table[V]) Get(name string, now time.Time) (Kept[V], bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, ok := t.named[name]
	if !ok || t.over(e, now) {
		return Kept[V]{}, false
	}
	return e.Value.(entry[V]).Kept, true
}

// Len returns how many values are kept.
func (t *Table[V]) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.latest.Len()
}

func (t *Table[V]) over(e *list.Element, now time.Time) bool {
	return now.Sub(e.Value.(entry[V]).At) >= t.age
}

func (t *Table[V]) remove(e *list.Element) {
	delete(t.named, e.Value.(entry[V]).name)
	t.latest.Remove(e)
}
