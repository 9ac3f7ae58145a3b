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

func TestMediansAreOfEachFigure(t *testing.T) {
	t.Parallel()
	require.Equal(t, figures{perSecond: 20, median: 2, p99: 30}, median([]figures{
		{perSecond: 10, median: 3, p99: 20}, {perSecond: 20, median: 1, p99: 30}, {perSecond: 90, median: 2, p99: 40},
	}))
}
