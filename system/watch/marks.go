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

// Take empties the set and returns what was in it, sorted.
func (m *Marks) Take() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	names := slices.Sorted(maps.Keys(m.names))
	m.names = nil
	return names
}
