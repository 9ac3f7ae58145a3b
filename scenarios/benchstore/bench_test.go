package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestEveryPartRuns, briefly: what it measures is looked at by people.
func TestEveryPartRuns(t *testing.T) {
	t.Parallel()
	if _, err := binaries(); err != nil {
		t.Skipf("needs PostgreSQL: %v", err)
	}
	require.NoError(t, bench(t.Context(), options{
		parts:   parts,
		dir:     "", // the system's: a test's own is closed to the user that the server runs as
		load:    load{keys: 10, rounds: 1, cell: 50 * time.Millisecond},
		rest:    restLoad{backends: 100, watch: time.Second, each: 200},
		history: 1000,
	}))
}

// In each slot as many as in every other, or one more, and all in their order
// within a term.
func TestRestingBackendsAreSpreadOverTheSlots(t *testing.T) {
	for _, n := range []int{1, 7, 24, 100, 3333} {
		in := map[time.Duration]int{}
		for i := range n {
			at := slotOf(i, n)
			require.Zero(t, at%renewSlot)
			require.Less(t, at, renewEvery)
			require.True(t, i == 0 || slotOf(i-1, n) <= at)
			in[at]++
		}
		require.Len(t, in, min(n, 24))
		for _, there := range in {
			require.InDelta(t, float64(n)/24, there, 1)
		}
	}
}

func TestMediansAreOfEachFigure(t *testing.T) {
	t.Parallel()
	require.Equal(t, figures{perSecond: 20, median: 2, p99: 30}, median([]figures{
		{perSecond: 10, median: 3, p99: 20}, {perSecond: 20, median: 1, p99: 30}, {perSecond: 90, median: 2, p99: 40},
	}))
}
