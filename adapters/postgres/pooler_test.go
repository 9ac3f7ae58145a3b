package postgres_test

import (
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/postgres"
	"plane/adapters/postgres/pgtest"
	"plane/system/port"
	"plane/system/porttest"
)

// TestStoreThroughPgBouncer holds the store to its promises behind a pooler in
// transaction mode, where each statement may come to another session. The
// listener alone goes past it.
func TestStoreThroughPgBouncer(t *testing.T) {
	pooler, err := url.Parse(pgtest.Pooler(t, pgtest.Database(t)))
	require.NoError(t, err)
	porttest.Store(t, func(t *testing.T) porttest.StoreUnderTest {
		d := open(t)
		through, err := url.Parse(d.url)
		require.NoError(t, err)
		through.Host = pooler.Host
		s, err := postgres.Open(t.Context(), postgres.Config{URL: through.String(), ListenURL: d.url})
		require.NoError(t, err)
		t.Cleanup(s.Close)
		postgres.GatherNothing(s)
		listener := s.Listen()
		t.Cleanup(listener.Close)
		first, err := listener.Next(t.Context())
		require.NoError(t, err)
		require.Equal(t, port.ResyncTopic, first.Topic)
		return porttest.StoreUnderTest{Store: s, Listener: listener, Advance: d.advance, Second: time.Second}
	})
}
