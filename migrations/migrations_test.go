package migrations_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"plane/adapters/postgres/pgtest"
	"plane/migrations"
)

// files are migrations, numbered in order.
func files(sql ...string) fstest.MapFS {
	from := fstest.MapFS{}
	for i, text := range sql {
		from[fmt.Sprintf("%04d_step.sql", i+1)] = &fstest.MapFile{Data: []byte(text)}
	}
	return from
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// empty is a database that was never migrated.
func empty(t *testing.T) (*pgx.Conn, string) {
	t.Helper()
	url := pgtest.Database(t)
	conn := connect(t, url)
	run(t, conn, "drop schema plane cascade")
	return conn, url
}

func run(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	_, err := conn.Exec(t.Context(), sql)
	require.NoError(t, err)
}

func count(t *testing.T, conn *pgx.Conn, table string) (n int) {
	t.Helper()
	require.NoError(t, conn.QueryRow(t.Context(), "select count(*) from "+table).Scan(&n))
	return n
}

const (
	makesTable = "create table plane.t (n int)"
	fillsTable = "insert into plane.t values (1)"
)

func TestApplyDoesWhatIsMissingInOrder(t *testing.T) {
	conn, _ := empty(t)
	ctx := t.Context()
	require.ErrorIs(t, migrations.CheckFrom(ctx, conn, files(makesTable)), migrations.ErrOlder)
	require.NoError(t, migrations.ApplyFrom(ctx, conn, files(makesTable)))
	require.NoError(t, migrations.CheckFrom(ctx, conn, files(makesTable)))
	all := files(makesTable, fillsTable, fillsTable)
	require.ErrorContains(t, migrations.CheckFrom(ctx, conn, all), "0002_step.sql")
	for range 2 {
		require.NoError(t, migrations.ApplyFrom(ctx, conn, all))
		require.Equal(t, 2, count(t, conn, "plane.t"))
		require.Equal(t, 3, count(t, conn, "plane.migrations"))
	}
}

func TestManyAtOnceApplyEachOnce(t *testing.T) {
	conn, url := empty(t)
	through := pgtest.Pooler(t, url) // where no lock of a session would do
	all := files(makesTable, fillsTable, "select pg_sleep(0.02)", fillsTable)
	var running sync.WaitGroup
	errs := make([]error, 16)
	for i := range errs {
		to := url
		if i%2 == 0 {
			to = through
		}
		conn := connect(t, to)
		running.Go(func() { errs[i] = migrations.ApplyFrom(t.Context(), conn, all) })
	}
	running.Wait()
	for _, err := range errs {
		require.NoError(t, err)
	}
	require.Equal(t, 2, count(t, conn, "plane.t"))
	require.Equal(t, 4, count(t, conn, "plane.migrations"))
}

func TestAFileIsAppliedWholeOrNotAtAll(t *testing.T) {
	conn, _ := empty(t)
	err := migrations.ApplyFrom(t.Context(), conn, files(makesTable, fillsTable+"; select 1/0"))
	require.ErrorContains(t, err, "apply migration 0002_step.sql: ERROR: division by zero")
	require.Equal(t, 1, count(t, conn, "plane.migrations"))
	require.Zero(t, count(t, conn, "plane.t"))
	require.NoError(t, migrations.ApplyFrom(t.Context(), conn, files(makesTable, fillsTable)), "mended")
}

func TestWhatWasAppliedIsNeverEdited(t *testing.T) {
	conn, _ := empty(t)
	require.NoError(t, migrations.ApplyFrom(t.Context(), conn, files(makesTable, fillsTable)))
	edited := files(makesTable+" -- or not", fillsTable)
	require.ErrorIs(t, migrations.ApplyFrom(t.Context(), conn, edited), migrations.ErrAltered)
	require.ErrorIs(t, migrations.CheckFrom(t.Context(), conn, edited), migrations.ErrAltered)
	run(t, conn, "delete from plane.migrations where number = 1")
	require.ErrorIs(t, migrations.CheckFrom(t.Context(), conn, files(makesTable, fillsTable)), migrations.ErrAltered)
}

func TestAnOlderProgramWorksWhileItCan(t *testing.T) {
	const harmless = "-- compatible-with: 1\n"
	for _, c := range []struct {
		name  string
		newer []string // after the one file that the program knows
		want  error
	}{
		{name: "one ahead", newer: []string{fillsTable}},
		{name: "two ahead", newer: []string{fillsTable, fillsTable}, want: migrations.ErrNewer},
		{name: "two ahead that say they are harmless", newer: []string{fillsTable, harmless + fillsTable}},
		{name: "one ahead that is not harmless", newer: []string{"-- compatible-with: 2\n" + fillsTable}, want: migrations.ErrNewer},
		{name: "a harmless one after one that is not", newer: []string{"-- compatible-with: 2\n", harmless}, want: migrations.ErrNewer},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, _ := empty(t)
			require.NoError(t, migrations.ApplyFrom(t.Context(), conn, files(append([]string{makesTable}, c.newer...)...)))
			for _, do := range []func(context.Context, *pgx.Conn) error{
				func(ctx context.Context, conn *pgx.Conn) error {
					return migrations.ApplyFrom(ctx, conn, files(makesTable))
				},
				func(ctx context.Context, conn *pgx.Conn) error {
					return migrations.CheckFrom(ctx, conn, files(makesTable))
				},
			} {
				require.ErrorIs(t, do(t.Context(), conn), c.want)
			}
		})
	}
}

func TestAMigrationStepsBackFromATableInUse(t *testing.T) {
	migrations.StepBackAfter(t, 30*time.Millisecond)
	conn, url := empty(t)
	require.NoError(t, migrations.ApplyFrom(t.Context(), conn, files(makesTable)))
	user := connect(t, url)
	run(t, user, "begin; lock table plane.t in access share mode")
	var done sync.WaitGroup
	done.Go(func() { user.Exec(t.Context(), "select pg_sleep(0.2); commit") })
	require.NoError(t, migrations.ApplyFrom(t.Context(), conn, files(makesTable, "alter table plane.t add column m int")))
	done.Wait()
	require.Equal(t, 2, count(t, conn, "plane.migrations"))
}

func TestFilesAreNumberedWithoutGaps(t *testing.T) {
	for name, from := range map[string]fstest.MapFS{
		"0002_step.sql: want a name like 0001_": {"0002_step.sql": {}},
		"0003_step.sql: want a name like 0002_": {"0001_step.sql": {}, "0003_step.sql": {}},
		"step.sql: want a name":                 {"step.sql": {}},
		"want a number up to 1, not 2":          {"0001_step.sql": {Data: []byte("-- compatible-with: 2\n")}},
	} {
		require.ErrorContains(t, migrations.ApplyFrom(t.Context(), nil, from), name)
	}
}

func TestTheseMigrationsApply(t *testing.T) {
	conn, _ := empty(t)
	require.NoError(t, migrations.Apply(t.Context(), conn))
	require.NoError(t, migrations.Check(t.Context(), conn))
	require.NoError(t, migrations.Apply(t.Context(), conn))
}
