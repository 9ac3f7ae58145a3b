package scenarios

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// logTail is how many of its last lines a process shows when its test has
// failed.
const logTail = 60

// process is a program under test. It can be stopped and started again.
type process struct {
	name string
	path string // of its program; empty: plane
	args []string
	env  []string // on top of ours
	dir  string   // where its log is
	cmd  *exec.Cmd
	gone chan struct{} // closed once cmd has ended
	err  error         // how, from then on

	metrics string // where it serves them, if it does
}

// newProcess is a process that is not started. What it starts in turn has dir
// in its environment, by which it is found when the test is over.
func newProcess(t *testing.T, dir, name string, args ...string) *process {
	t.Helper()
	p := &process{name: name, args: args, env: []string{"TMPDIR=" + dir, "NO_COLOR=1"}, dir: dir}
	t.Cleanup(func() {
		p.kill9()
		if t.Failed() {
			t.Logf("the last of %s (%s %s):\n%s", p.name, cmp.Or(p.path, "plane"), strings.Join(p.args, " "), tail(p.log(), logTail))
		}
	})
	return p
}

// start starts it, for the first time or again.
func (p *process) start(t *testing.T) {
	t.Helper()
	out, err := os.OpenFile(p.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(t, err)
	defer out.Close()
	p.cmd = exec.Command(cmp.Or(p.path, *planeBinary), p.args...)
	p.cmd.Env = append(os.Environ(), p.env...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	// A terminal's Ctrl-C is for the tests; it ends with them, however they end.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	require.NoError(t, p.cmd.Start(), p.name)
	cmd, gone := p.cmd, make(chan struct{})
	p.gone = gone
	go func() {
		p.err = cmd.Wait()
		close(gone)
	}()
}

func (p *process) logFile() string { return filepath.Join(p.dir, p.name+".log") }

// log is all that it has written so far.
func (p *process) log() string {
	b, err := os.ReadFile(p.logFile())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err.Error()
	}
	return string(b)
}

func (p *process) running() bool {
	if p.gone == nil {
		return false
	}
	select {
	case <-p.gone:
		return false
	default:
		return true
	}
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// kill9 ends it without a word, and waits until it is gone.
func (p *process) kill9() {
	if p.running() {
		p.cmd.Process.Kill()
		<-p.gone
	}
}

func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	require.True(t, p.running(), "%s has ended: %v", p.name, p.err)
	require.NoError(t, p.cmd.Process.Signal(s), p.name)
}

// freeze stops it where it is; thaw lets it go on.
func (p *process) freeze(t *testing.T) { t.Helper(); p.signal(t, syscall.SIGSTOP) }
func (p *process) thaw(t *testing.T)   { t.Helper(); p.signal(t, syscall.SIGCONT) }

// end asks it to end and requires that it does, in good order.
func (p *process) end(t *testing.T, s syscall.Signal, within time.Duration) {
	t.Helper()
	p.signal(t, s)
	select {
	case <-p.gone:
		require.NoError(t, p.err, "%s after %v", p.name, s)
	case <-time.After(within):
		require.Fail(t, "it goes on", "%s has not ended in %v after %v", p.name, within, s)
	}
}

// memory is what /proc says under the name, in bytes: VmRSS is what it has in
// memory now, VmHWM the most that it ever had.
func (p *process) memory(t *testing.T, name string) int64 {
	t.Helper()
	return procStatus(t, p.pid(), name) << 10
}

// procStatus is a number of /proc/PID/status.
func procStatus(t *testing.T, pid int, name string) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	for line := range strings.Lines(string(b)) {
		if field, value, _ := strings.Cut(line, ":"); field == name {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			require.NoError(t, err)
			return n
		}
	}
	require.Fail(t, "no such line", "%s in /proc/%d/status", name, pid)
	return 0
}

// having returns the living processes that have the text in their arguments or
// environment, by id, with their arguments.
func having(t *testing.T, text string) map[int]string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	require.NoError(t, err)
	found := map[int]string{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		// What cannot be read has ended, or is none of ours.
		args, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		env, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if len(args) > 0 && (bytes.Contains(args, []byte(text)) || bytes.Contains(env, []byte(text))) {
			found[pid] = strings.TrimSpace(strings.ReplaceAll(string(args), "\x00", " "))
		}
	}
	return found
}

// workDir is a directory for what a test starts. When the test is over, every
// process is killed that has the directory in its arguments or environment:
// agents, guards, supervisors, backends.
func workDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() {
		for range 50 { // until nothing is left that could start another
			left := having(t, dir)
			for pid := range left {
				syscall.Kill(pid, syscall.SIGKILL)
			}
			if len(left) == 0 {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Errorf("these cannot be killed: %v", having(t, dir))
	})
	return dir
}

// freePort returns a port of this machine that nothing listens on, and that is
// the test's until it is over, also beside other runs of these tests. It is
// neither one that Plane gives to backends nor one that Linux gives to outgoing
// connections.
func freePort(t *testing.T) int {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	if ports.next == 0 {
		ports.next = lowPort + os.Getpid()*40%(highPort-lowPort)
	}
	for range highPort - lowPort {
		if ports.next++; ports.next > highPort {
			ports.next = lowPort
		}
		if reservePort(t, ports.next) {
			return ports.next
		}
	}
	require.Fail(t, "no free port", "from %d to %d", lowPort, highPort)
	return 0
}

// reservePort takes the lock that stands for a port until the test is over. A
// look whether it is free does not do: whoever asked for it may not listen yet.
func reservePort(t *testing.T, port int) bool {
	t.Helper()
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("plane-scenario-ports-%d", os.Geteuid()))
	require.NoError(t, os.MkdirAll(dir, 0o700))
	lock, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(port)), os.O_CREATE|os.O_RDWR, 0o600)
	require.NoError(t, err)
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		require.ErrorIs(t, err, syscall.EWOULDBLOCK)
		require.NoError(t, lock.Close())
		return false
	}
	l, err := net.Listen("tcp", ":"+strconv.Itoa(port))
	if err != nil {
		require.NoError(t, lock.Close())
		return false
	}
	require.NoError(t, l.Close())
	t.Cleanup(func() { lock.Close() })
	return true
}

const lowPort, highPort = 32000, 32767

var ports struct {
	sync.Mutex
	next int
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// eventually asks again and again until there is no error, and fails the test
// with the last one when that takes longer.
func eventually(t *testing.T, within time.Duration, what string, ask func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			require.NoError(t, err, "%s: not within %v", what, within)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
