package placement_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"plane/system/placement"
)

func TestChoose(t *testing.T) {
	three := []placement.Candidate{{Drone: 1, Backends: 5}, {Drone: 2, Backends: 0}, {Drone: 3, Backends: 9}}
	tests := map[string]struct {
		candidates []placement.Candidate
		bestOf     int
		want       []int64 // the drones that some seed chooses
	}{
		"nobody":                        {candidates: nil, bestOf: 2},
		"the only one":                  {candidates: three[:1], bestOf: 2, want: []int64{1}},
		"best of all is the emptiest":   {candidates: three, bestOf: 3, want: []int64{2}},
		"more than there are":           {candidates: three, bestOf: 99, want: []int64{2}},
		"best of two is never the last": {candidates: three, bestOf: 2, want: []int64{1, 2}},
		"best of one is anyone":         {candidates: three, bestOf: 1, want: []int64{1, 2, 3}},
		"best of none counts as one":    {candidates: three, bestOf: 0, want: []int64{1, 2, 3}},
		"equals are all chosen":         {candidates: []placement.Candidate{{Drone: 1}, {Drone: 2}}, bestOf: 2, want: []int64{1, 2}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var got []int64
			for seed := range uint64(100) {
				if c, ok := placement.Choose(slices.Clone(test.candidates), test.bestOf, seed); ok {
					got = append(got, c.Drone)
				}
			}
			slices.Sort(got)
			require.Equal(t, test.want, slices.Compact(got))
		})
	}
}

func TestChooseKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		loads := rapid.SliceOfN(rapid.IntRange(0, 20), 1, 50).Draw(t, "backends")
		candidates := make([]placement.Candidate, len(loads))
		for i, n := range loads {
			candidates[i] = placement.Candidate{Drone: int64(i), Backends: n}
		}
		bestOf := rapid.IntRange(-1, 60).Draw(t, "best of")
		seed := rapid.Uint64().Draw(t, "seed")

		given := slices.Clone(candidates)
		chosen, ok := placement.Choose(given, bestOf, seed)
		require.True(t, ok)
		require.Contains(t, candidates, chosen)
		require.ElementsMatch(t, candidates, given, "candidates are only reordered")

		again, _ := placement.Choose(slices.Clone(candidates), bestOf, seed)
		require.Equal(t, chosen, again, "the seed decides")

		// Whoever is the best of n has at least n-1 candidates that are no emptier.
		noEmptier := 0
		for _, c := range candidates {
			if c.Backends >= chosen.Backends {
				noEmptier++
			}
		}
		require.GreaterOrEqual(t, noEmptier, min(max(bestOf, 1), len(candidates)))
	})
}
