// Package guard makes leases hold while a drone's agent is dead. The guard is a
// process of its own (or, where the agent runs in a container, a sibling
// container) that the agent tells of each backend's hard deadline. It outlives
// the agent, and kills through the engine what has passed its deadline, again
// and again until the engine has obeyed.
//
// The guard owns a directory: one small file for each backend, with its
// deadline as a time since boot, which nobody can set. Only the guard writes
// there, and a lock sees to it that there is one guard. The agent talks to it
// over a Unix socket in the directory. When Set has returned nil, the deadline
// is on disk and a living guard has it in memory.
//
// When the guard dies, the agent notices and starts another, which reads the
// directory; while there is none, Set fails. When the disk fails, Set fails,
// and what is guarded already stays so. A kill that fails is tried again. The
// guard ends by itself once no agent is connected and it guards nothing.
//
// The methods of Client may be called from any goroutine.
package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"plane/adapters/internal/durable"
	"plane/system/name"
	"plane/system/port"
)

// Command is the hidden subcommand under which the program has to call Run.
const Command = "internal-guard"

// ErrRunning: the directory has a living guard already.
var ErrRunning = errors.New("another guard is at work here")

// Machine is the machine's time since boot.
type Machine interface {
	SinceBoot() time.Duration
	BootID() string
}

// Killer ends backends through the engine.
type Killer interface {
	// Kill ends the backend at once and blocks until it has ended. When it has
	// no process any more, it returns nil or port.ErrNoContainer.
	Kill(ctx context.Context, backendID string) error
}

// Config says what a guard works with. Zero durations mean the defaults.
type Config struct {
	Dir     string // this drone's guard's alone
	Machine Machine
	Killer  Killer
	Log     *slog.Logger
	// Stay keeps the guard from ending by itself, for a sibling container whose
	// engine would only start it again.
	Stay bool

	KillTimeout  time.Duration // of one attempt; default 10 s
	RetryEvery   time.Duration // after a kill that failed; default 500 ms
	RecheckEvery time.Duration // after one that worked; default 5 s
	// Linger is how long after its deadline a backend is killed again should
	// it appear: a start may be under way in the engine; default 30 s.
	Linger time.Duration
	// IdleAfter is how long the guard waits for an agent when it has nothing to
	// guard; default 10 s.
	IdleAfter time.Duration
}

func (c Config) withDefaults() Config {
	for d, value := range map[*time.Duration]time.Duration{
		&c.KillTimeout: 10 * time.Second, &c.RetryEvery: 500 * time.Millisecond, &c.RecheckEvery: 5 * time.Second,
		&c.Linger: 30 * time.Second, &c.IdleAfter: 10 * time.Second,
	} {
		if *d == 0 {
			*d = value
		}
	}
	return c
}

// longestNap bounds a timer, for Go's do not count while the machine is
// suspended.
const longestNap = time.Second

// Run is the body of the guard's process. It blocks until there is nothing to
// guard and nobody to guard for, or the context ends. The signals by which
// terminals and service supervisors end a process do not end it: what it
// guards would be left alone.
func Run(ctx context.Context, c Config) error {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	lock, err := durable.Lock(filepath.Join(c.Dir, "lock"))
	if errors.Is(err, durable.ErrLocked) {
		return ErrRunning
	}
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	defer durable.Unlock(lock) //nolint:errcheck // the process ends, or the test
	dropped := make(chan os.Signal, 1)
	signal.Notify(dropped, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(dropped)
	if err := errors.Join(lock.Truncate(0), writeString(lock, strconv.Itoa(os.Getpid()))); err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	spareFromOOM(c.Log)

	g, err := open(c)
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l, err := listen(c.Dir)
	if err != nil {
		return fmt.Errorf("guard: %w", err)
	}
	defer l.Close() //nolint:errcheck // the process ends, or the test
	go func() { cancel(g.serve(l)) }()
	return g.run(ctx)
}

func writeString(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

// spareFromOOM asks the kernel to end others first when memory runs out. Only
// root may ask.
func spareFromOOM(log *slog.Logger) {
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-900"), 0); err != nil {
		log.Debug("the guard may be ended like any other process when memory runs out", "error", err)
	}
}

// guard is the state of the guard's process.
type guard struct {
	Config
	table   table
	changed chan struct{} // something that run has to look at

	writing sync.Mutex // held while the table is written; taken before mu

	mu      sync.Mutex
	entries map[string]*entry
	agents  int
	idle    time.Duration // since when there is nothing to do
	ending  bool
}

// entry is a guarded backend. Times are since boot.
type entry struct {
	deadline time.Duration
	due      time.Duration // when to kill next
	killing  bool          // an attempt is under way
	obeyed   bool          // an attempt has worked
}

func open(c Config) (*guard, error) {
	g := &guard{Config: c.withDefaults(), table: table(filepath.Join(c.Dir, "deadlines")), changed: make(chan struct{}, 1), entries: map[string]*entry{}}
	g.idle = g.Machine.SinceBoot()
	deadlines, err := g.table.load(g.Machine.BootID(), g.Log)
	if err != nil {
		return nil, err
	}
	for id, deadline := range deadlines {
		g.entries[id] = &entry{deadline: deadline, due: deadline}
	}
	return g, nil
}

// errEnding refuses an agent that came too late.
var errEnding = errors.New("the guard is about to end")

// set guards a backend of this boot.
func (g *guard) set(backendID, boot string, deadline time.Duration) error {
	if err := name.Validate(name.Backend, backendID); err != nil {
		return err
	}
	if boot != g.Machine.BootID() {
		return fmt.Errorf("the agent counts in another boot of the machine (%s) than the guard (%s)", boot, g.Machine.BootID())
	}
	g.writing.Lock()
	defer g.writing.Unlock()
	if err := g.table.put(backendID, boot, deadline); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ending {
		return errEnding
	}
	e := g.entries[backendID]
	if e == nil {
		e = &entry{}
		g.entries[backendID] = e
	}
	e.deadline, e.due, e.obeyed = deadline, deadline, false
	g.wake()
	return nil
}

// clear ends the guarding of a backend.
func (g *guard) clear(backendID string) error {
	if err := name.Validate(name.Backend, backendID); err != nil {
		return err
	}
	g.writing.Lock()
	defer g.writing.Unlock()
	if err := g.table.remove(backendID); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forget(backendID)
	return nil
}

// forget drops an entry; mu is held.
func (g *guard) forget(backendID string) {
	delete(g.entries, backendID)
	g.idle = g.Machine.SinceBoot()
	g.wake()
}

// arrive and leave count the agents that are connected.
func (g *guard) arrive() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.agents++
}

func (g *guard) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.agents--
	g.idle = g.Machine.SinceBoot()
	g.wake()
}

// dismiss ends the guard, if the one agent that asks for it is all that keeps
// it.
func (g *guard) dismiss() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.agents == 1 && len(g.entries) == 0 && !g.Stay {
		g.ending = true
		g.wake()
	}
	return g.ending
}

func (g *guard) wake() {
	select {
	case g.changed <- struct{}{}:
	default: // run looks at everything when it wakes
	}
}

// run kills what is due until there is nothing left to do.
func (g *guard) run(ctx context.Context) error {
	var kills sync.WaitGroup
	defer kills.Wait()
	for {
		nap, done := g.step(func(backendID string) {
			kills.Go(func() { g.kill(ctx, backendID) })
		})
		if done {
			return nil
		}
		timer := time.NewTimer(nap)
		select {
		case <-timer.C:
		case <-g.changed:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

// step starts the kills that are due, and says when to look again.
func (g *guard) step(kill func(backendID string)) (nap time.Duration, done bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.Machine.SinceBoot()
	nap = longestNap
	if len(g.entries) == 0 {
		nap = g.IdleAfter
	}
	for _, id := range slices.Sorted(maps.Keys(g.entries)) {
		switch e := g.entries[id]; {
		case e.killing:
		case e.due <= now:
			e.killing = true
			kill(id)
		default:
			nap = min(nap, e.due-now)
		}
	}
	if len(g.entries) == 0 && g.agents == 0 && !g.Stay && now-g.idle >= g.IdleAfter {
		g.ending = true
	}
	return nap, g.ending
}

// kill makes one attempt.
func (g *guard) kill(ctx context.Context, backendID string) {
	attempt, cancel := context.WithTimeout(ctx, g.KillTimeout)
	defer cancel()
	err := g.Killer.Kill(attempt, backendID)
	if g.note(backendID, err) {
		g.retire(backendID)
	}
}

// note takes down how an attempt went, and reports whether the backend is gone
// for good.
func (g *guard) note(backendID string, err error) (gone bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	defer g.wake()
	e := g.entries[backendID]
	if e == nil {
		return false // cleared meanwhile
	}
	e.killing = false
	now := g.Machine.SinceBoot()
	late := now - e.deadline
	switch {
	case late < 0: // it was given a later deadline meanwhile
	case err != nil && !errors.Is(err, port.ErrNoContainer):
		e.due = now + g.RetryEvery
		g.Log.Error("cannot kill a backend past its lease; trying again", "backend", backendID, "late", late, "error", err)
	default:
		if err == nil && !e.obeyed {
			g.Log.Warn("killed a backend past its lease", "backend", backendID, "late", late)
		}
		e.obeyed = true
		e.due = now + g.RecheckEvery
		return late >= g.Linger
	}
	return false
}

// retire forgets a backend that is gone, unless it was given a later deadline
// meanwhile. It waits for the disk, which kills never do.
func (g *guard) retire(backendID string) {
	g.writing.Lock() // so that nobody else changes the entry
	defer g.writing.Unlock()
	g.mu.Lock()
	e := g.entries[backendID]
	stays := e == nil || g.Machine.SinceBoot()-e.deadline < g.Linger
	g.mu.Unlock()
	if stays {
		return
	}
	if err := g.table.remove(backendID); err != nil {
		g.Log.Error("cannot forget a backend that is gone; trying again", "backend", backendID, "error", err)
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forget(backendID)
}
