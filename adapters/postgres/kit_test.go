package postgres

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"plane/adapters/postgres/pgtest"
	"plane/system/port"
)

// patience is how long a test waits for what should come soon.
const patience = 20 * time.Second

// openStore opens a database for one test.
func openStore(t *testing.T, cfg Config) *Store {
	t.Helper()
	s, err := Open(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

// freshStore is a store of its own database.
func freshStore(t *testing.T) *Store {
	t.Helper()
	return openStore(t, Config{URL: pgtest.Database(t)})
}

// listen returns a subscription that is in place.
func listen(t *testing.T, s *Store) *Listener {
	t.Helper()
	l := s.Listen()
	t.Cleanup(l.Close)
	require.Equal(t, resync, next(t, l), "the first hint")
	return l
}

// next requires a hint.
func next(t *testing.T, l port.Listener) port.Hint {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	h, err := l.Next(ctx)
	require.NoError(t, err)
	return h
}

// cut requires that the subscription is cut, and comes back with a resync.
func cut(t *testing.T, l port.Listener) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var err error
	for err == nil { // what came before it may still come
		_, err = l.Next(ctx)
	}
	for err != nil {
		require.NoError(t, ctx.Err())
		var h port.Hint
		if h, err = l.Next(ctx); err == nil {
			require.Equal(t, resync, h, "the first hint after a cut")
		}
	}
}

// order gives an order on a connection of its own.
func order(t *testing.T, url, sql string, args ...any) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer conn.Close(context.Background())
	_, err = conn.Exec(t.Context(), sql, args...)
	require.NoError(t, err)
}

// cutConnections ends all others' connections to the database.
const cutConnections = "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"

// journal is where a test's log goes.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func (j *journal) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
