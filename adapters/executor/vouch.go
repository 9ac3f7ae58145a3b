package executor

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// mostRefusals is how often the executor may refuse to vouch for a backend
// before that is ended.
const mostRefusals = 3

// refusal is the executor's word that a backend does not serve.
type refusal string

func (r refusal) Error() string { return "the executor says that it does not serve: " + string(r) }

// probes are the WaitForBackend requests under way, one for each backend:
// probes come every second, and the executor may take minutes.
type probes struct {
	mu       sync.Mutex
	underway map[string]*probe
}

type probe struct {
	link *link
	done chan struct{}
	err  error // once done is closed
}

// Probe implements port.Prober: WaitForBackend, which probes come back to.
func (r *Runtime) Probe(ctx context.Context, address string) error {
	for id, rec := range r.records.snapshot() {
		if rec.Phase != running || r.address(rec.Port) != address { // a port has one holder
			continue
		}
		l, err := r.connection(ctx)
		if err != nil {
			return err
		}
		limited, cancel := context.WithTimeoutCause(ctx, probePatience, errors.New("the executor has not said yet that it serves"))
		defer cancel()
		return r.wait(limited, l, id, address)
	}
	return fmt.Errorf("probe %s: no backend of the executor runs there", address)
}

// wait joins the backend's WaitForBackend, or begins one, and blocks for the
// answer.
func (r *Runtime) wait(ctx context.Context, l *link, backendID, address string) error {
	r.probes.mu.Lock()
	p, ok := r.probes.underway[backendID]
	if !ok || p.link != l {
		p = &probe{link: l, done: make(chan struct{})}
		if r.probes.underway == nil {
			r.probes.underway = map[string]*probe{}
		}
		r.probes.underway[backendID] = p
		r.tasks.Go(func() {
			err := askServing(r.life, l, backendID, address)
			r.probes.mu.Lock()
			defer r.probes.mu.Unlock()
			p.err = err
			if r.probes.underway[backendID] == p {
				delete(r.probes.underway, backendID)
			}
			close(p.done)
		})
	}
	r.probes.mu.Unlock()
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func askServing(ctx context.Context, l *link, backendID, address string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, waitTimeout, fmt.Errorf("the executor did not answer WaitForBackend within %v", waitTimeout))
	defer cancel()
	m, err := l.ask(ctx, requestID(backendID), "WaitForBackend", []any{backendID, address})
	switch {
	case err != nil:
		return err
	case m.waited == nil:
		return wrongAnswer("WaitForBackend")
	case m.waited.refused:
		return refusal(clip(m.waited.text))
	}
	return nil
}

// vouchAll has the executor vouch for what was running before this connection:
// it may have ended while nobody listened.
func (r *Runtime) vouchAll(l *link) {
	for id, rec := range r.records.snapshot() {
		if rec.Phase == running {
			r.tasks.Go(func() { r.vouch(l, id, r.address(rec.Port)) })
		}
	}
}

// vouch ends the backend if the executor says again and again that it does not
// serve. Silence says nothing.
func (r *Runtime) vouch(l *link, backendID, address string) {
	log := r.config.Log.With("backend", backendID)
	for refusals := 1; ; refusals++ {
		err := r.wait(r.life, l, backendID, address)
		if refused := refusal(""); !errors.As(err, &refused) {
			return
		}
		if rec, known := r.records.get(backendID); !known || rec.Phase != running {
			return
		}
		log.Warn("the executor does not vouch for a backend after a gap", "refusals", refusals, "error", err)
		if refusals == mostRefusals {
			break
		}
		if pause(r.life, r.config.VouchEvery) != nil {
			return
		}
	}
	if err := r.Kill(r.life, backendID); err != nil {
		log.Error("could not end a backend that the executor does not vouch for; its next end is up to its limits", "error", err)
	}
}
