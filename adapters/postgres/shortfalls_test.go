package postgres_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/backend"
	"plane/system/port"
)

// Shortfall 5: numbers are given out before the commit. What is read is what is
// recent, so a revocation that becomes visible after a later one is seen, too.
func TestShortfall5ARevocationThatCommitsLateIsSeen(t *testing.T) {
	d := open(t)
	d.drone("dr-1")
	for _, id := range []string{"early", "late"} {
		_, err := d.Connect(t.Context(), spawning("key of "+id, id))
		require.NoError(t, err)
	}
	slow, err := d.conn.Begin(t.Context())
	require.NoError(t, err)
	_, err = slow.Exec(t.Context(), "select plane.revoke('early', 'ann')")
	require.NoError(t, err)
	require.NoError(t, d.Revoke(t.Context(), "late", "bob"))

	seen := func() (revoked []string, ids []int64) {
		recent, _, err := d.Revocations(t.Context(), time.Minute)
		require.NoError(t, err)
		for _, r := range recent {
			revoked, ids = append(revoked, r.BackendID), append(ids, r.ID)
		}
		return revoked, ids
	}
	first, _ := seen()
	require.Equal(t, []string{"late"}, first)
	require.NoError(t, slow.Commit(t.Context()))
	both, ids := seen()
	require.Equal(t, []string{"early", "late"}, both)
	require.Less(t, ids[0], ids[1], "or this is not the case that 0.5.x lost")
}

// Shortfall 10, G2: the fencing token grows, also while the database's clock
// goes back.
func TestShortfall10FencingTokensGrowWhateverTheClockShows(t *testing.T) {
	d := walled(t)
	drone := d.drone("dr-1")
	last := int64(0)
	for i, step := range []time.Duration{0, -day, -time.Millisecond, 0, day, -365 * day} {
		d.wall(step)
		d.beat(drone, "dr-1")
		id := fmt.Sprint("b", i)
		c, err := d.Connect(t.Context(), spawning("k", id))
		require.NoError(t, err)
		require.Equal(t, id, c.BackendID)
		actions, err := d.PendingActions(t.Context(), drone)
		require.NoError(t, err)
		token := actions[len(actions)-1].Action.Action.Spawn.Key.Token
		require.Greater(t, token, last, "after a step of %v", step)
		last = token
		ended, ok := backend.TerminatedState(backend.State{Status: backend.Scheduled}, backend.Hard, backend.External)
		require.True(t, ok)
		outcomes, err := d.RecordStates(t.Context(), []port.StateReport{{Drone: drone, BackendID: id, State: ended, Time: time.UnixMilli(1)}})
		require.NoError(t, err)
		require.Equal(t, []port.RecordOutcome{port.Recorded}, outcomes)
	}
}
