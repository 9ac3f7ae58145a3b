package executor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"plane/system/port"
	"plane/system/protocol"
)

// Start implements port.ContainerRuntime.
func (r *Runtime) Start(ctx context.Context, spec port.ContainerSpec) (port.Container, error) {
	if err := r.Validate(spec); err != nil {
		return port.Container{}, err
	}
	done, err := r.starts.turn(ctx, spec.BackendID)
	if err != nil {
		return port.Container{}, err
	}
	defer done()
	rec, known := r.records.get(spec.BackendID)
	switch {
	case !known:
		err = r.spawn(ctx, spec)
	case rec.Phase == asked:
		err = r.settle(ctx, spec.BackendID)
	}
	if err != nil {
		return port.Container{}, fmt.Errorf("start %s: %w", spec.BackendID, err)
	}
	return r.Inspect(ctx, spec.BackendID)
}

// spawnBody is the request. A spec with the zero fencing token has no lease.
func spawnBody(spec port.ContainerSpec) []any {
	var key *protocol.AcquiredKey
	if spec.FencingToken != 0 {
		key = &protocol.AcquiredKey{Key: spec.Key, Deadlines: spec.Deadlines, Token: spec.FencingToken}
	}
	var token *string
	if spec.StaticToken != "" {
		token = &spec.StaticToken
	}
	return []any{spec.BackendID, spec.Executable, key, token}
}

// spawn asks once. What the answer says is noted by spawned, whenever it comes.
func (r *Runtime) spawn(ctx context.Context, spec port.ContainerSpec) error {
	l, err := r.connection(ctx)
	if err != nil {
		return err
	}
	id := requestID(spec.BackendID)
	if err := r.records.begin(spec.BackendID, id); err != nil {
		return err
	}
	m, err := l.ask(ctx, id, "Spawn", spawnBody(spec))
	switch {
	case err != nil:
		return err
	case m.spawned == nil:
		return wrongAnswer("Spawn")
	case m.spawned.refused:
		return fmt.Errorf("%w: the executor did not start it: %s", port.ErrBadExecutable, redact(m.spawned.text, spec))
	}
	return nil
}

// settle makes sure of a backend whose spawn was not answered: either the answer
// comes yet, or it is ended. Asking a second time could make a second one.
func (r *Runtime) settle(ctx context.Context, backendID string) error {
	late := time.NewTimer(r.config.LateAnswer)
	defer late.Stop()
	for {
		rec, known, changed := r.records.watch(backendID)
		if !known {
			return errors.New("it was being ended meanwhile")
		}
		if rec.Phase != asked {
			return nil
		}
		select {
		case <-changed:
		case <-late.C:
			r.config.Log.Warn("the executor did not answer a spawn; ending what there may be of it", "backend", backendID)
			return r.Kill(ctx, backendID)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// spawned notes the answer to a spawn. It comes from the reader, before whoever
// asked is told.
func (r *Runtime) spawned(requestID string, answer result[spawned]) {
	backendID := backendOf(requestID)
	log := r.config.Log.With("backend", backendID)
	rec, known := r.records.get(backendID)
	switch {
	case known && rec.Spawn != requestID: // of another agent, or made up
		log.Warn("skipped the executor's answer to a spawn that is not the backend's")
	case answer.refused:
		if known && rec.Phase == asked {
			if err := r.records.remove(backendID); err != nil {
				log.Error("that a backend was refused is not written; it will be ended instead", "error", err)
			}
		}
	case !known, rec.Phase == over && !rec.Told:
		if backendName(backendID) == nil {
			r.endStray(backendID, "a backend was spawned after it was given up")
		}
	default:
		r.place(backendID, answer.ok)
	}
}

// place notes where a backend serves. One on a port that another has would get
// the other's visitors.
func (r *Runtime) place(backendID string, s spawned) {
	log := r.config.Log.With("backend", backendID)
	if other, taken := holder(r.records.snapshot(), s.Port, backendID); taken {
		log.Error("the executor gave a backend the port of another one; ending the newer one", "port", s.Port, "other", other)
		r.ended(backendID, nil, false)
		r.endStray(backendID, "a backend has another's port")
		return
	}
	err := r.records.update(backendID, func(rec *record, known bool) bool {
		if !known || rec.ContainerID != "" {
			return false
		}
		rec.ContainerID, rec.Port = s.ContainerID, s.Port
		if rec.Phase == asked {
			rec.Phase = running
		}
		return true
	})
	if err != nil {
		log.Error("that a backend runs is known, but not written", "error", err)
	}
}

// endStray ends what runs against the records. The lease guard does the same
// later, should the executor not be reached now.
func (r *Runtime) endStray(backendID, why string) {
	r.tasks.Go(func() {
		log := r.config.Log.With("backend", backendID)
		log.Warn(why + "; ending it")
		for ran := true; ran; {
			if rec, known := r.records.get(backendID); known && rec.Phase != over {
				return // it is one of ours again
			}
			l, err := r.connection(r.life)
			if err == nil {
				ran, err = l.terminate(r.life, backendID, true)
			}
			if r.life.Err() != nil {
				return
			}
			if err != nil {
				log.Error("cannot end a stray backend; trying again", "error", err)
			}
			if ran && pause(r.life, askAgain) != nil {
				return
			}
		}
	})
}

// redact takes the values of a request out of the executor's words, which may
// quote it.
func redact(text string, spec port.ContainerSpec) string {
	secrets := []string{spec.StaticToken}
	if e, err := protocol.ParseDockerExecutable(spec.Executable); err == nil {
		if e.Credentials != nil {
			secrets = append(secrets, e.Credentials.Username, e.Credentials.Password)
		}
		for _, value := range e.Env {
			secrets = append(secrets, value)
		}
	}
	// The longest first: one may be part of another.
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	for _, s := range secrets {
		quoted, err := json.Marshal(s)
		if s == "" || err != nil {
			continue
		}
		text = strings.ReplaceAll(text, s, "[…]")
		text = strings.ReplaceAll(text, string(quoted[1:len(quoted)-1]), "[…]")
	}
	return clip(text)
}
