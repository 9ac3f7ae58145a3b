package executor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"plane/system/name"
	"plane/system/port"
	"plane/system/protocol"
)

// errUnknown: the executor would have to be asked whether the backend runs, and
// the protocol has no question for it.
var errUnknown = errors.New("whether it runs is not known")

// Validate implements port.ContainerRuntime. The executor gets the executable
// as it is.
func (r *Runtime) Validate(spec port.ContainerSpec) error {
	if err := name.Validate(name.Backend, spec.BackendID); err != nil {
		return fmt.Errorf("%w: %w", port.ErrBadExecutable, err)
	}
	if _, err := protocol.ParseDockerExecutable(spec.Executable); err != nil {
		return fmt.Errorf("%w: %w", port.ErrBadExecutable, err)
	}
	if _, err := encode(requestID(spec.BackendID), "Spawn", spawnBody(spec)); err != nil {
		return fmt.Errorf("%w: %w", port.ErrBadExecutable, err)
	}
	return nil
}

// Pull implements port.ContainerRuntime: Prepare. Nothing is heard of progress.
func (r *Runtime) Pull(ctx context.Context, spec port.ContainerSpec, _ func(string)) error {
	if err := r.Validate(spec); err != nil {
		return err
	}
	l, err := r.connection(ctx)
	if err != nil {
		return err
	}
	m, err := l.ask(ctx, requestID(spec.BackendID), "Prepare", spec.Executable)
	switch {
	case err != nil:
		return fmt.Errorf("prepare %s: %w", spec.BackendID, err)
	case m.prepared == nil:
		return wrongAnswer("Prepare")
	case m.prepared.refused:
		return fmt.Errorf("%w: the executor cannot prepare it: %s", port.ErrBadExecutable, redact(m.prepared.text, spec))
	}
	return nil
}

// Stop implements port.ContainerRuntime.
func (r *Runtime) Stop(ctx context.Context, backendID string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	rec, known := r.records.get(backendID)
	switch {
	case !known:
		return port.ErrNoContainer
	case rec.Phase == over:
		return nil
	}
	l, err := r.connection(ctx)
	if err != nil {
		return err
	}
	ran, err := l.terminate(ctx, backendID, false)
	if err != nil {
		return fmt.Errorf("stop %s: %w", backendID, err)
	}
	if !ran && rec.Phase == running { // an asked one may come to run yet
		r.ended(backendID, nil, false)
	}
	return nil
}

// Kill implements port.ContainerRuntime.
func (r *Runtime) Kill(ctx context.Context, backendID string) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		rec, known, changed := r.records.watch(backendID)
		switch {
		case !known:
			return port.ErrNoContainer
		case rec.Phase == over:
			return nil
		}
		l, err := r.connection(ctx)
		if err != nil {
			return err
		}
		ran, err := l.terminate(ctx, backendID, true)
		if err != nil {
			return fmt.Errorf("kill %s: %w", backendID, err)
		}
		if !ran {
			r.ended(backendID, nil, false)
			return nil
		}
		if err := awaitEnd(ctx, changed); err != nil {
			return err
		}
	}
}

// Remove implements port.ContainerRuntime. The executor keeps nothing for an
// ended backend that could be removed from here.
func (r *Runtime) Remove(ctx context.Context, backendID string) error {
	err := r.Kill(ctx, backendID)
	if errors.Is(err, port.ErrNoContainer) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := r.records.remove(backendID); err != nil {
		return fmt.Errorf("remove %s: %w", backendID, err)
	}
	return nil
}

// Inspect implements port.ContainerRuntime.
func (r *Runtime) Inspect(ctx context.Context, backendID string) (port.Container, error) {
	if ctx.Err() != nil {
		return port.Container{}, context.Cause(ctx)
	}
	rec, known := r.records.get(backendID)
	if !known {
		return port.Container{}, port.ErrNoContainer
	}
	if rec.Phase == running {
		if _, err := r.connection(ctx); err != nil {
			return port.Container{}, fmt.Errorf("%s: %w: %w", backendID, errUnknown, err)
		}
		if rec, known = r.records.get(backendID); !known { // things happen while one waits
			return port.Container{}, port.ErrNoContainer
		}
	}
	return r.container(backendID, rec), nil
}

// container is what a record says. One that was asked for and not answered is
// like one that is created and has not run: the next Start settles it.
func (r *Runtime) container(backendID string, rec record) port.Container {
	c := port.Container{
		BackendID: backendID, ID: rec.ContainerID, Running: rec.Phase == running, Started: rec.Phase != asked, ExitCode: rec.ExitCode,
	}
	if rec.Port != 0 {
		c.Address = r.address(rec.Port)
	}
	return c
}

// List implements port.ContainerRuntime. What it lists as running was so by the
// executor's last word, over a connection that stands.
func (r *Runtime) List(ctx context.Context) ([]port.Container, error) {
	if _, err := r.connection(ctx); err != nil {
		return nil, fmt.Errorf("list backends: %w", err)
	}
	all := r.records.snapshot()
	var list []port.Container
	for _, id := range slices.Sorted(maps.Keys(all)) {
		list = append(list, r.container(id, all[id]))
	}
	return list, nil
}

// Exits implements port.ContainerRuntime.
func (r *Runtime) Exits(ctx context.Context) (string, error) { return r.exits.next(ctx) }

// Stats implements port.ContainerRuntime: what the last MetricsMessage said.
func (r *Runtime) Stats(ctx context.Context, backendID string) (port.Stats, error) {
	if ctx.Err() != nil {
		return port.Stats{}, context.Cause(ctx)
	}
	if rec, known := r.records.get(backendID); !known || rec.Phase != running {
		return port.Stats{}, port.ErrNoContainer
	}
	if _, err := r.connection(ctx); err != nil {
		return port.Stats{}, fmt.Errorf("measure %s: %w", backendID, err)
	}
	s, ok := r.stats.get(backendID)
	if !ok {
		return port.Stats{}, fmt.Errorf("measure %s: the executor has sent no MetricsMessage yet", backendID)
	}
	return s, nil
}

// Prune implements port.ContainerRuntime: images are the executor's business.
func (r *Runtime) Prune(context.Context) error { return nil }
