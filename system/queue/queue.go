// Package queue holds a queue that any number of tasks may use at once. It
// never blocks and knows nothing of waiting: pair it with an event count.
package queue

import "sync"

// Queue is a first-in-first-out queue. The zero value is empty and ready.
type Queue[T any] struct {
	mu    sync.Mutex
	items []T
}

// Put appends an item and returns how many there are now.
func (q *Queue[T]) Put(item T) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.items = append(q.items, item)
	return len(q.items)
}

// TakeAll empties the queue and returns what was in it, in order.
func (q *Queue[T]) TakeAll() []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	items := q.items
	q.items = nil
	return items
}

// Len returns how many items there are.
func (q *Queue[T]) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items)
}
