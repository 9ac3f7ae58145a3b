package ledger

import (
	"container/heap"
	"time"
)

// agenda holds values in order of a time, and of a number where times are
// equal, so that the order is the same in every run.
type agenda[T any] struct{ items agendaItems[T] }

// agendaItem is a value's place in an agenda.
type agendaItem[T any] struct {
	value T
	at    time.Time
	seq   int64
	index int
}

func (a *agenda[T]) add(value T, at time.Time, seq int64) *agendaItem[T] {
	it := &agendaItem[T]{value: value, at: at, seq: seq}
	a.put(it)
	return it
}

func (a *agenda[T]) put(it *agendaItem[T]) { heap.Push(&a.items, it) }

func (a *agenda[T]) remove(it *agendaItem[T]) { heap.Remove(&a.items, it.index) }

func (a *agenda[T]) move(it *agendaItem[T], at time.Time) {
	it.at = at
	heap.Fix(&a.items, it.index)
}

// first returns the earliest item if its time has come.
func (a *agenda[T]) first(now time.Time) (*agendaItem[T], bool) {
	if len(a.items) == 0 || a.items[0].at.After(now) {
		return nil, false
	}
	return a.items[0], true
}

type agendaItems[T any] []*agendaItem[T]

func (s agendaItems[T]) Len() int { return len(s) }

func (s agendaItems[T]) Less(i, j int) bool {
	if c := s[i].at.Compare(s[j].at); c != 0 {
		return c < 0
	}
	return s[i].seq < s[j].seq
}

func (s agendaItems[T]) Swap(i, j int) {
	s[i], s[j] = s[j], s[i]
	s[i].index, s[j].index = i, j
}

func (s *agendaItems[T]) Push(x any) {
	it := x.(*agendaItem[T])
	it.index = len(*s)
	*s = append(*s, it)
}

func (s *agendaItems[T]) Pop() any {
	last := len(*s) - 1
	it := (*s)[last]
	(*s)[last] = nil
	*s = (*s)[:last]
	return it
}
