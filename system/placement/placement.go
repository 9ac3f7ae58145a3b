// Package placement chooses the drone for a new backend: of a few drawn at
// random, the one with the fewest backends. That spreads nearly as well as
// looking at all of them, and unlike looking at all of them it does not send
// every backend of a burst to the one drone that was emptiest when the burst
// began.
//
// It owns no state and does no input or output: the same candidates and seed
// give the same choice.
package placement

import "math/rand/v2"

// Candidate is a drone that may take the backend.
type Candidate struct {
	Drone    int64 // its number
	Backends int   // how many backends it has that are not terminated
}

// Choose draws up to bestOf candidates (at least one), each at most once, and
// returns the one with the fewest backends; among equals, the one drawn first.
// It reports false when there are no candidates. The slice is reordered.
func Choose(candidates []Candidate, bestOf int, seed uint64) (Candidate, bool) {
	if len(candidates) == 0 {
		return Candidate{}, false
	}
	rnd := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // the choice need not be hard to guess, but must follow from the seed
	draws := min(max(bestOf, 1), len(candidates))
	best := 0
	for i := range draws {
		j := i + rnd.IntN(len(candidates)-i)
		candidates[i], candidates[j] = candidates[j], candidates[i]
		if candidates[i].Backends < candidates[best].Backends {
			best = i
		}
	}
	return candidates[best], true
}
