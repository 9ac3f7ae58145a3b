package placement_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"plane/system/placement"
)

const gib = 1 << 30

// with is a candidate that has so many backends, and no limits.
func with(drone int64, backends int) placement.Candidate {
	return placement.Candidate{Drone: drone, Load: placement.Load{Backends: backends}}
}

// half is a drone with so many CPUs, half of them promised to two backends.
func half(drone, cpus int64) placement.Candidate {
	return placement.Candidate{Drone: drone, Load: placement.Load{
		Backends: 2, Has: placement.Capacity{MilliCPUs: cpus * 1000}, Promised: placement.Resources{MilliCPUs: cpus * 500},
	}}
}

func TestChoose(t *testing.T) {
	three := []placement.Candidate{with(1, 5), with(2, 0), with(3, 9)}
	full := placement.Candidate{Drone: 4, Load: placement.Load{Has: placement.Capacity{MaxBackends: 3}, Backends: 3}}
	cpu := placement.Resources{MilliCPUs: 1000}
	tests := map[string]struct {
		candidates []placement.Candidate
		asks       placement.Resources
		bestOf     int
		want       []int64 // the drones that some seed chooses
	}{
		"nobody":                           {candidates: nil, bestOf: 2},
		"the only one":                     {candidates: three[:1], bestOf: 2, want: []int64{1}},
		"best of all is the emptiest":      {candidates: three, bestOf: 3, want: []int64{2}},
		"more than there are":              {candidates: three, bestOf: 99, want: []int64{2}},
		"best of two is never the last":    {candidates: three, bestOf: 2, want: []int64{1, 2}},
		"best of one is anyone":            {candidates: three, bestOf: 1, want: []int64{1, 2, 3}},
		"best of none counts as one":       {candidates: three, bestOf: 0, want: []int64{1, 2, 3}},
		"equals are all chosen":            {candidates: []placement.Candidate{with(1, 0), with(2, 0)}, bestOf: 2, want: []int64{1, 2}},
		"nobody has room":                  {candidates: []placement.Candidate{full}, bestOf: 2},
		"only those with room are drawn":   {candidates: append([]placement.Candidate{full}, three...), bestOf: 2, want: []int64{1, 2}},
		"one that has room for no more":    {candidates: []placement.Candidate{half(1, 1), half(2, 4)}, asks: cpu, bestOf: 1, want: []int64{2}},
		"what is asked for fills the big":  {candidates: []placement.Candidate{half(1, 4), half(2, 64)}, asks: cpu, bestOf: 2, want: []int64{2}},
		"nothing asked: backends count":    {candidates: []placement.Candidate{half(1, 4), with(2, 3)}, bestOf: 2, want: []int64{1}},
		"no limit to compare: so they do":  {candidates: []placement.Candidate{half(1, 4), with(2, 3)}, asks: cpu, bestOf: 2, want: []int64{1}},
		"the same share: so they do":       {candidates: []placement.Candidate{half(1, 8), {Drone: 2, Load: placement.Load{Backends: 1, Has: half(2, 8).Has, Promised: half(2, 8).Promised}}}, asks: cpu, bestOf: 2, want: []int64{2}},
		"the scarcer resource is compared": {candidates: []placement.Candidate{scarce(1, 100*gib, 8*gib), scarce(2, 100*gib, 16*gib)}, asks: placement.Resources{MilliCPUs: 1, MemoryBytes: gib}, bestOf: 2, want: []int64{2}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var got []int64
			for seed := range uint64(100) {
				if c, ok := placement.Choose(slices.Clone(test.candidates), test.asks, test.bestOf, seed); ok {
					got = append(got, c.Drone)
				}
			}
			slices.Sort(got)
			require.Equal(t, test.want, slices.Compact(got))
		})
	}
}

// scarce is a drone with so many thousandths of a CPU, and memory.
func scarce(drone, milli, memory int64) placement.Candidate {
	return placement.Candidate{Drone: drone, Load: placement.Load{Has: placement.Capacity{MilliCPUs: milli, MemoryBytes: memory}}}
}

func TestHasRoom(t *testing.T) {
	two := placement.Load{
		Backends: 2, Has: placement.Capacity{MaxBackends: 3, MilliCPUs: 4000, MemoryBytes: 8 * gib},
		Promised: placement.Resources{MilliCPUs: 3000, MemoryBytes: 9 * gib}, // it has lost some memory
	}
	full := two
	full.Backends = 3
	tests := map[string]struct {
		load placement.Load
		asks placement.Resources
		want bool
	}{
		"no limits":                         {placement.Load{Backends: 1e6, Promised: placement.Resources{MilliCPUs: 1e12}}, placement.Resources{MilliCPUs: 1e9, MemoryBytes: 1 << 46}, true},
		"what is asked for nothing counts":  {two, placement.Resources{}, true},
		"the last of it":                    {two, placement.Resources{MilliCPUs: 1000}, true},
		"a thousandth more":                 {two, placement.Resources{MilliCPUs: 1001}, false},
		"one of two":                        {two, placement.Resources{MilliCPUs: 1000, MemoryBytes: 1}, false},
		"more promised than there is":       {two, placement.Resources{MemoryBytes: 1}, false},
		"full, although nothing is asked":   {full, placement.Resources{}, false},
		"what is not limited is not scarce": {placement.Load{Has: placement.Capacity{MilliCPUs: 1000}}, placement.Resources{MilliCPUs: 1000, MemoryBytes: 1 << 46}, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) { require.Equal(t, test.want, test.load.HasRoom(test.asks)) })
	}
}

func TestChooseKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		candidates := rapid.SliceOfN(anyCandidate, 1, 50).Draw(t, "candidates")
		asks := anyResources(4000).Draw(t, "asks")
		bestOf := rapid.IntRange(-1, 60).Draw(t, "best of")
		seed := rapid.Uint64().Draw(t, "seed")

		given := slices.Clone(candidates)
		chosen, ok := placement.Choose(given, asks, bestOf, seed)
		require.Equal(t, candidates, given, "what is given stays as it is")
		again, _ := placement.Choose(given, asks, bestOf, seed)
		require.Equal(t, chosen, again, "the seed decides")

		able := slices.DeleteFunc(slices.Clone(candidates), func(c placement.Candidate) bool { return !c.HasRoom(asks) })
		require.Equal(t, len(able) > 0, ok)
		if !ok {
			return
		}
		require.Contains(t, able, chosen)
		if asks != (placement.Resources{}) {
			return
		}
		// Whoever is the best of n has at least n-1 candidates that are no emptier.
		noEmptier := 0
		for _, c := range able {
			if c.Backends >= chosen.Backends {
				noEmptier++
			}
		}
		require.GreaterOrEqual(t, noEmptier, min(max(bestOf, 1), len(able)))
	})
}

func TestPlacingOneAfterTheOtherNeverPromisesTooMuch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		candidates := rapid.SliceOfN(anyCandidate, 1, 6).Draw(t, "candidates")
		for i := range candidates {
			candidates[i].Drone, candidates[i].Backends, candidates[i].Promised = int64(i), 0, placement.Resources{}
		}
		for seed, asks := range rapid.SliceOfN(anyResources(3000), 0, 40).Draw(t, "asks") {
			chosen, ok := placement.Choose(candidates, asks, 2, uint64(seed))
			if !ok {
				continue
			}
			c := &candidates[chosen.Drone]
			c.Backends++
			c.Promised.MilliCPUs += asks.MilliCPUs
			c.Promised.MemoryBytes += asks.MemoryBytes
			within := func(promised, has int64) bool { return has == 0 || promised <= has }
			require.True(t, within(int64(c.Backends), c.Has.MaxBackends) &&
				within(c.Promised.MilliCPUs, c.Has.MilliCPUs) && within(c.Promised.MemoryBytes, c.Has.MemoryBytes), "%+v", *c)
		}
	})
}

func anyResources(most int64) *rapid.Generator[placement.Resources] {
	return rapid.Custom(func(t *rapid.T) placement.Resources {
		return placement.Resources{MilliCPUs: rapid.Int64Range(0, most).Draw(t, "cpu"), MemoryBytes: rapid.Int64Range(0, most).Draw(t, "memory")}
	})
}

var anyCandidate = rapid.Custom(func(t *rapid.T) placement.Candidate {
	return placement.Candidate{Drone: rapid.Int64Range(1, 99).Draw(t, "drone"), Load: placement.Load{
		Backends: rapid.IntRange(0, 20).Draw(t, "backends"),
		Promised: anyResources(6000).Draw(t, "promised"),
		Has: placement.Capacity{
			MaxBackends: rapid.Int64Range(0, 20).Draw(t, "most backends"),
			MilliCPUs:   rapid.Int64Range(0, 8000).Draw(t, "cpus"),
			MemoryBytes: rapid.Int64Range(0, 8000).Draw(t, "memory"),
		},
	}}
})
