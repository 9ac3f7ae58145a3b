package backend_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"plane/system/backend"
)

var lifecycle = []backend.Status{
	backend.Scheduled, backend.Loading, backend.Starting, backend.Waiting,
	backend.Ready, backend.Terminating, backend.HardTerminating, backend.Terminated,
}

func TestStatusOnlyMovesForward(t *testing.T) {
	for i, now := range lifecycle {
		for j, next := range lifecycle {
			follows := backend.State{Status: now}.Follows(backend.State{Status: next})
			require.Equal(t, j > i, follows, "%v then %v", now, next)
		}
	}
}

func TestStatusTextRoundTrip(t *testing.T) {
	for _, s := range lifecycle {
		parsed, err := backend.ParseStatus(s.String())
		require.NoError(t, err)
		require.Equal(t, s, parsed)
	}
	_, err := backend.ParseStatus("sleeping")
	require.ErrorContains(t, err, `"sleeping"`)
	_, err = backend.Status(55).MarshalText()
	require.ErrorContains(t, err, "55")
}

func TestTermination(t *testing.T) {
	ready := backend.State{Status: backend.Ready, Address: "10.0.0.5:8080"}
	soft := backend.State{Status: backend.Terminating, Last: backend.Ready, Termination: backend.Soft, Reason: backend.Swept}
	hard := backend.State{Status: backend.HardTerminating, Last: backend.Ready, Termination: backend.Hard, Reason: backend.External}
	for _, c := range []struct {
		name   string
		from   backend.State
		kind   backend.Kind
		reason backend.Reason
		want   backend.State
		moves  bool
	}{
		{"soft when ready", ready, backend.Soft, backend.Swept, soft, true},
		{"hard when ready", ready, backend.Hard, backend.External, hard, true},
		{"soft twice", soft, backend.Soft, backend.External, backend.State{}, false},
		{
			"hard after soft keeps the first reason", soft, backend.Hard, backend.KeyExpired,
			backend.State{Status: backend.HardTerminating, Last: backend.Ready, Termination: backend.Hard, Reason: backend.Swept}, true,
		},
		{"soft after hard", hard, backend.Soft, backend.Swept, backend.State{}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, moves := backend.TerminatingState(c.from, c.kind, c.reason)
			require.Equal(t, c.moves, moves)
			if moves {
				require.Equal(t, c.want, got)
			}
		})
	}
}

func TestTheEndKeepsWhatIsKnown(t *testing.T) {
	soft := backend.State{Status: backend.Terminating, Last: backend.Waiting, Termination: backend.Soft, Reason: backend.Swept}
	end, moves := backend.TerminatedState(soft, backend.Hard, backend.Lost)
	require.True(t, moves)
	require.Equal(t, backend.State{Status: backend.Terminated, Last: backend.Waiting, Termination: backend.Soft, Reason: backend.Swept}, end)

	end, moves = backend.TerminatedState(backend.State{Status: backend.Ready}, "", "")
	require.True(t, moves)
	require.Equal(t, backend.State{Status: backend.Terminated, Last: backend.Ready}, end)

	_, moves = backend.TerminatedState(end, backend.Hard, backend.Lost)
	require.False(t, moves)
}
