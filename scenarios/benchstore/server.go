package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// settings are the server's, the same for all contenders. Beside them it has
// PostgreSQL's defaults: fsync, synchronous_commit and full_page_writes are on.
// Memory for the tables of the long history, and checkpoints that do not fall
// into the one contender's turn and not the other's.
var settings = []string{
	"fsync=on", "synchronous_commit=on", "full_page_writes=on",
	"shared_buffers=1GB", "max_wal_size=8GB", "checkpoint_timeout=30min", "max_connections=200",
	"shared_preload_libraries=pg_stat_statements", "pg_stat_statements.track=none",
	"listen_addresses=127.0.0.1", "logging_collector=off",
}

// server is a PostgreSQL of our own.
type server struct {
	dir  string
	port int
	cmd  *exec.Cmd
	gone chan error
}

// startServer makes a cluster in a directory below dir and starts it. Close ends
// it and removes the directory.
func startServer(ctx context.Context, dir string) (*server, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	who, err := owner()
	if err != nil {
		return nil, err
	}
	s := &server{gone: make(chan error, 1)}
	if s.dir, err = os.MkdirTemp(dir, "plane-bench-store-"); err != nil {
		return nil, err
	}
	if who != nil {
		if err := os.Chown(s.dir, int(who.Uid), int(who.Gid)); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	if err := s.initialise(ctx, bin, who); err != nil {
		return nil, errors.Join(err, s.close())
	}
	if err := s.start(ctx, bin, who); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

func (s *server) data() string { return filepath.Join(s.dir, "data") }
func (s *server) log() string  { return filepath.Join(s.dir, "log") }

func (s *server) initialise(ctx context.Context, bin string, who *syscall.Credential) error {
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "--pgdata", s.data(),
		"--username", "plane", "--auth", "trust", "--encoding", "UTF8", "--locale", "C")
	cmd.Dir, cmd.SysProcAttr = s.dir, &syscall.SysProcAttr{Credential: who}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return nil
}

func (s *server) start(ctx context.Context, bin string, who *syscall.Credential) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.port = l.Addr().(*net.TCPAddr).Port
	if err := l.Close(); err != nil {
		return err
	}
	args := []string{"-D", s.data(), "-p", strconv.Itoa(s.port), "-k", s.dir}
	for _, setting := range settings {
		args = append(args, "-c", setting)
	}
	log, err := os.Create(s.log())
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = exec.Command(filepath.Join(bin, "postgres"), args...)
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = s.dir, log, log
	// A terminal's Ctrl-C is for us; it ends with us, however we end.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who, Setpgid: true, Pdeathsig: syscall.SIGQUIT}
	// The signal comes when the thread that started it ends, so that must not.
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		started <- s.cmd.Start()
		s.gone <- s.cmd.Wait()
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	return s.awaitStart(ctx)
}

func (s *server) awaitStart(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, s.url("postgres"))
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case end := <-s.gone:
			s.gone <- end
			log, _ := os.ReadFile(s.log())
			return fmt.Errorf("postgres has ended: %w\n%s", end, log)
		case <-ctx.Done():
			return fmt.Errorf("postgres does not answer: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// close ends the server at once and removes its files.
func (s *server) close() error {
	if s.cmd != nil && s.cmd.Process != nil {
		if err := s.cmd.Process.Signal(syscall.SIGQUIT); err == nil {
			<-s.gone // it was killed: how it ended is known
		}
	}
	return os.RemoveAll(s.dir)
}

// url is the DSN of a database.
func (s *server) url(database string) string {
	return fmt.Sprintf("postgres://plane@127.0.0.1:%d/%s?sslmode=disable", s.port, database)
}

// create makes a database and returns its DSN.
func (s *server) create(ctx context.Context, database string) (string, error) {
	return s.url(database), s.exec(ctx, "postgres", "CREATE DATABASE "+pgx.Identifier{database}.Sanitize())
}

// drop deletes all databases that were made, so that the server does not tidy them
// up while something else is measured.
func (s *server) drop(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.url("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'")
	if err != nil {
		return err
	}
	databases, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, database := range databases {
		if _, err := conn.Exec(ctx, "DROP DATABASE "+pgx.Identifier{database}.Sanitize()+" WITH (FORCE)"); err != nil {
			return err
		}
	}
	return nil
}

// exec runs statements one after another in a database.
func (s *server) exec(ctx context.Context, database string, statements ...string) error {
	conn, err := pgx.Connect(ctx, s.url(database))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", strings.Join(strings.Fields(statement), " "), err)
		}
	}
	return nil
}

// version is what the server says it is.
func (s *server) version(ctx context.Context) (string, error) {
	conn, err := pgx.Connect(ctx, s.url("postgres"))
	if err != nil {
		return "", err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var version string
	err = conn.QueryRow(ctx, "SHOW server_version").Scan(&version)
	return version, err
}

// binaries is the directory of the newest server on this machine.
func binaries() (string, error) {
	if path, err := exec.LookPath("postgres"); err == nil {
		return filepath.Dir(path), nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(found) == 0 {
		return "", errors.New("no PostgreSQL server here: want postgres and initdb in PATH or in /usr/lib/postgresql/*/bin (Debian: apt-get install postgresql)")
	}
	newest := found[0]
	for _, path := range found {
		if majorOf(path) > majorOf(newest) {
			newest = path
		}
	}
	return filepath.Dir(newest), nil
}

func majorOf(path string) int {
	major, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
	return major
}

// owner is whom the server runs as: PostgreSQL refuses to run as root. Nil: as
// ourselves.
func owner() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	var errs []error
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
	}
	return nil, fmt.Errorf("whom to run PostgreSQL as, which refuses root: %w", errors.Join(errs...))
}

// processorTime is what the server's processes have used so far, those that have
// ended included. Of those that live the kernel's scheduler tells it to the
// nanosecond; of the others it is known in hundredths of a second.
func (s *server) processorTime() (time.Duration, error) {
	postmaster := strconv.Itoa(s.cmd.Process.Pid)
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended since; the postmaster has its time, or will have
		}
		// After the name, which may hold anything, in brackets: state, parent, …
		_, rest, _ := strings.Cut(string(b[strings.LastIndexByte(string(b), ')'):]), " ")
		fields := strings.Fields(rest)
		own := filepath.Base(filepath.Dir(path)) == postmaster
		if !own && fields[1] != postmaster {
			continue
		}
		running, err := os.ReadFile(filepath.Join(filepath.Dir(path), "schedstat"))
		if err != nil {
			continue
		}
		nanoseconds, _, _ := strings.Cut(string(running), " ")
		if err := add(&sum, nanoseconds, time.Nanosecond); err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		if !own {
			continue
		}
		for _, ended := range fields[13:15] { // cutime, cstime; USER_HZ is 100 on all that Go runs on
			if err := add(&sum, ended, time.Second/100); err != nil {
				return 0, fmt.Errorf("%s: %w", path, err)
			}
		}
	}
	return sum, nil
}

func add(sum *time.Duration, count string, of time.Duration) error {
	n, err := strconv.ParseInt(count, 10, 64)
	*sum += time.Duration(n) * of
	return err
}
