package postgres_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"plane/adapters/postgres"
	"plane/adapters/postgres/pgtest"
	"plane/system/port"
	"plane/system/porttest"
)

// database is a fresh one, with a store on it and a way to tamper with it.
type database struct {
	*postgres.Store
	t    *testing.T
	url  string
	conn *pgx.Conn
}

func open(t *testing.T) *database {
	t.Helper()
	url := pgtest.Database(t)
	s, err := postgres.Open(t.Context(), postgres.Config{URL: url})
	require.NoError(t, err)
	t.Cleanup(s.Close)
	postgres.GatherNothing(s)
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	return &database{Store: s, t: t, url: url, conn: conn}
}

// exec runs SQL behind the store's back.
func (d *database) exec(sql string, args ...any) {
	d.t.Helper()
	_, err := d.conn.Exec(d.t.Context(), sql, args...)
	require.NoError(d.t, err)
}

// hold runs SQL in a transaction that stays open until release is called.
func (d *database) hold(sql string) (release func()) {
	d.t.Helper()
	conn, err := pgx.Connect(d.t.Context(), d.url)
	require.NoError(d.t, err)
	tx, err := conn.Begin(d.t.Context())
	require.NoError(d.t, err)
	_, err = tx.Exec(d.t.Context(), sql)
	require.NoError(d.t, err)
	return func() {
		d.t.Helper()
		require.NoError(d.t, tx.Commit(d.t.Context()))
		require.NoError(d.t, conn.Close(d.t.Context()))
	}
}

// blocked returns once a statement of the store waits for a lock.
func (d *database) blocked() {
	d.t.Helper()
	d.exec(`do $$ begin
		while not exists (select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock') loop
			perform pg_sleep(0.002), pg_stat_clear_snapshot();
		end loop;
	end $$`)
}

// advance lets time pass on the store's clock.
func (d *database) advance(by time.Duration) {
	d.t.Helper()
	d.exec("update plane.clock set last = last + plane.us($1), behind = behind - $1", by.Microseconds())
}

// underTest is a fresh store as the suites want it.
func underTest(t *testing.T) porttest.StoreUnderTest {
	t.Helper()
	d := open(t)
	listener := d.Listen()
	t.Cleanup(listener.Close)
	first, err := listener.Next(t.Context()) // from here on it listens
	require.NoError(t, err)
	require.Equal(t, port.ResyncTopic, first.Topic)
	return porttest.StoreUnderTest{Store: d, Listener: listener, Advance: d.advance, Second: time.Second}
}

func TestStore(t *testing.T) { porttest.Store(t, underTest) }

func TestChallenges(t *testing.T) { porttest.Challenges(t, underTest) }

func TestOperations(t *testing.T) {
	porttest.Operations(t, func(t *testing.T) porttest.OperationsUnderTest {
		s := underTest(t)
		return porttest.OperationsUnderTest{StoreUnderTest: s, Operations: s.Store.(port.Operations)}
	})
}
