package postgres_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"plane/adapters/postgres"
	"plane/adapters/postgres/pgtest"
)

// G1, F5: a commit that waits for a synchronous standby is there for nobody before
// it is on the standby, also when its caller has given up: the standby may become
// the primary without it.
func TestACommitThatWaitsForAStandbyIsNotSeen(t *testing.T) {
	server := pgtest.Server(t, pgtest.Options{})
	url := server.Database(t)
	s, err := postgres.Open(t.Context(), postgres.Config{URL: url})
	require.NoError(t, err)
	defer s.Close()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	d := &database{Store: s, t: t, url: url, conn: conn}
	drone := d.drone("dr-1")
	waiting := func(query string) int {
		return d.number("select count(*) from pg_stat_activity where pid <> pg_backend_pid() and wait_event = 'SyncRep' and query like '%" + query + "%'")
	}
	d.exec("set synchronous_commit = local")
	d.exec("alter system set synchronous_standby_names = 'away'")
	d.exec("select pg_reload_conf()")
	probe, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer probe.Close(context.WithoutCancel(t.Context()))
	probed := make(chan error, 1)
	stop := make(chan struct{})
	go func() { // until one of its commits waits
		for {
			if _, err := probe.Exec(t.Context(), "select pg_logical_emit_message(true, 'probe', '')"); err != nil {
				probed <- err
				return
			}
			select {
			case <-stop:
				probed <- nil
				return
			default:
			}
		}
	}()
	for waiting("probe") == 0 {
		require.Empty(t, probed)
	}

	close(stop)
	giveUp, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	answered := make(chan error, 1)
	go func() {
		_, err := s.Connect(giveUp, spawning("k", "b"))
		answered <- err
	}()
	for waiting("plane.token") == 0 {
		require.Empty(t, answered)
	}
	cancel()
	require.ErrorIs(t, <-answered, context.Canceled)
	d.exec("select pg_sleep(0.3)") // in which a request to cancel would arrive
	require.Equal(t, 1, waiting("plane.token"))
	actions, err := s.PendingActions(t.Context(), drone)
	require.NoError(t, err)
	require.Empty(t, actions)

	d.exec("alter system reset synchronous_standby_names")
	d.exec("select pg_reload_conf()")
	for actions = nil; len(actions) == 0; {
		actions, err = s.PendingActions(t.Context(), drone)
		require.NoError(t, err)
	}
	require.Equal(t, "b", actions[0].Action.BackendID)
	require.NoError(t, <-probed)
}
