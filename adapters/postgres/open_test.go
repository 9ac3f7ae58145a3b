package postgres

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"plane/adapters/postgres/pgtest"
	"plane/migrations"
)

const password = "it's/a@secret"

// guarded is a server that wants the password.
func guarded(t *testing.T) *pgtest.Instance {
	t.Helper()
	return pgtest.Server(t, pgtest.Options{Password: password})
}

// without is the URL without its password.
func without(t *testing.T, dsn string) string {
	t.Helper()
	u, err := url.Parse(dsn)
	require.NoError(t, err)
	u.User = url.User("postgres")
	return u.String()
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

func TestPasswordMayComeFromElsewhere(t *testing.T) {
	dsn := guarded(t).Database(t)
	for _, c := range []struct {
		name string
		cfg  Config
		env  string
	}{
		{name: "the URL", cfg: Config{URL: dsn}},
		{name: "a file", cfg: Config{URL: without(t, dsn), PasswordFile: write(t, password+"\nmore")}},
		{name: "a file with DOS lines", cfg: Config{URL: without(t, dsn), PasswordFile: write(t, password+"\r\n")}},
		{name: "PGPASSFILE", cfg: Config{URL: without(t, dsn)}, env: write(t, "*:*:*:postgres:"+password+"\n")},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("PGPASSFILE", c.env)
			s := openStore(t, c.cfg)
			require.NoError(t, s.pool.Ping(t.Context()))
			listen(t, s)
		})
	}
}

func TestThePasswordFileIsReadAgain(t *testing.T) {
	dsn := guarded(t).Database(t)
	file := write(t, password)
	s := openStore(t, Config{URL: without(t, dsn), PasswordFile: file})
	order(t, dsn, "alter user postgres password 'another'")
	require.NoError(t, os.WriteFile(file, []byte("another"), 0o600))
	s.pool.Reset()
	require.NoError(t, s.pool.Ping(t.Context()))
}

func TestThePasswordIsInNoErrorAndNoLogLine(t *testing.T) {
	dsn := guarded(t).Database(t)
	wrong := strings.Replace(dsn, url.UserPassword("", password).String(), ":wrong%20secret", 1)
	require.NotEqual(t, dsn, wrong)
	log := &journal{}
	for name, bad := range map[string]string{
		"the wrong one":         wrong,
		"nobody listens":        "postgres://u:wrong%20secret@127.0.0.1:1/db?sslmode=disable",
		"no such host":          "postgres://u:wrong%20secret@nowhere.invalid/db",
		"no such database":      strings.Replace(dsn, "/plane_test_", "/none_", 1),
		"not escaped":           "postgres://u:wrong secret@h/db?x=@:wrong secret@/",
		"no port":               "postgres://u:wrong%20secret@h:port/db",
		"in the query":          "postgres://h/db?password=wrong%20secret&sslmode=odd",
		"keywords":              "host=127.0.0.1 port=x password='wrong secret'",
		"keywords, not closed":  "host=127.0.0.1 password='wrong secret",
		"a file that is absent": "postgres://u:wrong%20secret@h/db?sslmode=verify-full&sslrootcert=/nowhere",
		"another program's":     "mysql://u:wrong%20secret@h/db",
	} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{URL: bad, Log: log.logger()}
			_, err := Open(t.Context(), cfg)
			require.Error(t, err)
			text := fmt.Sprintf("%v %+v %s", err, err, log) + fmt.Sprint(Migrate(t.Context(), cfg))
			for _, secret := range []string{"wrong secret", "wrong%20secret", password, "a%40secret"} {
				require.NotContains(t, text, secret)
			}
		})
	}
}

func TestAnErrorDoesNotTellThePasswordWhateverItsTextIs(t *testing.T) {
	cc, err := pgx.ParseConfig("postgres://u:tell@h/db")
	require.NoError(t, err)
	inner := fmt.Errorf("the server said: tell nobody: %w", context.Canceled)
	got := discreet(inner, cc)
	require.EqualError(t, got, "the server said: xxxxx nobody: context canceled")
	require.ErrorIs(t, got, context.Canceled)
	require.NoError(t, errors.Unwrap(got))
}

func TestBadSettingsAreTold(t *testing.T) {
	for _, c := range []struct {
		name, want string
		cfg        Config
	}{
		{"no URL", "want a URL like postgres://", Config{URL: "127.0.0.1:5432"}},
		{"too many connections", "not 20000", Config{URL: "postgres://h/d", MaxConnections: 20_000}},
		{"an empty password file", "is empty", Config{URL: "postgres://h/d", PasswordFile: write(t, "\n")}},
		{"no password file", "read the database password from /nowhere: no such file", Config{URL: "postgres://h/d", PasswordFile: "/nowhere"}},
		{"the listener's URL", "the listener's", Config{URL: "postgres://h/d?sslmode=disable", ListenURL: "x"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Open(t.Context(), c.cfg)
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestADatabaseThatWasNotMigratedIsRefused(t *testing.T) {
	server := pgtest.Server(t, pgtest.Options{})
	_, err := Open(t.Context(), Config{URL: server.URL()})
	require.ErrorIs(t, err, migrations.ErrOlder)
	require.NoError(t, Migrate(t.Context(), Config{URL: server.URL()}))
	openStore(t, Config{URL: server.URL()})
}

func TestTheServerLimitsEverySession(t *testing.T) {
	dsn := pgtest.Database(t)
	show := func(s *Store, setting string) (value string) {
		require.NoError(t, s.pool.QueryRow(t.Context(), "select current_setting($1)", setting).Scan(&value))
		return value
	}
	s := openStore(t, Config{URL: dsn, Name: "co-1"})
	for setting, want := range limits {
		require.Equal(t, want, show(s, setting))
	}
	require.Equal(t, "plane co-1", show(s, "application_name"))
	require.Equal(t, int32(DefaultMaxConnections), s.pool.Config().MaxConns)
	own := openStore(t, Config{URL: dsn + "&statement_timeout=1s&application_name=mine", MaxConnections: 3})
	require.Equal(t, "1s", show(own, "statement_timeout"))
	require.Equal(t, "mine", show(own, "application_name"))
	require.Equal(t, int32(3), own.pool.Config().MaxConns)
}

func TestDeadConnectionsAreReplaced(t *testing.T) {
	s := freshStore(t)
	for range 5 {
		order(t, s.cfg.URL, cutConnections)
		var err error
		for range 2 { // one call may find out, no second one
			if err = s.pool.Ping(t.Context()); err == nil {
				break
			}
		}
		require.NoError(t, err)
	}
}

// failoverTime is for a fail-over with a server that hangs: several time-outs of
// a second or three.
const failoverTime = 20 * time.Second

func TestAPromotedStandbyIsFollowed(t *testing.T) {
	primary := guarded(t)
	dsn := primary.Database(t)
	standby := primary.Standby(t)
	// The standby comes first, and is passed over while it is one.
	both := strings.Replace(dsn, primary.Address(), standby.Address()+","+primary.Address(), 1)
	s := openStore(t, Config{URL: both})
	l := listen(t, s)
	var busy []interface{ Release() }
	for range 5 { // several connections, all to the same server
		conn, err := s.pool.Acquire(t.Context())
		require.NoError(t, err)
		busy = append(busy, conn)
	}
	for _, conn := range busy {
		conn.Release()
	}
	require.Equal(t, 1, count(t, s), "writing")
	primary.Freeze(t)
	standby.Promote(t)
	start := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), failoverTime)
	defer cancel()
	for err := errors.New("not tried yet"); err != nil; {
		require.NoError(t, ctx.Err())
		attempt, done := context.WithTimeout(ctx, 2*time.Second)
		_, err = tally(attempt, s)
		done()
	}
	t.Logf("written again after %v", time.Since(start).Round(time.Millisecond))
	require.Equal(t, 3, count(t, s), "nothing committed was lost")
	cut(t, l)
}

// count is tally without an error.
func count(t *testing.T, s *Store) int {
	t.Helper()
	n, err := tally(t.Context(), s)
	require.NoError(t, err)
	return n
}

// tally adds a row and returns how many there are.
func tally(ctx context.Context, s *Store) (n int, err error) {
	if _, err := s.pool.Exec(ctx, "create table if not exists tally ()"); err != nil {
		return 0, err
	}
	err = s.pool.QueryRow(ctx, "with added as (insert into tally default values returning 1) select (select count(*) from tally) + (select count(*) from added)").Scan(&n)
	return n, err
}

func TestAServerThatBecameReadOnlyIsLeft(t *testing.T) {
	server := pgtest.Server(t, pgtest.Options{})
	s := openStore(t, Config{URL: server.Database(t)})
	require.Equal(t, 1, count(t, s))
	order(t, server.URL(), "alter system set default_transaction_read_only = on")
	order(t, server.URL(), "select pg_reload_conf()")
	for { // until the order has arrived
		if _, err := tally(t.Context(), s); err != nil {
			break
		}
	}
	_, err := s.pool.Exec(t.Context(), "select 1")
	require.ErrorContains(t, err, "read only", "the old connections are gone, new ones refused")
}

func TestUnverifiedServersAreNamed(t *testing.T) {
	for dsn, want := range map[string][]string{
		"postgres://127.0.0.1/d":                                nil,
		"postgres://localhost/d?sslmode=disable":                nil,
		"host=/run/postgresql dbname=d":                         nil,
		"postgres://db.example/d":                               {"db.example:5432"},
		"postgres://db.example/d?sslmode=require":               {"db.example:5432"},
		"postgres://db.example/d?sslmode=verify-full":           nil,
		"postgres://one:1,two:2/d?sslmode=disable":              {"one:1", "two:2"},
		"postgres://one:1,127.0.0.1:2/d?sslmode=require":        {"one:1"},
		"postgres://one:1,two:2/d?sslmode=verify-full&sslsni=1": nil,
	} {
		log := &journal{}
		require.NoError(t, Config{Log: log.logger()}.warnUnverified(dsn), dsn)
		for _, host := range want {
			require.Contains(t, log.String(), host, dsn)
		}
		require.Equal(t, want == nil, log.String() == "", dsn)
	}
}

func TestTheHostThatAnsweredLastIsTriedFirst(t *testing.T) {
	cc, err := pgx.ParseConfig("postgres://one:1,two:2,10.0.0.3:3/d?sslmode=require")
	require.NoError(t, err)
	f := newFailover()
	f.learn("one", []string{"10.0.0.1"})
	f.learn("two", []string{"10.0.0.2"})
	for good, want := range map[string]string{
		"":           "one",
		"10.0.0.1:1": "one",
		"10.0.0.2:2": "two",
		"10.0.0.3:3": "10.0.0.3",
		"10.0.0.2:1": "one", // no host of ours
	} {
		f.good, f.bad = good, ""
		ordered := cc.Copy()
		f.order(ordered)
		require.Equal(t, want, ordered.Host, good)
		require.Len(t, ordered.Fallbacks, 2)
		require.NotNil(t, ordered.TLSConfig)
	}
}

func TestTheHostWhereConnectionsBrokeIsTriedLast(t *testing.T) {
	cc, err := pgx.ParseConfig("postgres://10.0.0.1:1,10.0.0.2:2,10.0.0.3:3/d?sslmode=disable")
	require.NoError(t, err)
	f := newFailover()
	f.bad = "10.0.0.1:1"
	f.order(cc)
	hosts := cc.Host
	for _, other := range cc.Fallbacks {
		hosts += " " + other.Host
	}
	require.Equal(t, "10.0.0.2 10.0.0.3 10.0.0.1", hosts)
}

func TestAPoolerIsNoticed(t *testing.T) {
	dsn := pgtest.Database(t)
	log := &journal{}
	s := openStore(t, Config{URL: pgtest.Pooler(t, dsn), Log: log.logger()})
	require.Equal(t, pgx.QueryExecModeCacheDescribe, s.pool.Config().ConnConfig.DefaultQueryExecMode)
	require.Contains(t, log.String(), "statement_timeout = '4s'", "which nothing sets otherwise")
	require.NotContains(t, log.String(), "--db-listen", "who does not listen needs no other address")
	s.Listen().Close()
	require.Contains(t, log.String(), "--db-listen")
	require.Equal(t, 1, count(t, s))

	log = &journal{}
	order(t, dsn, "alter database "+s.pool.Config().ConnConfig.Database+" set statement_timeout = '4s'")
	s = openStore(t, Config{URL: pgtest.Pooler(t, dsn), ListenURL: dsn, Log: log.logger()})
	listen(t, s)
	require.Empty(t, log.String(), "all is well")

	require.NoError(t, Migrate(t.Context(), s.cfg))
	direct := openStore(t, Config{URL: dsn})
	require.Equal(t, pgx.QueryExecModeCacheStatement, direct.pool.Config().ConnConfig.DefaultQueryExecMode)
}
