// Package pgtest gives tests PostgreSQL: a fresh, migrated database in some 20
// milliseconds, or a server of their own to kill, freeze, restart and promote.
//
// Databases come from the server that PLANE_TEST_DATABASE_URL names (a
// postgres:// URL of a user who may create databases), or else from a private
// one, which is started from the host's binaries, or as a container, for this
// test process and ends with it, also when that is killed. Where there is none
// of the three the test is skipped, with what was missing. Everything may be
// called from any number of tests at once.
package pgtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"plane/migrations"
)

// serverURL names a server whose user may create databases.
const serverURL = "PLANE_TEST_DATABASE_URL"

// Database returns the URL of an empty, migrated database, which is dropped when
// the test is over.
func Database(t testing.TB) string {
	t.Helper()
	s, err := theSource()
	if err == nil && s.missing != "" {
		t.Skipf("needs PostgreSQL: %s", s.missing)
	}
	var name string
	if err == nil {
		name, err = s.copy(t.Context())
	}
	if err != nil {
		t.Fatalf("a database for the test: %v", err)
	}
	t.Cleanup(func() { s.drop(t, name) })
	return withDatabase(s.url, name)
}

// source is where databases come from.
type source struct {
	missing  string // why there is none
	ends     bool   // the server ends with this process
	url      string // of a database to give orders in
	template string // the database that the others are copies of
	keep     any    // what the server ends with

	mu   sync.Mutex
	conn *pgx.Conn
}

// theSource is made once in a process.
var theSource = sync.OnceValues(func() (*source, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if given := os.Getenv(serverURL); given != "" {
		s := &source{url: given}
		return s, s.makeTemplate(ctx)
	}
	s := &source{ends: true}
	var err error
	if why := missingBinaries(); why == "" {
		s.url, s.keep, err = private()
	} else if s.url, s.keep, err = container(ctx); errors.Is(err, errNoContainer) {
		s.missing = fmt.Sprintf("%s is not set; this machine has no binaries to start a server from (%s); and %v", serverURL, why, err)
		return s, nil
	}
	if err != nil {
		return s, err
	}
	return s, s.makeTemplate(ctx)
})

// private starts a server that ends when keep is collected or this process has
// ended.
func private() (url string, keep any, err error) {
	i, err := newInstance(Options{})
	if err != nil {
		return "", nil, err
	}
	err = i.start()
	return i.URL(), i, err
}

// copy makes a fresh database and returns its name.
func (s *source) copy(ctx context.Context) (string, error) {
	name := "plane_test_" + strings.ToLower(rand.Text())
	return name, s.order(ctx, "create database "+name+" template "+s.template)
}

// drop drops a database. Where the server ends with us nobody waits for that.
func (s *source) drop(t testing.TB, name string) {
	drop := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		return s.order(ctx, "drop database if exists "+name+" with (force)")
	}
	if s.ends {
		go drop() //nolint:errcheck // it only makes room
		return
	}
	if err := drop(); err != nil {
		t.Errorf("drop the database of the test: %v", err)
	}
}

// order gives an order on a connection that is kept, and made anew when it is
// broken.
func (s *source) order(ctx context.Context, order string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == nil || s.conn.IsClosed() {
		conn, err := pgx.Connect(ctx, s.url)
		if err != nil {
			return err
		}
		s.conn = conn
	}
	_, err := s.conn.Exec(ctx, order)
	return err
}

// makeTemplate makes the database that the tests' are copies of, unless it is
// there: other test processes use it too.
func (s *source) makeTemplate(ctx context.Context) error {
	mark, err := migrations.Fingerprint()
	if err != nil {
		return err
	}
	s.template = "plane_template_" + mark
	if err := s.order(ctx, "select pg_advisory_lock(hashtext('plane test template'))"); err != nil {
		return err
	}
	defer s.order(ctx, "select pg_advisory_unlock(hashtext('plane test template'))") //nolint:errcheck // it ends with the session
	var ready bool
	err = s.conn.QueryRow(ctx, "select exists (select from pg_database where datname = $1 and datistemplate)", s.template).Scan(&ready)
	if err != nil || ready {
		return err
	}
	for _, order := range []string{"drop database if exists %s with (force)", "create database %s template template0"} {
		if err := s.order(ctx, fmt.Sprintf(order, s.template)); err != nil {
			return err
		}
	}
	conn, err := pgx.Connect(ctx, withDatabase(s.url, s.template))
	if err != nil {
		return err
	}
	if err := errors.Join(migrations.Apply(ctx, conn), conn.Close(ctx)); err != nil {
		return err
	}
	return s.order(ctx, fmt.Sprintf("alter database %s with is_template true allow_connections false", s.template))
}

// withDatabase is the URL for another database of the same server.
func withDatabase(server, database string) string {
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		panic(serverURL + ": want a URL that begins with postgres://") // not the text: it may hold a password
	}
	u.Path = "/" + database
	return u.String()
}
