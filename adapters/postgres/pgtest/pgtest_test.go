package pgtest_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"plane/adapters/postgres/pgtest"
)

func TestEveryDatabaseIsFreshAndMigrated(t *testing.T) {
	for range 3 {
		conn := connect(t, pgtest.Database(t))
		require.Positive(t, number(t, conn, "select count(*) from plane.migrations"))
		_, err := conn.Exec(t.Context(), "create table fresh ()")
		require.NoError(t, err, "no other test was here")
	}
}

func TestADatabaseIsQuicklyThere(t *testing.T) {
	pgtest.Database(t) // with it comes the server
	best := time.Hour
	for range 5 {
		start := time.Now()
		pgtest.Database(t)
		best = min(best, time.Since(start))
	}
	t.Logf("a database: %v", best.Round(time.Millisecond))
	require.Less(t, best, time.Second, "20 ms on a quiet machine")
}

func TestServerKeepsWhatWasCommittedWhenItIsKilled(t *testing.T) {
	s := pgtest.Server(t, pgtest.Options{})
	url := s.Database(t)
	conn := connect(t, url)
	exec1(t, conn, "create table kept as select 7 as n")
	s.Kill(t)
	_, err := conn.Exec(t.Context(), "select 1")
	require.Error(t, err)
	s.Start(t)
	require.Equal(t, 7, number(t, connect(t, url), "select n from kept"))
	s.Stop(t)
	_, err = pgx.Connect(t.Context(), url)
	require.Error(t, err)
}

func TestStandbyHasEveryCommittedTransaction(t *testing.T) {
	primary := pgtest.Server(t, pgtest.Options{Password: "it's secret"})
	url := primary.Database(t)
	standby := primary.Standby(t)
	exec1(t, connect(t, url), "create table kept as select 7 as n")
	primary.Freeze(t)
	standby.Promote(t)
	there := strings.Replace(url, primary.Address(), standby.Address(), 1)
	require.Equal(t, 7, number(t, connect(t, there), "select n from kept"))
	exec1(t, connect(t, there), "insert into kept values (8)")
	primary.Thaw(t)
}

func TestServerDemandsItsPassword(t *testing.T) {
	s := pgtest.Server(t, pgtest.Options{Password: "it's secret"})
	connect(t, s.URL())
	_, err := pgx.Connect(t.Context(), "postgres://postgres@"+s.Address()+"/postgres?sslmode=disable&passfile=/nowhere")
	require.ErrorContains(t, err, "28P01")
}

// TestServerEndsWithTheTestProcess runs itself in another process, which is
// killed.
func TestServerEndsWithTheTestProcess(t *testing.T) {
	if os.Getenv("PGTEST_CHILD") != "" {
		s := pgtest.Server(t, pgtest.Options{})
		os.Stdout.WriteString(s.URL() + "\n")
		select {}
	}
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestServerEndsWithTheTestProcess$", "-test.v")
	child.Env = append(os.Environ(), "PGTEST_CHILD=1")
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	text := ""
	for buffer := make([]byte, 1000); !strings.Contains(text, "postgres://") || !strings.HasSuffix(text, "\n"); {
		n, err := out.Read(buffer)
		require.NoError(t, err)
		text += string(buffer[:n])
	}
	url := strings.TrimSpace(text[strings.Index(text, "postgres://"):])
	conn := connect(t, url)
	dir := ""
	require.NoError(t, conn.QueryRow(t.Context(), "show data_directory").Scan(&dir))
	require.NoError(t, child.Process.Kill())
	child.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err = conn.WaitForNotification(ctx)
	require.Error(t, err)
	require.NoError(t, ctx.Err(), "the connection ended with the server")
}

// BenchmarkDatabase says how long a test waits for a database.
func BenchmarkDatabase(b *testing.B) {
	pgtest.Database(b)
	for b.Loop() {
		pgtest.Database(b)
	}
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func exec1(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	_, err := conn.Exec(t.Context(), sql)
	require.NoError(t, err)
}

func number(t *testing.T, conn *pgx.Conn, sql string) (n int) {
	t.Helper()
	require.NoError(t, conn.QueryRow(t.Context(), sql).Scan(&n))
	return n
}
