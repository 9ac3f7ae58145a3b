package pgtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Options say what a server is like.
type Options struct {
	// Durable keeps the data on a disk, with fsync.
	Durable bool
	// Password is the superuser's, and needed to connect by TCP. Empty: none.
	Password string
	// Certificate and Key, in PEM, are what it serves TLS with. Empty: it does not.
	Certificate, Key string
	// Settings are those of postgresql.conf.
	Settings map[string]string
}

// Instance is a PostgreSQL server of the tests' own, on a port of 127.0.0.1
// that stays its own. Its methods are for one test at a time.
type Instance struct {
	options  Options
	dir      *directory
	port     int
	database *source // made at the first call of Database

	mu     sync.Mutex
	cmd    *exec.Cmd     // nil while it does not run
	gone   chan struct{} // closed when the server and all its children have ended
	output []string      // the last lines of its log
}

// Server starts a server for one test, and skips the test where there are no
// binaries to start one from. It ends with the test.
func Server(t testing.TB, o Options) *Instance {
	t.Helper()
	if why := missingBinaries(); why != "" {
		t.Skipf("needs a PostgreSQL server of its own: %s", why)
	}
	i, err := newInstance(o)
	if err == nil {
		t.Cleanup(i.close)
		err = errors.Join(i.demandPassword(), i.serveTLS())
	}
	if err == nil {
		err = i.start()
	}
	if err != nil {
		t.Fatalf("start a PostgreSQL server: %v", err)
	}
	return i
}

// missingBinaries says what is missing to start servers; empty: nothing.
func missingBinaries() string {
	for _, name := range []string{"initdb", "postgres"} {
		if program(name) == "" {
			return name + " is neither on PATH nor in /usr/lib/postgresql"
		}
	}
	return ""
}

// newInstance makes a server that is not started yet.
func newInstance(o Options) (*Instance, error) {
	dir, err := newDirectory(o.Durable)
	if err != nil {
		return nil, err
	}
	i := &Instance{options: o, dir: dir}
	return i, initdb(i.data())
}

// URL is that of the database postgres, for the superuser.
func (i *Instance) URL() string {
	u := url.URL{Scheme: "postgres", User: url.User("postgres"), Host: i.Address(), Path: "/postgres", RawQuery: "sslmode=disable"}
	if i.options.Password != "" {
		u.User = url.UserPassword("postgres", i.options.Password)
	}
	return u.String()
}

// Address is where it listens, for a TCP proxy in front of it.
func (i *Instance) Address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(i.port)) }

// Database is the package's Database on this server. The server may be down when
// the test ends.
func (i *Instance) Database(t testing.TB) string {
	t.Helper()
	if i.database == nil {
		s := &source{url: i.URL(), ends: true}
		if err := s.makeTemplate(t.Context()); err != nil {
			t.Fatalf("a database for the test: %v", err)
		}
		i.database = s
	}
	name, err := i.database.copy(t.Context())
	if err != nil {
		t.Fatalf("a database for the test: %v", err)
	}
	return withDatabase(i.URL(), name)
}

// Start starts a server that was stopped or killed, on the same address; it
// returns when it takes connections.
func (i *Instance) Start(t testing.TB) {
	t.Helper()
	if err := i.start(); err != nil {
		t.Fatalf("start the server: %v", err)
	}
}

// Stop ends the server in good order (it lets nobody finish), and waits.
func (i *Instance) Stop(t testing.TB) {
	t.Helper()
	if err := i.end(syscall.SIGINT); err != nil {
		t.Fatalf("stop the server: %v", err)
	}
}

// Kill ends all the server's processes at once, with SIGKILL, and waits.
func (i *Instance) Kill(t testing.TB) {
	t.Helper()
	if err := i.end(syscall.SIGKILL); err != nil {
		t.Fatalf("kill the server: %v", err)
	}
}

// Freeze stops all the server's processes as they stand, which looks from
// outside like a machine that hangs, until Thaw or the end of the test.
func (i *Instance) Freeze(t testing.TB) {
	t.Helper()
	if err := i.signalAll(syscall.SIGSTOP); err != nil {
		t.Fatalf("freeze the server: %v", err)
	}
	t.Cleanup(func() { i.signalAll(syscall.SIGCONT) }) //nolint:errcheck // it may be gone
}

// Thaw lets a frozen server go on.
func (i *Instance) Thaw(t testing.TB) {
	t.Helper()
	if err := i.signalAll(syscall.SIGCONT); err != nil {
		t.Fatalf("thaw the server: %v", err)
	}
}

// Standby starts a server that this one streams all it does to, and returns when
// it does: from then on nothing is committed here before it is there too.
func (i *Instance) Standby(t testing.TB) *Instance {
	t.Helper()
	dir, err := newDirectory(i.options.Durable)
	if err != nil {
		t.Fatalf("start a standby: %v", err)
	}
	standby := &Instance{options: i.options, dir: dir}
	t.Cleanup(standby.close)
	err = run("pg_basebackup", "-D", standby.data(), "-d", i.URL(), "-R", "-X", "stream", "-c", "fast", "--no-sync")
	if err == nil {
		err = standby.start()
	}
	if err == nil {
		err = i.waitForStandby(t.Context())
	}
	if err != nil {
		t.Fatalf("start a standby: %v", err)
	}
	return standby
}

// waitForStandby has every commit wait for the standby, once that is there.
func (i *Instance) waitForStandby(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, orderTime)
	defer cancel()
	conn, err := pgx.Connect(ctx, i.URL())
	if err != nil {
		return err
	}
	for _, order := range []string{"alter system set synchronous_standby_names = '*'", "select pg_reload_conf()"} {
		if _, err = conn.Exec(ctx, order); err != nil {
			break
		}
	}
	for there := false; err == nil && !there; {
		err = conn.QueryRow(ctx, "select exists (select from pg_stat_replication where sync_state = 'sync') from pg_sleep(0.01)").Scan(&there)
	}
	return errors.Join(err, conn.Close(ctx))
}

// Promote makes a standby a primary, which waits for nobody.
func (i *Instance) Promote(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), orderTime)
	defer cancel()
	conn, err := pgx.Connect(ctx, i.URL())
	if err == nil {
		_, err = conn.Exec(ctx, "select pg_promote()")
		err = errors.Join(err, conn.Close(ctx))
	}
	if err != nil {
		t.Fatalf("promote the standby: %v", err)
	}
}

// orderTime is how long an order to a server may take.
const orderTime = 30 * time.Second

func (i *Instance) data() string { return filepath.Join(i.dir.path, "data") }

// startAttempts is how often a start is tried: somebody may take the port
// first, and what is left of a killed server may still have its memory.
const startAttempts = 50

// start starts the server, on the port it had if it had one.
func (i *Instance) start() error {
	for attempt, fresh := 1, i.port == 0; ; attempt++ {
		if fresh {
			port, err := freePort()
			if err != nil {
				return err
			}
			i.port = port
		}
		err := i.launch()
		if err == nil || attempt == startAttempts {
			return err
		}
	}
}

// demandPassword has the server ask those who come by TCP for the password.
func (i *Instance) demandPassword() error {
	if i.options.Password == "" {
		return nil
	}
	hba := "local\tall\tpostgres\ttrust\n" +
		"host\tall,replication\tpostgres\t127.0.0.1/32\tscram-sha-256\n"
	if err := os.WriteFile(filepath.Join(i.data(), "pg_hba.conf"), []byte(hba), 0o644); err != nil { //nolint:gosec // the server's user reads it
		return err
	}
	cmd, err := command(program("postgres"), "--single", "-D", i.data(), "postgres")
	if err != nil {
		return err
	}
	cmd.SysProcAttr.Pdeathsig = 0
	cmd.Stdin = strings.NewReader("alter user postgres password '" + strings.ReplaceAll(i.options.Password, "'", "''") + "'\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("set the password: %w\n%s", err, out)
	}
	return nil
}

// serveTLS puts the certificate where the server looks for it.
func (i *Instance) serveTLS() error {
	if i.options.Certificate == "" {
		return nil
	}
	for name, text := range map[string]string{"server.crt": i.options.Certificate, "server.key": i.options.Key} {
		path := filepath.Join(i.data(), name)
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), giveAway(path)); err != nil {
			return err
		}
	}
	return nil
}

func (i *Instance) arguments() []string {
	settings := map[string]string{
		"max_connections": "200", "shared_buffers": "64MB", "max_wal_size": "512MB",
		"dynamic_shared_memory_type": "mmap", // in the data directory, with which it goes
	}
	if !i.options.Durable {
		settings["fsync"], settings["full_page_writes"] = "off", "off"
	}
	if i.options.Certificate != "" {
		settings["ssl"] = "on"
	}
	maps.Copy(settings, i.options.Settings)
	args := []string{"-D", i.data(), "-k", i.dir.path, "-h", "127.0.0.1", "-p", strconv.Itoa(i.port)}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	return args
}

// launch starts the server once.
func (i *Instance) launch() error {
	cmd, err := command(program("postgres"), i.arguments()...)
	if err != nil {
		return err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd.Stderr = write
	if err := errors.Join(startOnOwnThread(cmd), write.Close()); err != nil {
		return errors.Join(err, read.Close())
	}
	ready, gone := make(chan struct{}), make(chan struct{})
	i.mu.Lock()
	i.cmd, i.gone, i.output = cmd, gone, nil
	i.mu.Unlock()
	go i.watch(cmd, read, ready, gone)
	select {
	case <-ready:
		return nil
	case <-gone:
		i.mu.Lock()
		defer i.mu.Unlock()
		i.cmd = nil
		return fmt.Errorf("the server ended at once:\n%s", strings.Join(i.output, "\n"))
	}
}

// keptLines is how much of a server's log is kept.
const keptLines = 200

// watch reads the server's log until nobody is left who could write to it.
func (i *Instance) watch(cmd *exec.Cmd, read *os.File, ready, gone chan struct{}) {
	defer close(gone)
	lines := bufio.NewScanner(read)
	for told := false; lines.Scan(); {
		i.mu.Lock()
		i.output = append(i.output, lines.Text())
		if len(i.output) > 2*keptLines {
			i.output = slices.Clone(i.output[keptLines:])
		}
		i.mu.Unlock()
		if !told && strings.Contains(lines.Text(), "ready to accept") {
			told = true
			close(ready)
		}
	}
	_ = read.Close()
	_ = cmd.Wait() // that it has ended is all that matters
}

// Log returns the last lines that the server has logged.
func (i *Instance) Log() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.output)
}

// end ends the server and waits until all its processes are gone. Harmless when
// it does not run.
func (i *Instance) end(signal syscall.Signal) error {
	i.mu.Lock()
	cmd, gone := i.cmd, i.gone
	i.mu.Unlock()
	if cmd == nil {
		return nil
	}
	var err error
	if signal == syscall.SIGKILL {
		err = i.signalAll(signal)
	} else {
		err = cmd.Process.Signal(signal)
	}
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-gone
	i.mu.Lock()
	i.cmd = nil
	i.mu.Unlock()
	return nil
}

// signalAll sends a signal to the server and all its children. The server comes
// first, or it would start children anew.
func (i *Instance) signalAll(signal syscall.Signal) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.cmd == nil {
		return errors.New("the server does not run")
	}
	pid := i.cmd.Process.Pid
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", pid))
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, signal); err != nil {
		return err
	}
	for child := range strings.FieldsSeq(string(children)) {
		if n, err := strconv.Atoi(child); err == nil {
			_ = syscall.Kill(n, signal) // it may have ended
		}
	}
	return nil
}

// close ends the server for good.
func (i *Instance) close() {
	_ = i.signalAll(syscall.SIGCONT) // lest it is frozen
	_ = i.end(syscall.SIGQUIT)       // at once, but it cleans up
	_ = i.dir.alive.Close()
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it does not block
	if err != nil {
		return 0, err
	}
	address, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return 0, errors.New("no TCP address")
	}
	return address.Port, l.Close()
}
