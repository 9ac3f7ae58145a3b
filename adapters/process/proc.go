package process

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"plane/system/port"
)

// processID names a process for good: its number may be used again, but not
// with the same time of its start, in the same boot.
type processID struct {
	PID   int
	Start uint64 // in ticks since the boot
	Boot  string
}

// process is a line of /proc/PID/stat.
type process struct {
	processID
	parent int
	zombie bool
	// used is CPU time, its own and that of its children that have ended and
	// that it has waited for.
	used, waitedFor time.Duration
	resident        uint64 // bytes
}

// tick is how long one of the kernel's units of CPU time is: on Linux always a
// hundredth of a second.
const tick = time.Second / 100

// processOf reads one process; fs.ErrNotExist when there is none.
func processOf(pid int) (process, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, syscall.ESRCH) {
		err = fs.ErrNotExist
	}
	if err != nil {
		return process{}, err
	}
	boot, err := bootID()
	if err != nil {
		return process{}, err
	}
	return parseStat(pid, boot, string(b))
}

// parseStat reads what proc_pid_stat(5) describes. A program's name, in
// parentheses, may hold anything.
func parseStat(pid int, boot, line string) (process, error) {
	p := process{processID: processID{PID: pid, Boot: boot}}
	f := strings.Fields(line[strings.LastIndexByte(line, ')')+1:])
	const state, ppid, utime, stime, cutime, cstime, starttime, rss = 0, 1, 11, 12, 13, 14, 19, 21
	if len(f) <= rss {
		return p, fmt.Errorf("/proc/%d/stat has %d fields after the name", pid, len(f))
	}
	p.zombie = f[state] == "Z" || f[state] == "X"
	var errs []error
	number := func(i int) uint64 {
		n, err := strconv.ParseUint(f[i], 10, 64)
		errs = append(errs, err)
		return n
	}
	p.parent = int(number(ppid)) //nolint:gosec // a process id
	p.used = time.Duration(number(utime)+number(stime)) * tick
	p.waitedFor = time.Duration(number(cutime)+number(cstime)) * tick
	p.Start = number(starttime)
	p.resident = number(rss) * uint64(os.Getpagesize()) //nolint:gosec // positive
	if err := errors.Join(errs...); err != nil {
		return p, fmt.Errorf("/proc/%d/stat: %w", pid, err)
	}
	return p, nil
}

// bootID is another text after each boot of the machine.
func bootID() (string, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return string(bytes.TrimSpace(b)), err
}

// processes reads all processes of the machine.
func processes() ([]process, error) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	names, err := proc.Readdirnames(-1)
	if err := errors.Join(err, proc.Close()); err != nil {
		return nil, err
	}
	boot, err := bootID()
	if err != nil {
		return nil, err
	}
	var all []process
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue // not a process
		}
		b, err := os.ReadFile("/proc/" + name + "/stat")
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it has ended meanwhile
		}
		if err != nil {
			return nil, err
		}
		p, err := parseStat(pid, boot, string(b))
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// descendants picks the processes that descend from pid.
func descendants(pid int, all []process) []process {
	children := map[int][]process{}
	for _, p := range all {
		children[p.parent] = append(children[p.parent], p)
	}
	var found []process
	for next := children[pid]; len(next) > 0; {
		p := next[0]
		found = append(found, p)
		next = append(next[1:], children[p.PID]...)
	}
	return found
}

// open returns a handle on exactly this process, or unix.ESRCH when it is gone.
func (p processID) open() (int, error) {
	fd, err := unix.PidfdOpen(p.PID, unix.PIDFD_NONBLOCK)
	if err != nil {
		return -1, err
	}
	// From here on the handle stays with one process; is it the one?
	now, err := processOf(p.PID)
	if err == nil && now.processID == p {
		return fd, nil
	}
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = unix.ESRCH
	}
	return -1, errors.Join(err, unix.Close(fd))
}

// signal sends a signal to exactly this process; nil when it is gone.
func (p processID) signal(s syscall.Signal) error {
	fd, err := p.open()
	if err == nil {
		err = errors.Join(unix.PidfdSendSignal(fd, s, nil, 0), unix.Close(fd))
	}
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// killTree kills all descendants of the process, and the process if it is not
// to be spared.
func (p processID) killTree(self bool) error {
	all, err := processes()
	if err != nil {
		return err
	}
	// Only if the number still means this process are they its descendants.
	for _, now := range all {
		if now.processID != p {
			continue
		}
		for _, d := range descendants(p.PID, all) {
			if !d.zombie {
				err = errors.Join(err, d.signal(syscall.SIGKILL))
			}
		}
		if self {
			err = errors.Join(err, p.signal(syscall.SIGKILL))
		}
	}
	return err
}

// end returns what blocks until the process has ended, and what makes that
// return at once. Stop may be called more than once.
func (p processID) end() (wait func() error, stop func(), err error) {
	fd, err := p.open()
	if errors.Is(err, unix.ESRCH) {
		return func() error { return nil }, func() {}, nil
	}
	if err != nil {
		return nil, nil, err
	}
	handle := os.NewFile(uintptr(fd), "process")
	raw, err := handle.SyscallConn()
	if err != nil {
		return nil, nil, errors.Join(err, handle.Close())
	}
	wait = func() error {
		var failed error
		err := raw.Read(func(fd uintptr) (ended bool) {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0) //nolint:gosec // a descriptor
			if err != nil && !errors.Is(err, unix.EINTR) {
				failed = err
			}
			return n > 0 || failed != nil
		})
		return errors.Join(err, failed)
	}
	return wait, func() { handle.Close() }, nil //nolint:errcheck // a second close is harmless
}

// measure adds up what the descendants of the supervisor use.
func measure(supervisor processID) (port.Stats, error) {
	all, err := processes()
	if err != nil {
		return port.Stats{}, err
	}
	var s port.Stats
	found := false
	for _, p := range all {
		if p.processID == supervisor {
			found = true
			s.CPU = p.waitedFor
		}
	}
	if !found {
		return port.Stats{}, port.ErrNoContainer
	}
	for _, p := range descendants(supervisor.PID, all) {
		s.CPU += p.used + p.waitedFor
		s.MemUsed += p.resident
	}
	s.MemTotal, s.MemActive = s.MemUsed, s.MemUsed
	if s.SystemCPU, err = systemCPU(); err != nil {
		return port.Stats{}, err
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return port.Stats{}, err
	}
	s.MemLimit = info.Totalram * uint64(info.Unit)
	return s, nil
}

// systemCPU is the time of all CPUs since the boot, busy and idle.
func systemCPU() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(b), "\n")
	f := strings.Fields(first)
	if len(f) < 9 || f[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q", first)
	}
	var sum time.Duration
	for _, v := range f[1:9] { // what follows is contained in user and nice
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		sum += time.Duration(n) * tick
	}
	return sum, nil
}
