// Package roster holds a set of named things that any number of tasks may use
// at once. It never blocks, and knows nothing of what it holds.
package roster

import (
	"maps"
	"slices"
	"sync"
)

// Roster maps names to things. The zero value is empty and ready.
type Roster[T any] struct {
	mu    sync.Mutex
	named map[string]T
}

// Add puts a thing under a name that is free. Where it is taken, it returns what
// is there and false.
func (r *Roster[T]) Add(name string, thing T) (T, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if present, ok := r.named[name]; ok {
		return present, false
	}
	if r.named == nil {
		r.named = map[string]T{}
	}
	r.named[name] = thing
	return thing, true
}

// Get returns what is under the name.
func (r *Roster[T]) Get(name string) (T, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	thing, ok := r.named[name]
	return thing, ok
}

// Remove frees the name; harmless twice.
func (r *Roster[T]) Remove(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.named, name)
}

// All returns everything, in order of name.
func (r *Roster[T]) All() []T {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]T, 0, len(r.named))
	for _, name := range slices.Sorted(maps.Keys(r.named)) {
		all = append(all, r.named[name])
	}
	return all
}

// Len returns how many there are.
func (r *Roster[T]) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.named)
}
