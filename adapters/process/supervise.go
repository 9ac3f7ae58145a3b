package process

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"plane/adapters/internal/durable"
	"plane/system/port"
)

// SuperviseCommand is the hidden subcommand under which the program has to call
// Supervise with its one argument.
const SuperviseCommand = "internal-supervise"

// report is what a supervisor tells whoever started it, on descriptor 3, once.
type report struct {
	Error string
	Bad   bool // the command itself is at fault
}

const reportFD = 3

// startSupervisor runs the backend of the directory under a supervisor, and
// blocks until it runs. When the context ends before, it may run or not.
func startSupervisor(ctx context.Context, dir string) error {
	here, there, err := os.Pipe()
	if err != nil {
		return err
	}
	defer here.Close()                                           //nolint:errcheck // only read from
	cmd := exec.Command("/proc/self/exe", SuperviseCommand, dir) //nolint:noctx // it outlives the context and this process
	cmd.Args[0] = "plane"
	cmd.Env = append(inherited(), "GOMAXPROCS=2", "GOMEMLIMIT=24MiB")
	cmd.ExtraFiles = []*os.File{there}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = errors.Join(cmd.Start(), there.Close())
	if err != nil {
		return fmt.Errorf("start supervisor: %w", err)
	}
	go cmd.Wait()                                                               //nolint:errcheck // so that it does not stay a zombie; how the backend ended is in its directory
	stop := context.AfterFunc(ctx, func() { here.SetReadDeadline(time.Now()) }) //nolint:errcheck // a pipe has deadlines
	defer stop()
	var r report
	if err := json.NewDecoder(here).Decode(&r); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("the supervisor ended before it had started the command: %w", err)
	}
	switch {
	case r.Bad:
		return fmt.Errorf("%w: %s", port.ErrBadExecutable, r.Error)
	case r.Error != "":
		return errors.New(r.Error)
	}
	return nil
}

// Supervise is the body of the hidden subcommand: it runs the backend of a
// directory until it ends, and returns the exit code of the supervisor.
// Descriptor 3 gets a report once the backend runs, or does not. It takes over
// the whole process: its signals, its children and the calling thread.
func Supervise(dir string) int {
	unix.CloseOnExec(reportFD)
	tell := os.NewFile(reportFD, "report")
	err := supervise(dir, func(r report) {
		// Nobody may be there any more to read it.
		_ = json.NewEncoder(tell).Encode(r)
		_ = tell.Close()
	})
	if err != nil {
		return 1
	}
	return 0
}

func supervise(dir string, tell func(report)) error {
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR, 0)
	if err != nil {
		tell(report{Error: err.Error()})
		return err
	}
	defer lock.Close() //nolint:errcheck // nothing is written to it
	err = durable.LockFile(lock)
	if errors.Is(err, durable.ErrLocked) {
		tell(report{}) // another supervisor was quicker, or the backend is being ended
		return nil
	}
	s := &supervisor{dir: dir}
	if err == nil {
		err = s.start()
	}
	switch {
	case errors.Is(err, errRan):
		tell(report{})
		return nil
	case err != nil:
		tell(report{Error: err.Error(), Bad: errors.Is(err, port.ErrBadExecutable)})
		return err
	}
	tell(report{})
	return s.attend()
}

var errRan = errors.New("the backend has run before")

type supervisor struct {
	dir    string
	pid    int // of the backend's own process
	output *output
}

// start starts the backend's own process.
func (s *supervisor) start() error {
	if _, err := os.Stat(filepath.Join(s.dir, startedFile)); err == nil {
		return errRan
	}
	var d description
	known, err := readJSON(filepath.Join(s.dir, specFile), &d)
	if err != nil || !known {
		return errors.Join(err, errors.New("nothing says what to start"))
	}
	// What loses its parent comes to this process, not to init.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the reaper: %w", err)
	}
	stop := make(chan os.Signal, 8)
	signal.Notify(stop, syscall.SIGTERM)
	// Caught and dropped: what is ignored would be ignored by the backend too.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGHUP)

	self, err := processOf(os.Getpid())
	if err != nil {
		return err
	}
	if s.output, err = openOutput(filepath.Join(s.dir, outputFile)); err != nil {
		return err
	}
	started := filepath.Join(s.dir, startedFile)
	if err := writeJSON(started, self.processID); err != nil {
		return err
	}
	if err := s.fork(d); err != nil {
		return errors.Join(err, durable.Remove(started))
	}
	go func() {
		for range stop {
			// The group may have ended just now; then there is nobody to tell.
			_ = syscall.Kill(-s.pid, syscall.SIGTERM)
		}
	}()
	return nil
}

func (s *supervisor) fork(d description) error {
	env := append(d.Env, marker+s.dir)
	program, err := lookPath(d.Command[0], d.Env)
	if err != nil {
		return fmt.Errorf("%w: command: %w", port.ErrBadExecutable, err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close() //nolint:errcheck // only read from
	// The backend is killed when this thread ends, which is when this process
	// is killed.
	runtime.LockOSThread()
	p, err := os.StartProcess(program, d.Command, &os.ProcAttr{
		Dir:   filepath.Join(s.dir, workDir),
		Env:   env,
		Files: []*os.File{null, s.output.in, s.output.in},
		Sys:   &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL},
	})
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOEXEC) || errors.Is(err, syscall.E2BIG) {
			err = fmt.Errorf("%w: command: %w", port.ErrBadExecutable, err)
		}
		return err
	}
	s.pid = p.Pid
	return errors.Join(s.output.in.Close(), p.Release()) // it is waited for below, with all the others
}

// lookPath finds a program as a shell would that has the backend's environment.
func lookPath(program string, env []string) (string, error) {
	if strings.ContainsRune(program, '/') {
		return program, nil
	}
	var path string
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	for _, dir := range filepath.SplitList(path) {
		file := filepath.Join(dir, program)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", fmt.Errorf("%q is not in the PATH", program)
}

// attend waits for the end of the backend's own process, ends all others, and
// writes down how it ended.
func (s *supervisor) attend() error {
	var end exit
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if pid == s.pid {
			end.Code = status.ExitStatus()
			if status.Signaled() {
				end.Code = 128 + int(status.Signal())
			}
			break
		}
	}
	if err := reapAll(); err != nil {
		return err
	}
	logged := s.output.wait()
	return errors.Join(writeJSON(filepath.Join(s.dir, exitFile), end), logged)
}

// reapAll kills all descendants and waits for them. What one of them forks
// before it dies comes to this process, and is killed in the next round.
func reapAll() error {
	for {
		all, err := processes()
		if err != nil {
			return err
		}
		for _, p := range descendants(os.Getpid(), all) {
			if p.zombie {
				continue
			}
			if err := p.signal(syscall.SIGKILL); err != nil {
				return err
			}
		}
		_, err = syscall.Wait4(-1, nil, 0, nil)
		if errors.Is(err, syscall.ECHILD) {
			return nil
		}
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// output keeps the last of what a backend writes, between maxOutput and twice
// that.
type output struct {
	in   *os.File // for the backend
	done chan error
}

const maxOutput = 1 << 20

func openOutput(path string) (*output, error) {
	out, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	o := &output{in: in, done: make(chan error, 1)}
	go func() { o.done <- keep(out, path) }()
	return o, nil
}

// wait blocks until all that was written is in the file.
func (o *output) wait() error { return <-o.done }

// keep copies into the file, and begins anew when it is full, with the one
// before kept beside. It reads on when it cannot write, for the backend would
// hang.
func keep(from io.Reader, path string) error {
	for {
		err := errors.Join(rename(path, path+".1"), fill(path, from))
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			_, drained := io.Copy(io.Discard, from)
			return errors.Join(err, drained)
		}
	}
}

func rename(from, to string) error {
	if err := os.Rename(from, to); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// fill copies until the file is full (nil) or the input has ended (io.EOF).
func fill(path string, from io.Reader) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, from, maxOutput)
	return errors.Join(err, f.Close())
}
