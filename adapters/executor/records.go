package executor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"

	"plane/adapters/internal/durable"
	"plane/system/name"
)

// phase is how far a backend has come, as far as is known.
type phase string

const (
	asked   phase = "asked"   // the executor may or may not have spawned it
	running phase = "running" // it has, and nothing was heard of an end
	over    phase = "ended"
)

// record is what is known of one backend.
type record struct {
	Spawn       string `json:"spawn"` // the id of the request that asked for it
	Phase       phase  `json:"phase"`
	ContainerID string `json:"container_id,omitempty"`
	Port        int    `json:"port,omitempty"`
	ExitCode    *int   `json:"exit_code,omitempty"`
	// Told: a TerminateEvent told the end. Without, it was inferred, and a spawn
	// that was not answered may still take effect.
	Told bool `json:"told,omitempty"`
}

// records are all of them, in memory and in a file that is replaced whole.
type records struct {
	path string

	mu      sync.Mutex
	all     map[string]record
	changed chan struct{} // closed with the next change
}

func openRecords(path string) (*records, error) {
	r := &records{path: path, all: map[string]record{}, changed: make(chan struct{})}
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	damaged := fmt.Errorf("%s is damaged: see to it that the executor runs no backends, remove the file and start again", path)
	if json.Unmarshal(content, &r.all) != nil || r.all == nil {
		return nil, damaged
	}
	for id, rec := range r.all {
		known := rec.Phase == asked || rec.Phase == running || rec.Phase == over
		if name.Validate(name.Backend, id) != nil || !known {
			return nil, damaged
		}
	}
	return r, nil
}

func (r *records) get(backendID string) (record, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec, ok := r.all[backendID]
	return rec, ok
}

func (r *records) snapshot() map[string]record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.all)
}

// watch returns the record and what is closed when any changes.
func (r *records) watch(backendID string) (rec record, ok bool, changed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec, ok = r.all[backendID]
	return rec, ok, r.changed
}

// update changes a record and writes all; change returns false to leave it as it
// is. When the disk fails the change counts in memory and is written with the
// next.
func (r *records) update(backendID string, change func(rec *record, known bool) bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec, known := r.all[backendID]
	if !change(&rec, known) {
		return nil
	}
	r.all[backendID] = rec
	return r.save()
}

// begin writes that the executor is being asked. It has no effect when it fails.
func (r *records) begin(backendID, spawnID string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all[backendID] = record{Spawn: spawnID, Phase: asked}
	err := r.save()
	if err != nil {
		delete(r.all, backendID)
	}
	return err
}

// remove forgets a backend. It has no effect when it fails.
func (r *records) remove(backendID string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec, known := r.all[backendID]
	if !known {
		return nil
	}
	delete(r.all, backendID)
	err := r.save()
	if err != nil {
		r.all[backendID] = rec // so that a second call writes it
	}
	return err
}

// save writes the file and wakes all who watch. The lock is held.
func (r *records) save() error {
	close(r.changed)
	r.changed = make(chan struct{})
	content, err := json.Marshal(r.all)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(r.path, content); err != nil {
		return fmt.Errorf("what is known of the executor's backends cannot be written: %w", err)
	}
	return nil
}

// holder returns the backend, other than this one, that has the port.
func holder(all map[string]record, port int, but string) (string, bool) {
	for _, id := range slices.Sorted(maps.Keys(all)) {
		if rec := all[id]; id != but && rec.Port == port {
			return id, true
		}
	}
	return "", false
}
