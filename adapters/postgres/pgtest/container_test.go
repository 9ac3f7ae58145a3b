package pgtest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
)

func TestAServerMayBeAContainer(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	url, keep, err := container(ctx)
	if errors.Is(err, errNoContainer) {
		t.Skipf("needs PostgreSQL as a container: %v", err)
	}
	require.NoError(t, err)
	s := &source{url: url, keep: keep}
	require.NoError(t, s.makeTemplate(ctx))
	name, err := s.copy(ctx)
	require.NoError(t, err)
	conn, err := pgx.Connect(ctx, withDatabase(url, name))
	require.NoError(t, err)
	require.NoError(t, conn.Close(ctx))
}
