package guard_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"plane/adapters/clock"
	"plane/adapters/guard"
	"plane/adapters/internal/proctest"
	"plane/system/port"
)

var (
	_ port.Guard    = (*guard.Client)(nil)
	_ guard.Clock   = (*clock.Boot)(nil)
	_ guard.Machine = clock.Machine{}
)

// TestMain makes the test program the guard and the agent too.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 {
		switch os.Args[1] {
		case guard.Command:
			exit(runGuard(os.Args[2]))
		case "agent":
			exit(runAgent(os.Args[2]))
		}
	}
	os.Exit(m.Run())
}

func exit(err error) {
	if err != nil && !errors.Is(err, guard.ErrRunning) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// victims is an engine whose containers are processes; their numbers are in the
// directory's files.
type victims string

func (v victims) Kill(_ context.Context, backendID string) error {
	b, err := os.ReadFile(filepath.Join(string(v), backendID))
	if errors.Is(err, fs.ErrNotExist) {
		return port.ErrNoContainer
	}
	if err != nil {
		return err
	}
	pid, err := strconv.Atoi(string(b))
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); errors.Is(err, syscall.ESRCH) {
		return port.ErrNoContainer
	}
	return err
}

func runGuard(dir string) error {
	m, err := clock.NewMachine()
	if err != nil {
		return err
	}
	return guard.Run(context.Background(), guard.Config{
		Dir: filepath.Join(dir, "guard"), Machine: m, Killer: victims(filepath.Join(dir, "victims")),
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), IdleAfter: 500 * time.Millisecond, RecheckEvery: 100 * time.Millisecond, Linger: 300 * time.Millisecond,
	})
}

// lease is how long the agent of the tests guards its backend.
const lease = 700 * time.Millisecond

// runAgent guards a backend, says so, and waits to be killed.
func runAgent(dir string) error {
	b, err := clock.OpenBoot(filepath.Join(dir, "journal"))
	if err != nil {
		return err
	}
	c, err := start(context.Background(), dir, b, io.Discard)
	if err != nil {
		return err
	}
	deadline := b.Now().Add(lease)
	if err := c.Set(context.Background(), "b", deadline); err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, int64(b.BootTime(deadline)))
	select {}
}

func start(ctx context.Context, dir string, b *clock.Boot, log io.Writer) (*guard.Client, error) {
	state := filepath.Join(dir, "guard")
	return guard.Start(ctx, guard.ClientConfig{
		Dir: state, Clock: b, Log: slog.New(slog.NewTextHandler(log, nil)),
		Launcher: guard.ProcessLauncher{Dir: state, Args: []string{guard.Command, dir}},
		// The race detector makes processes slow to start.
		Confirm: 10 * time.Second,
	})
}

func newDir(t *testing.T) string {
	t.Helper()
	// Longer than a socket's address may be.
	dir := filepath.Join(t.TempDir(), "a-directory-whose-name-is-very-long-indeed-as-those-of-tests-and-of-volumes-tend-to-be")
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "victims"), 0o700))
	return dir
}

func client(t *testing.T, dir string) (*guard.Client, *clock.Boot) {
	t.Helper()
	b, err := clock.OpenBoot(filepath.Join(dir, "journal"))
	require.NoError(t, err)
	c, err := start(t.Context(), dir, b, t.Output())
	require.NoError(t, err)
	return c, b
}

// victim starts a process that is to be guarded, and returns what blocks until
// it has been killed and says when that was.
func victim(t *testing.T, dir, backendID string, boot clock.Machine) (killed func() time.Duration) {
	t.Helper()
	cmd := exec.Command("sleep", "20") // a guard that fails is told soon
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill() }) //nolint:errcheck // it may be gone
	require.NoError(t, os.WriteFile(filepath.Join(dir, "victims", backendID), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600))
	return func() time.Duration {
		require.ErrorContains(t, cmd.Wait(), "killed")
		return boot.SinceBoot()
	}
}

// living returns the guard's process as a file that can be waited for.
func living(t *testing.T, dir string) (pid int, ended func()) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "guard", "lock"))
	require.NoError(t, err)
	pid, err = strconv.Atoi(string(b))
	require.NoError(t, err)
	fd, err := unix.PidfdOpen(pid, 0)
	require.NoError(t, err)
	t.Cleanup(func() { unix.Close(fd) }) //nolint:errcheck // test
	return pid, func() {
		for {
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000)
			if !errors.Is(err, unix.EINTR) {
				require.NoError(t, err)
				return
			}
		}
	}
}

func TestTheLeaseHoldsWhileTheAgentIsDead(t *testing.T) {
	dir := newDir(t)
	m, err := clock.NewMachine()
	require.NoError(t, err)
	killed := victim(t, dir, "b", m)
	self, err := os.Executable()
	require.NoError(t, err)
	agent := exec.Command(self, "agent", dir)
	agent.Stderr = os.Stderr
	agent.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := agent.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, agent.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	deadline, err := strconv.ParseInt(line[:len(line)-1], 10, 64)
	require.NoError(t, err)
	pid, ended := living(t, dir)

	// The agent with its whole process group, and what the end of a session
	// sends to the guard too.
	require.NoError(t, syscall.Kill(-agent.Process.Pid, syscall.SIGKILL))
	require.Error(t, agent.Wait())
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		require.NoError(t, syscall.Kill(pid, s))
	}

	late := killed() - time.Duration(deadline)
	require.Positive(t, late, "not before the deadline")
	require.Less(t, late, 500*time.Millisecond)
	ended() // by itself, for there is nothing left to do
}

func TestADeadGuardIsReplaced(t *testing.T) {
	dir := newDir(t)
	m, err := clock.NewMachine()
	require.NoError(t, err)
	killed := victim(t, dir, "b", m)
	c, b := client(t, dir)
	require.NoError(t, c.Set(t.Context(), "b", b.Now().Add(time.Hour)))

	first, ended := living(t, dir)
	require.NoError(t, syscall.Kill(first, syscall.SIGKILL))
	ended()
	deadline := b.Now().Add(100 * time.Millisecond)
	require.NoError(t, c.Set(t.Context(), "b", deadline), "starts another")
	second, secondEnded := living(t, dir)
	require.NotEqual(t, first, second)
	require.Greater(t, killed(), b.BootTime(deadline))

	require.NoError(t, c.Clear(t.Context(), "b"))
	require.NoError(t, c.Close())
	secondEnded() // Close leaves nothing behind when there is nothing to guard
}

func TestTheNextGuardKnowsTheDeadlinesOfTheLast(t *testing.T) {
	dir := newDir(t)
	m, err := clock.NewMachine()
	require.NoError(t, err)
	killed := victim(t, dir, "b", m)
	c, b := client(t, dir)
	deadline := b.Now().Add(300 * time.Millisecond)
	require.NoError(t, c.Set(t.Context(), "b", deadline))
	pid, _ := living(t, dir)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	// No call: the client notices, and starts another.
	require.Greater(t, killed(), b.BootTime(deadline))
	require.NoError(t, c.Clear(t.Context(), "b"))
	require.NoError(t, c.Close())
}

func TestAFrozenGuardConfirmsNothing(t *testing.T) {
	dir := newDir(t)
	c, b := client(t, dir)
	pid, ended := living(t, dir)
	proctest.Freeze(t, pid)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, c.Set(ctx, "b", b.Now().Add(time.Hour)), context.DeadlineExceeded)
	require.NoError(t, syscall.Kill(pid, syscall.SIGCONT))
	require.NoError(t, c.Set(t.Context(), "b", b.Now().Add(time.Hour)))
	require.NoError(t, c.Clear(t.Context(), "b"))
	require.NoError(t, c.Close())
	ended()
}

func TestOneGuardForADirectory(t *testing.T) {
	dir := newDir(t)
	c, _ := client(t, dir)
	require.ErrorIs(t, runGuard(dir), guard.ErrRunning)
	pid, ended := living(t, dir)
	again, err := start(t.Context(), dir, nil, t.Output())
	require.NoError(t, err)
	same, _ := living(t, dir)
	require.Equal(t, pid, same)
	require.NoError(t, again.Close())
	require.NoError(t, c.Clear(t.Context(), "b"), "the other's leaving did not end it")
	require.NoError(t, c.Close())
	ended()
}

func TestOnlyTheOwnerReadsIt(t *testing.T) {
	dir := newDir(t)
	c, b := client(t, dir)
	require.NoError(t, c.Set(t.Context(), "b", b.Now().Add(time.Hour)))
	seen := map[string]bool{}
	require.NoError(t, filepath.WalkDir(filepath.Join(dir, "guard"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		seen[d.Name()] = true
		info, err := d.Info()
		require.Zero(t, info.Mode()&0o077, path)
		return err
	}))
	require.Subset(t, seen, map[string]bool{"socket": true, "lock": true, "guard.log": true, "b": true})
	require.NoError(t, c.Clear(t.Context(), "b"))
	require.NoError(t, c.Close())
}

func TestALauncherThatFailsIsToldAtOnce(t *testing.T) {
	b, err := clock.OpenBoot(t.TempDir())
	require.NoError(t, err)
	_, err = guard.Start(t.Context(), guard.ClientConfig{Dir: t.TempDir(), Clock: b, Launcher: broken{}, Log: slog.Default()})
	require.ErrorContains(t, err, "no such image")
}

type broken struct{}

func (broken) Launch(context.Context) error { return errors.New("no such image") }
