package postgres

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// grouping is a drone's backends and where they sit, as a store remembers them.
type grouping map[string]seat

// round renews as a database would that refuses nothing, and returns how many
// rows that writes.
func (g grouping) round(last *int64, ids ...string) (rows int) {
	var all []renewing
	for _, id := range ids {
		all = append(all, renewing{lessee: lessee{id, 1}, expiry: 60, seat: g[id]})
	}
	together, single := divide(all)
	shares, places := regroup(single)
	for i, r := range single {
		g[r.backend] = seat{}
		if shares[i] != nil {
			g[r.backend] = seat{drone: 1, term: *last + int64(*shares[i]), place: places[i]}
		}
	}
	*last += int64(len(single))
	return len(together) + len(single)
}

func names(from, to int) (all []string) {
	for i := from; i < to; i++ {
		all = append(all, fmt.Sprint("b-", i))
	}
	return all
}

func TestTheSameBackendsComeToRest(t *testing.T) {
	for n, want := range map[int]int{1: 1, 2: 1, 40: 1, 64: 1, 65: 2, 130: 3, 1000: 16} {
		g, last := grouping{}, int64(0)
		require.Equal(t, n, g.round(&last, names(0, n)...))
		for range 3 {
			require.Equal(t, want, g.round(&last, names(0, n)...), "%d backends", n)
		}
	}
}

func TestBackendsThatComeOneByOneShareAsWell(t *testing.T) {
	g, last := grouping{}, int64(0)
	for n := range 100 {
		g.round(&last, names(0, n+1)...)
	}
	require.LessOrEqual(t, g.round(&last, names(0, 100)...), 100/fewShare+1)
}

func TestWhatHasShrunkGrowsTogether(t *testing.T) {
	g, last := grouping{}, int64(0)
	g.round(&last, names(0, 128)...)
	rest := append(names(0, 5), names(120, 128)...)
	require.Equal(t, 13, g.round(&last, rest...))
	require.Equal(t, 1, g.round(&last, rest...))
}

func TestAnotherExpiryOrDroneIsAnotherTerm(t *testing.T) {
	at := seat{drone: 1, term: 7}
	_, single := divide([]renewing{
		{lessee{"a", 1}, 60, at}, {lessee{"b", 1}, 90, seat{drone: 1, term: 7, place: 1}}, {lessee{"c", 2}, 60, seat{}},
	})
	require.Len(t, single, 2)
	shares, _ := regroup(single)
	require.Equal(t, []*int32{nil, nil}, shares)
}
