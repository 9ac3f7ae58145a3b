package watch

import (
	"maps"
	"slices"
	"sync"
)

// Marks is a set of names that were marked since they were last taken. The zero
// value is empty and ready.
type Marks struct {
	mu    sync.Mutex
	names map[string]bool
}

// Mark adds a name.
func (m *Marks) Mark(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.names == nil {
		m.names = map[string]bool{}
	}
	m.names[name] = true
}

// Take takes most names at most out of the set, and returns them sorted.
func (m *Marks) Take(most int) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := slices.Sorted(maps.Keys(m.names))
	names = names[:min(most, len(names))]
	for _, name := range names {
		delete(m.names, name)
	}
	return names
}
