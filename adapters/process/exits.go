package process

import (
	"context"
	"sync"
)

// Exits implements port.ContainerRuntime.
func (r *Runtime) Exits(ctx context.Context) (string, error) {
	for {
		if id, ok := r.exits.take(); ok {
			return id, nil
		}
		select {
		case <-r.exits.arrived:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

// watch notes when the backend's supervisor ends, whichever process started it.
func (r *Runtime) watch(backendID string, supervisor processID) {
	end, stop, err := supervisor.end()
	if err != nil {
		r.config.Log.Error("cannot watch a backend's process; its end will be noticed late", "backend", backendID, "error", err)
		return
	}
	if !r.exits.begin(backendID, stop) {
		stop()
		return
	}
	go func() {
		err := end()
		stop()
		if !r.exits.end(backendID, err == nil) || err == nil {
			return
		}
		r.config.Log.Error("cannot watch a backend's process; its end will be noticed late", "backend", backendID, "error", err)
	}()
}

// exits are the backends that have ended and that Exits has not told yet.
type exits struct {
	arrived chan struct{}

	mu      sync.Mutex
	ended   []string
	watched map[string]func() // what ends the watching
	closed  bool
}

func newExits() exits {
	return exits{arrived: make(chan struct{}, 1), watched: map[string]func(){}}
}

// begin reports whether the caller is the one to watch the backend.
func (e *exits) begin(backendID string, stop func()) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || e.watched[backendID] != nil {
		return false
	}
	e.watched[backendID] = stop
	return true
}

// end notes the end of the watching, and of the backend if it has ended. It
// reports whether the watching was still wanted.
func (e *exits) end(backendID string, ended bool) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.watched, backendID)
	if ended {
		e.ended = append(e.ended, backendID)
		select {
		case e.arrived <- struct{}{}:
		default: // whoever is woken takes all
		}
	}
	return !e.closed
}

func (e *exits) take() (string, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.ended) == 0 {
		return "", false
	}
	id := e.ended[0]
	e.ended = e.ended[1:]
	return id, true
}

func (e *exits) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	for _, stop := range e.watched {
		stop()
	}
}

// turns lets one caller at a time start a backend: the one tries whether the
// port is vacant by taking it, and would be in the way of the other's backend.
type turns struct {
	mu   sync.Mutex
	busy map[string]chan struct{} // closed at the turn's end
}

// turn blocks until it is the caller's turn, which lasts until done is called.
func (t *turns) turn(ctx context.Context, backendID string) (done func(), err error) {
	for {
		t.mu.Lock()
		end, busy := t.busy[backendID]
		if !busy {
			mine := make(chan struct{})
			if t.busy == nil {
				t.busy = map[string]chan struct{}{}
			}
			t.busy[backendID] = mine
			t.mu.Unlock()
			return func() {
				t.mu.Lock()
				defer t.mu.Unlock()
				delete(t.busy, backendID)
				close(mine)
			}, nil
		}
		t.mu.Unlock()
		select {
		case <-end:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
