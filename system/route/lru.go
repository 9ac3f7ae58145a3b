package route

import "container/list"

// lru keeps the most recently used entries, up to a number. The zero value is
// not ready; see newLRU.
type lru[V any] struct {
	most    int
	order   *list.List // of entry[V], the latest use in front
	byKey   map[string]*list.Element
	evicted func(key string, v V)
}

type entry[V any] struct {
	key string
	v   V
}

// newLRU makes room for most entries; evicted is told of each that had to go
// to make room.
func newLRU[V any](most int, evicted func(key string, v V)) *lru[V] {
	return &lru[V]{most: most, order: list.New(), byKey: map[string]*list.Element{}, evicted: evicted}
}

func (l *lru[V]) get(key string) (V, bool) {
	e, ok := l.byKey[key]
	if !ok {
		var none V
		return none, false
	}
	l.order.MoveToFront(e)
	return e.Value.(entry[V]).v, true
}

func (l *lru[V]) put(key string, v V) {
	if e, ok := l.byKey[key]; ok {
		e.Value = entry[V]{key, v}
		l.order.MoveToFront(e)
		return
	}
	l.byKey[key] = l.order.PushFront(entry[V]{key, v})
	if l.order.Len() > l.most {
		last := l.order.Back().Value.(entry[V])
		l.remove(last.key)
		l.evicted(last.key, last.v)
	}
}

func (l *lru[V]) remove(key string) {
	if e, ok := l.byKey[key]; ok {
		l.order.Remove(e)
		delete(l.byKey, key)
	}
}

func (l *lru[V]) len() int { return l.order.Len() }
