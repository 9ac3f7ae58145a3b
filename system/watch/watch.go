// Package watch tells those who wait for something that it may have happened:
// a hub of subscriptions by topic, and a roster of all that are there. Both may
// be used by any number of tasks at once, never block, and call what was
// subscribed after their own lock is released.
package watch

import (
	"maps"
	"slices"
	"strings"
	"sync"
)

// Hub calls subscribers when their topic is announced. The zero value is ready.
type Hub struct {
	mu     sync.Mutex
	topics map[string]*Roster[func()]
}

// Subscribe has wake called on each announcement of the topic, until the
// returned function is called. Wake must not block.
func (h *Hub) Subscribe(topic string, wake func()) (cancel func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.topics == nil {
		h.topics = map[string]*Roster[func()]{}
	}
	roster := h.topics[topic]
	if roster == nil {
		roster = &Roster[func()]{}
		h.topics[topic] = roster
	}
	leave := roster.Join(wake)
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if leave(); roster.Len() == 0 && h.topics[topic] == roster {
			delete(h.topics, topic)
		}
	}
}

// Announce wakes the topic's subscribers, in the order in which they came.
func (h *Hub) Announce(topic string) {
	h.mu.Lock()
	roster := h.topics[topic]
	h.mu.Unlock()
	if roster == nil {
		return
	}
	for _, wake := range roster.Members() {
		wake()
	}
}

// AnnounceAll wakes every subscriber of every topic.
func (h *Hub) AnnounceAll() {
	for _, topic := range h.Topics("") {
		h.Announce(topic)
	}
}

// Topics returns the topics that begin with prefix and have subscribers, sorted.
func (h *Hub) Topics(prefix string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	topics := slices.Sorted(maps.Keys(h.topics))
	return slices.DeleteFunc(topics, func(topic string) bool { return !strings.HasPrefix(topic, prefix) })
}

// Roster holds members in the order in which they joined. The zero value is
// empty and ready.
type Roster[T any] struct {
	mu      sync.Mutex
	last    uint64
	members []member[T]
}

type member[T any] struct {
	id    uint64
	value T
}

// Join adds a member until the returned function is called; that may be called
// more than once.
func (r *Roster[T]) Join(value T) (leave func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last++
	id := r.last
	r.members = append(r.members, member[T]{id, value})
	return func() { r.leave(id) }
}

func (r *Roster[T]) leave(id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.members {
		if r.members[i].id == id {
			r.members = append(r.members[:i:i], r.members[i+1:]...)
			return
		}
	}
}

// Members returns all members, in the order in which they joined.
func (r *Roster[T]) Members() []T {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]T, len(r.members))
	for i := range r.members {
		all[i] = r.members[i].value
	}
	return all
}

// Len returns how many members there are.
func (r *Roster[T]) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.members)
}
