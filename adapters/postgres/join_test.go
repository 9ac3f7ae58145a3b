package postgres_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"plane/system/backend"
	"plane/system/port"
)

// A key that was held lately is joined by a plain statement; where it no longer
// is what it was, whoever has changed that, a connect looks closer.
func TestAKeyThatWasHeldLatelyIsJoined(t *testing.T) {
	d := open(t)
	drone := d.drone("dr-1")
	other := d.controllers(2)[1]
	joins := func() int { return d.number("select count(*) from plane.token where cluster = 'c'") }
	connect := func(p port.ConnectParams, token string) (port.Connected, error) {
		p.Token = token
		return d.Connect(t.Context(), p)
	}
	first, err := connect(spawning("k", "b1"), "t1")
	require.NoError(t, err)
	require.True(t, first.Spawned)
	require.Zero(t, joins())

	second, err := connect(spawning("k", "b2"), "t2")
	require.NoError(t, err)
	require.Equal(t, port.Connected{BackendID: "b1", Status: backend.Scheduled, Cluster: "c"}, second)
	require.Equal(t, 1, joins())
	again, err := connect(spawning("k", "b2"), "t2")
	require.NoError(t, err, "a late try")
	require.Equal(t, "b1", again.BackendID)
	own, err := connect(spawning("k", "b1"), "t1")
	require.NoError(t, err, "a late try of the one that has spawned it")
	require.True(t, own.Spawned)
	require.Equal(t, "dr-1", own.Drone)

	p := spawning("k", "b2")
	p.Key.Tag = "another"
	_, err = connect(p, "t3")
	require.ErrorIs(t, err, port.ErrKeyHeld)
	end := func(id string) {
		t.Helper()
		outcomes, err := other.RecordStates(t.Context(), []port.StateReport{{Drone: drone, BackendID: id, State: backend.State{Status: backend.Terminated, Last: backend.Scheduled}}})
		require.NoError(t, err)
		require.Equal(t, []port.RecordOutcome{port.Recorded}, outcomes)
	}
	end("b1")
	p = spawning("k", "b2")
	p.Spawn = nil
	_, err = connect(p, "t4")
	require.ErrorIs(t, err, port.ErrKeyUnheld)
	third, err := connect(spawning("k", "b3"), "t5")
	require.NoError(t, err)
	require.True(t, third.Spawned)
	end("b3")
	static := spawning("k", "b4")
	static.Spawn.StaticToken = "s.static"
	_, err = other.Connect(t.Context(), static)
	require.NoError(t, err)
	fourth, err := connect(spawning("k", "b5"), "t6")
	require.NoError(t, err)
	require.Equal(t, "s.static", fourth.StaticToken)
}
