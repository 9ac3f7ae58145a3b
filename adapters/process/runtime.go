// Package process runs backends as ordinary processes of this machine, for
// development where there is no container engine. It isolates nothing: a
// backend sees the machine's files, network and processes, may use all of its
// memory, and can do whatever the user can who runs the drone. Nothing may
// choose it unless a person has asked for it.
//
// Each backend has a directory, and a supervisor: the program of the drone
// again, under a hidden subcommand (see Supervise), which outlives the agent,
// gathers every process that descends from the backend, ends them all when the
// backend's own process ends, and writes down how it ended. A supervisor holds
// a lock on the directory for as long as it lives, so an agent that starts
// finds by the lock what runs. A backend whose supervisor was killed has ended.
//
// The methods of Runtime may be called from any goroutine. When something
// fails, what is in the directory and runs on the machine still counts, and
// List tells it. Directories are readable by their owner only: they hold the
// backends' environment.
package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"plane/system/name"
	"plane/system/port"
	"plane/system/protocol"
)

// Config says where processes keep their state and serve.
type Config struct {
	// Dir is where backends have their directories: this drone's alone.
	Dir string
	// IP is the machine's address, as proxies reach it.
	IP netip.Addr
	// Log gets what goes wrong between the calls.
	Log *slog.Logger
}

// Runtime runs backends as processes; it implements port.ContainerRuntime.
type Runtime struct {
	config Config
	dirs   dirs
	starts turns
	exits  exits
}

// Open takes up the backends that run in the directory.
func Open(c Config) (*Runtime, error) {
	if !c.IP.IsValid() {
		return nil, errors.New("process runtime: the address of this machine is missing")
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, fmt.Errorf("process runtime: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("process runtime: %w", err)
	}
	r := &Runtime{config: c, dirs: dirs(dir), exits: newExits()}
	if err := r.dirs.sweep(); err != nil {
		return nil, fmt.Errorf("process runtime: %w", err)
	}
	if _, err := r.List(context.Background()); err != nil {
		return nil, fmt.Errorf("process runtime: %w", err)
	}
	return r, nil
}

// Close stops watching. Backends go on.
func (r *Runtime) Close() { r.exits.close() }

// Validate implements port.ContainerRuntime.
func (r *Runtime) Validate(spec port.ContainerSpec) error {
	_, err := describe(spec)
	return err
}

// describe turns the spec into what a supervisor needs to know.
func describe(spec port.ContainerSpec) (description, error) {
	if err := name.Validate(name.Backend, spec.BackendID); err != nil {
		return description{}, fmt.Errorf("%w: %w", port.ErrBadExecutable, err)
	}
	e, err := protocol.ParseProcessExecutable(spec.Executable)
	if err != nil {
		return description{}, fmt.Errorf("%w: %w", port.ErrBadExecutable, err)
	}
	session := protocol.Session{
		BackendID: spec.BackendID, KeyName: spec.Key.Name, FencingToken: spec.FencingToken,
		StaticToken: spec.StaticToken, Port: spec.Port,
	}
	return description{Command: e.Command, Env: append(inherited(), session.Environ(e.Env)...), Port: spec.Port}, nil
}

// inherited is what a backend gets of the agent's environment. What the request
// asks for comes after it, and wins.
func inherited() []string {
	var env []string
	for _, k := range []string{"PATH", "HOME", "LANG", "TMPDIR"} {
		if v, ok := os.LookupEnv(k); ok {
			env = append(env, k+"="+v)
		}
	}
	return env
}

// Pull implements port.ContainerRuntime: a program is there or is not.
func (r *Runtime) Pull(ctx context.Context, spec port.ContainerSpec, _ func(string)) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return r.Validate(spec)
}

// Start implements port.ContainerRuntime.
func (r *Runtime) Start(ctx context.Context, spec port.ContainerSpec) (port.Container, error) {
	d, err := describe(spec)
	if err != nil {
		return port.Container{}, err
	}
	done, err := r.starts.turn(ctx, spec.BackendID)
	if err != nil {
		return port.Container{}, err
	}
	defer done()
	if err := r.dirs.create(spec.BackendID); err != nil {
		return port.Container{}, fmt.Errorf("start %s: %w", spec.BackendID, err)
	}
	if c, err := r.Inspect(ctx, spec.BackendID); err != nil || c.Started {
		return c, err
	}
	vacant, err := isVacant(ctx, spec.Port)
	if err != nil {
		return port.Container{}, fmt.Errorf("start %s: %w", spec.BackendID, err)
	}
	if !vacant {
		return port.Container{}, fmt.Errorf("start %s: port %d: %w", spec.BackendID, spec.Port, port.ErrPortTaken)
	}
	if err := r.dirs.describe(spec.BackendID, d); err != nil {
		return port.Container{}, fmt.Errorf("start %s: %w", spec.BackendID, err)
	}
	if err := startSupervisor(ctx, r.dirs.of(spec.BackendID)); err != nil {
		return port.Container{}, fmt.Errorf("start %s: %w", spec.BackendID, err)
	}
	c, err := r.Inspect(ctx, spec.BackendID)
	if err == nil && !c.Started {
		return port.Container{}, fmt.Errorf("start %s: it was being ended meanwhile", spec.BackendID)
	}
	return c, err
}

// isVacant reports whether nothing listens on the port, on any address.
func isVacant(ctx context.Context, p int) (bool, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", ":"+strconv.Itoa(p))
	if errors.Is(err, syscall.EADDRINUSE) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, l.Close()
}

// Stop implements port.ContainerRuntime.
func (r *Runtime) Stop(ctx context.Context, backendID string) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s, err := r.dirs.look(backendID)
	if err != nil {
		return err
	}
	if !s.running() {
		return nil
	}
	if err := s.supervisor.signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop %s: %w", backendID, err)
	}
	return nil
}

// Kill implements port.ContainerRuntime.
func (r *Runtime) Kill(ctx context.Context, backendID string) error {
	return r.dirs.kill(ctx, backendID)
}

// Remove implements port.ContainerRuntime.
func (r *Runtime) Remove(ctx context.Context, backendID string) error {
	err := r.dirs.remove(ctx, backendID)
	if errors.Is(err, port.ErrNoContainer) {
		return nil
	}
	return err
}

// Inspect implements port.ContainerRuntime.
func (r *Runtime) Inspect(ctx context.Context, backendID string) (port.Container, error) {
	if ctx.Err() != nil {
		return port.Container{}, context.Cause(ctx)
	}
	s, err := r.dirs.look(backendID)
	if err != nil {
		return port.Container{}, err
	}
	c := port.Container{
		BackendID: backendID,
		Running:   s.running(),
		Started:   s.started,
		ExitCode:  s.exitCode,
	}
	if s.port != 0 {
		c.Address = netip.AddrPortFrom(r.config.IP, uint16(s.port)).String() //nolint:gosec // a port
	}
	if s.started {
		c.ID = fmt.Sprintf("%d-%d", s.supervisor.PID, s.supervisor.Start)
	}
	if c.Running {
		r.watch(backendID, s.supervisor)
	}
	return c, nil
}

// List implements port.ContainerRuntime.
func (r *Runtime) List(ctx context.Context) ([]port.Container, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	entries, err := os.ReadDir(string(r.dirs)) // in order of name
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var all []port.Container
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue // one that is being made or removed
		}
		c, err := r.Inspect(ctx, e.Name())
		if errors.Is(err, port.ErrNoContainer) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list processes: %w", err)
		}
		all = append(all, c)
	}
	return all, nil
}

// Prune implements port.ContainerRuntime: there are no images.
func (r *Runtime) Prune(context.Context) error { return nil }

// Stats implements port.ContainerRuntime.
func (r *Runtime) Stats(ctx context.Context, backendID string) (port.Stats, error) {
	if ctx.Err() != nil {
		return port.Stats{}, context.Cause(ctx)
	}
	s, err := r.dirs.look(backendID)
	if err != nil {
		return port.Stats{}, err
	}
	if !s.running() {
		return port.Stats{}, port.ErrNoContainer
	}
	stats, err := measure(s.supervisor)
	if err != nil {
		return port.Stats{}, fmt.Errorf("measure %s: %w", backendID, err)
	}
	return stats, nil
}

// Killer ends backends of a directory without taking them up: the lease guard's
// hand.
type Killer struct{ Dir string }

// Kill ends the backend and all its processes, and blocks until that is done.
// Nil when there is no such backend.
func (k Killer) Kill(ctx context.Context, backendID string) error {
	dir, err := filepath.Abs(k.Dir)
	if err != nil {
		return err
	}
	err = dirs(dir).kill(ctx, backendID)
	if errors.Is(err, port.ErrNoContainer) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
