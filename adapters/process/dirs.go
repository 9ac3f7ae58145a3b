package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"plane/adapters/internal/durable"
	"plane/system/name"
	"plane/system/port"
)

// The files in a backend's directory.
const (
	lockFile    = "lock"         // locked by the supervisor as long as it lives
	specFile    = "spec.json"    // a description: what to run
	startedFile = "started.json" // a processID: the supervisor's; the backend has run, or was about to
	exitFile    = "exit.json"    // an exit: how it ended
	outputFile  = "output.log"   // what it wrote to its output
	workDir     = "work"         // where it runs
)

type description struct {
	Command []string
	Env     []string
	Port    int
}

type exit struct{ Code int }

// dirs is the directory in which backends have theirs.
type dirs string

func (d dirs) of(backendID string) string { return filepath.Join(string(d), backendID) }

// sweep ends what was being made or removed when the agent stopped.
func (d dirs) sweep() error {
	half, err := filepath.Glob(filepath.Join(string(d), ".*"))
	for _, path := range half {
		err = errors.Join(err, os.RemoveAll(path))
	}
	return err
}

// create makes the backend's directory unless it is there.
func (d dirs) create(backendID string) error {
	if _, err := os.Stat(d.of(backendID)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	tmp, err := os.MkdirTemp(string(d), "."+backendID+".new.")
	if err != nil {
		return err
	}
	err = errors.Join(
		os.WriteFile(filepath.Join(tmp, lockFile), nil, 0o600),
		os.Mkdir(filepath.Join(tmp, workDir), 0o700),
	)
	if err == nil {
		err = os.Rename(tmp, d.of(backendID))
	}
	if errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTEMPTY) {
		err = nil // somebody else was quicker
	} else if err == nil {
		return durable.SyncDir(string(d))
	}
	return errors.Join(err, os.RemoveAll(tmp))
}

// describe says what is to run. Without effect while a supervisor is at work.
func (d dirs) describe(backendID string, desc description) error {
	lock, err := d.lock(backendID)
	if errors.Is(err, durable.ErrLocked) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(writeJSON(filepath.Join(d.of(backendID), specFile), desc), durable.Unlock(lock))
}

// situation is what is known of a backend.
type situation struct {
	port       int
	supervised bool // a supervisor lives
	started    bool
	supervisor processID // once started
	ended      bool
	exitCode   *int
}

func (s situation) running() bool { return s.started && !s.ended }

// look reads the backend's directory; ErrNoContainer when there is none.
func (d dirs) look(backendID string) (situation, error) {
	var s situation
	if name.Validate(name.Backend, backendID) != nil {
		return s, port.ErrNoContainer
	}
	// The lock first: a supervisor writes before it lets go of it.
	lock, err := d.openLock(backendID)
	if err != nil {
		return s, err
	}
	s.supervised, err = durable.Locked(lock)
	if err := errors.Join(err, lock.Close()); err != nil {
		return s, err
	}
	var desc description
	var end exit
	_, err = readJSON(d.file(backendID, specFile), &desc)
	if err != nil {
		return s, err
	}
	s.port = desc.Port
	if s.started, err = readJSON(d.file(backendID, startedFile), &s.supervisor); err != nil {
		return s, err
	}
	known, err := readJSON(d.file(backendID, exitFile), &end)
	if err != nil {
		return s, err
	}
	if known {
		s.exitCode = &end.Code
	}
	s.ended = known || s.started && !s.supervised
	if s.ended && !known {
		// The supervisor did not end in good order: neither may what it left.
		err = killMarked(d.of(backendID))
	}
	return s, err
}

func (d dirs) file(backendID, file string) string { return filepath.Join(d.of(backendID), file) }

// lock keeps supervisors away from the backend, or returns ErrLocked when there
// is one. ErrNoContainer when there is no such backend.
func (d dirs) lock(backendID string) (*os.File, error) {
	f, err := d.openLock(backendID)
	if err != nil {
		return nil, err
	}
	if err := durable.LockFile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func (d dirs) openLock(backendID string) (*os.File, error) {
	f, err := os.OpenFile(d.file(backendID, lockFile), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		err = port.ErrNoContainer
	}
	return f, err
}

// The pauses of kill: how often it looks again, and when it gives up on the
// supervisor and kills that too.
const (
	killEvery      = 10 * time.Millisecond
	killSupervisor = 2 * time.Second
)

// kill ends the backend with everything that descends from it.
func (d dirs) kill(ctx context.Context, backendID string) error {
	lock, err := d.seize(ctx, backendID)
	if err != nil {
		return err
	}
	return durable.Unlock(lock)
}

// seize kills the backend if it runs, waits until its supervisor has ended, and
// returns its lock.
func (d dirs) seize(ctx context.Context, backendID string) (*os.File, error) {
	if ctx.Err() == nil && name.Validate(name.Backend, backendID) != nil {
		return nil, port.ErrNoContainer
	}
	tick := time.NewTicker(killEvery)
	defer tick.Stop()
	patience := time.NewTimer(killSupervisor)
	defer patience.Stop()
	sparing := true
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		lock, err := d.lock(backendID)
		if err == nil {
			if _, err = os.Stat(d.of(backendID)); errors.Is(err, fs.ErrNotExist) {
				err = port.ErrNoContainer // removed since the lock was opened
			} else if err == nil {
				err = killMarked(d.of(backendID))
			}
			if err != nil {
				return nil, errors.Join(err, durable.Unlock(lock))
			}
			return lock, nil
		}
		if !errors.Is(err, durable.ErrLocked) {
			return nil, err
		}
		var supervisor processID
		if known, err := readJSON(d.file(backendID, startedFile), &supervisor); err != nil {
			return nil, err
		} else if known {
			if err := supervisor.killTree(!sparing); err != nil {
				return nil, fmt.Errorf("kill %s: %w", backendID, err)
			}
		}
		select {
		case <-tick.C:
		case <-patience.C:
			sparing = false
		case <-ctx.Done(): // seen above
		}
	}
}

// remove ends the backend and deletes its directory.
func (d dirs) remove(ctx context.Context, backendID string) error {
	lock, err := d.seize(ctx, backendID)
	if err != nil {
		return err
	}
	grave := filepath.Join(string(d), "."+backendID+".removed")
	err = errors.Join(os.RemoveAll(grave), os.Rename(d.of(backendID), grave), os.RemoveAll(grave))
	if err != nil {
		err = fmt.Errorf("remove %s: %w", backendID, err)
	}
	return errors.Join(err, durable.Unlock(lock))
}

func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return durable.WriteFile(path, b)
}

// readJSON reports whether the file is there.
func readJSON(path string, v any) (bool, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(b, v); err != nil {
		// The content may hold secrets, so it is not quoted.
		return false, fmt.Errorf("%s is damaged; remove the directory %s", filepath.Base(path), filepath.Dir(path))
	}
	return true, nil
}

// marker is the environment variable by which the processes of a backend are
// found when their supervisor is gone.
const marker = "PLANE_PROCESS_DIR="

func killMarked(dir string) error {
	for {
		found, err := marked(dir)
		if err != nil || len(found) == 0 {
			return err
		}
		for _, p := range found {
			if err := p.signal(syscall.SIGKILL); err != nil {
				return err
			}
		}
	}
}

// marked finds the living processes that carry the directory's mark.
func marked(dir string) ([]processID, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	var found []processID
	for _, p := range all {
		if p.zombie {
			continue
		}
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.PID))
		if err != nil {
			continue // it has ended, or belongs to another user and so not to us
		}
		if strings.Contains("\x00"+string(env), "\x00"+marker+dir+"\x00") {
			found = append(found, p.processID)
		}
	}
	return found, nil
}
