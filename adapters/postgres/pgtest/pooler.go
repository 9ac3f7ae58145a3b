package pgtest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// Pooler starts PgBouncer in transaction mode in front of a server of this
// machine, until the test is over, and returns the way through it to the same
// database. Without PgBouncer the test is skipped.
func Pooler(t testing.TB, database string) string {
	t.Helper()
	path := program("pgbouncer")
	if path == "" {
		path = "/usr/sbin/pgbouncer" // not on every user's PATH
	}
	if _, err := os.Stat(path); err != nil {
		t.Skip("needs PgBouncer: pgbouncer is neither on PATH nor in /usr/sbin")
	}
	through, err := startPooler(t, path, database)
	if err != nil {
		t.Fatalf("start PgBouncer: %v", err)
	}
	return through
}

func startPooler(t testing.TB, path, database string) (string, error) {
	u, err := url.Parse(database)
	if err != nil {
		return "", err
	}
	port, err := freePort()
	if err != nil {
		return "", err
	}
	dir, err := newDirectory(false)
	if err != nil {
		return "", err
	}
	t.Cleanup(func() { _ = dir.alive.Close() })
	password := ""
	if p, ok := u.User.Password(); ok {
		password = "password='" + p + "'"
	}
	settings := fmt.Sprintf(`[databases]
* = host=%s port=%s user=%s %s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = transaction
max_client_conn = 500
default_pool_size = 5
`, u.Hostname(), u.Port(), u.User.Username(), password, port)
	file := filepath.Join(dir.path, "pgbouncer.ini")
	if err := os.WriteFile(file, []byte(settings), 0o600); err != nil {
		return "", err
	}
	if err := giveAway(file); err != nil {
		return "", err
	}
	cmd, err := command(path, "-q", file)
	if err != nil {
		return "", err
	}
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := startOnOwnThread(cmd); err != nil {
		return "", err
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait() // it was killed
	})
	u.Host = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	ctx, cancel := context.WithTimeout(t.Context(), orderTime)
	defer cancel()
	return u.String(), answers(ctx, u.String())
}
