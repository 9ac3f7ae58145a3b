package guard

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

// Launcher starts a guard that outlives the caller.
type Launcher interface {
	// Launch returns once a guard is being started; it does not wait until that
	// can be reached. Harmless when one is at work: a second one ends at once.
	Launch(ctx context.Context) error
}

// ProcessLauncher starts the guard as a detached process: this program again.
// It is in a session of its own, so that what ends the agent's terminal or
// process group does not end it. A service supervisor that ends all processes
// of a service has to be told to spare it (systemd: KillMode=process).
type ProcessLauncher struct {
	Dir  string   // as in Config; gets guard.log
	Args []string // of the program: Command, and what it needs to find its way
}

// Launch implements Launcher.
func (l ProcessLauncher) Launch(context.Context) error {
	log, err := openLog(filepath.Join(l.Dir, "guard.log"))
	if err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe", l.Args...) //nolint:noctx // it outlives the context and this process
	cmd.Args[0] = "plane"
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "GOMAXPROCS=2", "GOMEMLIMIT=24MiB")
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := errors.Join(cmd.Start(), log.Close()); err != nil {
		return err
	}
	go cmd.Wait() //nolint:errcheck // so that it does not stay a zombie; that it ended is seen at its socket
	return nil
}

// maxLog is the size past which a guard's log begins anew.
const maxLog = 1 << 20

func openLog(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() > maxLog {
		err = f.Truncate(0)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Engine is what a sibling container needs of the container engine.
type Engine interface {
	// Mounts returns where in the container its volumes and bind mounts are.
	Mounts(ctx context.Context, containerID string) ([]string, error)
	// StartSibling makes sure that a container of this name runs, which is like
	// another one in its image, mounts, environment, user and network, but runs
	// cmd (a program of the image, and its arguments) and has the restart policy
	// unless-stopped. One that is there and does not run is started, one that
	// was made from something else is replaced; harmless when it runs.
	StartSibling(ctx context.Context, name, like string, cmd []string) error
}

// SiblingLauncher starts the guard as a container beside the agent's, which the
// engine starts again should it end, whatever becomes of the agent's container.
// Its Config needs Stay. It is there until a person removes it.
type SiblingLauncher struct {
	Engine  Engine
	Name    string   // of the container
	Self    string   // the agent's container; see OwnContainer
	Command []string // the program, and its arguments
	// Shared are the paths in the agent's container that have to outlive it: what
	// the guard needs, Dir of its Config first of all, and what the next agent
	// has to find again.
	Shared []string
}

// Launch implements Launcher. A guard container that runs but is not like the
// agent's is replaced, so an agent that has been upgraded calls it at its start.
func (l SiblingLauncher) Launch(ctx context.Context) error {
	mounts, err := l.Engine.Mounts(ctx, l.Self)
	if err != nil {
		return fmt.Errorf("inspect the agent's own container: %w", err)
	}
	var missing []string
	for _, path := range l.Shared {
		flag := fmt.Sprintf("-v %s:%[1]s", path)
		if !within(path, mounts) && !slices.Contains(missing, flag) {
			missing = append(missing, flag)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("the agent runs in a container, and some of what it needs would end with it or be hidden from its lease guard, which runs in a container beside it: start it with %s, or with a volume there or above", strings.Join(missing, " "))
	}
	return l.Engine.StartSibling(ctx, l.Name, l.Self, l.Command)
}

// within tells whether a path lies in a mount, whatever links lead there.
func within(path string, mounts []string) bool {
	path = resolved(path)
	for _, m := range mounts {
		if rest, err := filepath.Rel(resolved(m), path); err == nil && rest != ".." && !strings.HasPrefix(rest, "../") {
			return true
		}
	}
	return false
}

// resolved follows the symbolic links in as much of the path as there is.
func resolved(path string) string {
	path = filepath.Clean(path)
	if followed, err := filepath.EvalSymlinks(path); err == nil {
		return followed
	}
	if path == filepath.Dir(path) {
		return path
	}
	return filepath.Join(resolved(filepath.Dir(path)), filepath.Base(path))
}

// OwnContainer tells whether this process runs in a container, and in which. It
// fails when it does, but which one cannot be found out.
func OwnContainer() (id string, inContainer bool, err error) {
	var proc [2]string
	for i, path := range []string{"/proc/self/mountinfo", "/proc/self/cgroup"} {
		b, err := os.ReadFile(path)
		if err != nil {
			return "", false, fmt.Errorf("find out whether this is a container: %w", err)
		}
		proc[i] = string(b)
	}
	id = containerID(proc[0], proc[1])
	marked, err := exists("/.dockerenv", "/run/.containerenv")
	if err != nil || id != "" || !marked {
		return id, id != "" || marked, err
	}
	return "", true, errors.New("this is a container, but which one cannot be found out: /proc/self/mountinfo and /proc/self/cgroup do not name it")
}

func exists(paths ...string) (bool, error) {
	for _, path := range paths {
		_, err := os.Stat(path)
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return false, nil
}

// Engines mount files of theirs into each container from a directory that is
// named after it; with cgroup v1, or the host's cgroup namespace, the cgroup is
// named after it too.
var (
	mountOfContainer  = regexp.MustCompile(`[/-]containers/([0-9a-f]{64})/\S* /etc/(?:hostname|hosts|resolv\.conf) `)
	cgroupOfContainer = regexp.MustCompile(`(?m)^\d+:[^:]*:.*[/-]([0-9a-f]{64})(?:\.scope)?$`)
)

// containerID finds the container's name in the text of /proc/self/mountinfo or
// /proc/self/cgroup; empty when there is none.
func containerID(mountinfo, cgroup string) string {
	for _, m := range [][]string{mountOfContainer.FindStringSubmatch(mountinfo), cgroupOfContainer.FindStringSubmatch(cgroup)} {
		if m != nil {
			return m[1]
		}
	}
	return ""
}
