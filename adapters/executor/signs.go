package executor

import (
	"context"
	"errors"
	"sync"
	"time"

	"plane/system/port"
	"plane/system/protocol"
)

// errGap: ends may have been missed.
var errGap = errors.New("the connection to the executor was cut; ends may have been missed")

// exits are the ends that Exits has not told yet.
type exits struct {
	arrived chan struct{}

	mu     sync.Mutex
	ended  []string
	missed bool
}

func newExits() exits { return exits{arrived: make(chan struct{}, 1)} }

func (e *exits) put(backendID string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = append(e.ended, backendID)
	e.wake()
}

func (e *exits) gap() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.missed = true
	e.wake()
}

func (e *exits) wake() {
	select {
	case e.arrived <- struct{}{}:
	default: // whoever is woken takes all
	}
}

// next blocks for an end, or errGap.
func (e *exits) next(ctx context.Context) (string, error) {
	for {
		if id, found, err := e.take(); found || err != nil {
			return id, err
		}
		select {
		case <-e.arrived:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

func (e *exits) take() (id string, found bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.missed {
		e.missed = false
		return "", false, errGap
	}
	if len(e.ended) == 0 {
		return "", false, nil
	}
	id, e.ended = e.ended[0], e.ended[1:]
	return id, true, nil
}

// stats are what backends use by the executor's word. CPU times come as what was
// used since the last message, and are kept as totals.
type stats struct {
	mu  sync.Mutex
	all map[string]port.Stats
}

func (s *stats) add(m protocol.BackendMetrics) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[string]port.Stats{}
	}
	before := s.all[m.BackendID]
	s.all[m.BackendID] = port.Stats{
		MemUsed: m.MemUsed, MemTotal: m.MemTotal, MemActive: m.MemActive, MemInactive: m.MemInactive,
		MemUnevictable: m.MemUnevictable, MemLimit: m.MemLimit,
		CPU: before.CPU + nanoseconds(m.CPUUsed), SystemCPU: before.SystemCPU + nanoseconds(m.SysCPU),
	}
}

// nanoseconds refuses what no machine can use between two messages, so that a
// total never goes back.
func nanoseconds(n uint64) time.Duration {
	const most = 1 << 50               // 13 days
	return time.Duration(min(n, most)) //nolint:gosec // it fits
}

func (s *stats) get(backendID string) (port.Stats, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, ok := s.all[backendID]
	return found, ok
}

func (s *stats) forget(backendID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, backendID)
}

// turns lets one caller at a time start a backend.
type turns struct {
	mu   sync.Mutex
	busy map[string]chan struct{} // closed at the turn's end
}

// turn blocks until it is the caller's turn, which lasts until done is called.
func (t *turns) turn(ctx context.Context, backendID string) (done func(), err error) {
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		mine, others := t.claim(backendID)
		if mine != nil {
			return func() { t.give(backendID, mine) }, nil
		}
		select {
		case <-others:
		case <-ctx.Done():
		}
	}
}

func (t *turns) claim(backendID string) (mine chan struct{}, others <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if other, busy := t.busy[backendID]; busy {
		return nil, other
	}
	if t.busy == nil {
		t.busy = map[string]chan struct{}{}
	}
	mine = make(chan struct{})
	t.busy[backendID] = mine
	return mine, nil
}

func (t *turns) give(backendID string, mine chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.busy, backendID)
	close(mine)
}
