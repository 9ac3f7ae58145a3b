// Package placement chooses the drone for a new backend: of a few drawn at
// random among those that have room for it, the least loaded. That spreads
// nearly as well as looking at all of them, and unlike looking at all of them it
// does not send every backend of a burst to the one drone that was emptiest when
// the burst began. Where no drone has room, it says of each why.
//
// A backend is promised what it asks for, and counts for no more, whatever it
// uses; one that asks for nothing counts only as a backend. So a drone is never
// promised more than it has, and is still overloaded by backends that do not ask:
// those are what a greatest number of backends is for.
//
// It owns no state and does no input or output: the same candidates and seed
// give the same choice.
package placement

import "math/rand/v2"

// Resources is what a backend is promised on its drone. What a backend does not
// state is zero, and it is promised none of it.
type Resources struct {
	MilliCPUs   int64 // thousandths of a processor
	MemoryBytes int64
}

// Capacity is what a drone has for backends. Zero is no limit.
type Capacity struct {
	MaxBackends int64
	MilliCPUs   int64
	MemoryBytes int64
}

// The most that a backend may ask for and that a drone may have. They are more
// than any machine has, and small enough that no sum that is made of them
// overflows.
const (
	MostMilliCPUs   = 1_000_000_000
	MostMemoryBytes = 1 << 46
	MostBackends    = 1_000_000_000
)

// Load is what a drone has and what of it is promised.
type Load struct {
	Backends int // that are not terminated
	Has      Capacity
	Promised Resources // to those backends
}

// HasRoom reports whether a backend that asks for so much fits on top. Only what
// it asks for matters: a drone that has promised more memory than it has (it may
// have come back with less) still takes a backend that asks for none.
func (l Load) HasRoom(asks Resources) bool {
	return !l.full() &&
		fits(asks.MilliCPUs, l.Promised.MilliCPUs, l.Has.MilliCPUs) &&
		fits(asks.MemoryBytes, l.Promised.MemoryBytes, l.Has.MemoryBytes)
}

func (l Load) full() bool { return l.Has.MaxBackends > 0 && int64(l.Backends) >= l.Has.MaxBackends }

func fits(asked, promised, has int64) bool { return asked == 0 || has == 0 || asked <= has-promised }

// share is how many thousandths of what is asked for would be promised, of the
// scarcer one; false when the drone does not limit all that is asked for.
func (l Load) share(asks Resources) (int64, bool) {
	cpu, cpuLimited := share(asks.MilliCPUs, l.Promised.MilliCPUs, l.Has.MilliCPUs)
	memory, memoryLimited := share(asks.MemoryBytes, l.Promised.MemoryBytes, l.Has.MemoryBytes)
	return max(cpu, memory), cpuLimited && memoryLimited
}

func share(asked, promised, has int64) (thousandths int64, limited bool) {
	if asked == 0 {
		return 0, true
	}
	if has == 0 {
		return 0, false
	}
	return (promised + asked) * 1000 / has, true
}

// Candidate is a drone that may take the backend.
type Candidate struct {
	Drone int64 // its number
	Load
}

// Choose draws up to bestOf (at least one) of the candidates that have room for
// what the backend asks for, each at most once, and returns the least loaded of
// them: the one with the smallest share promised, counted in thousandths of
// what it has, of the scarcer of the resources that are asked for; among equals,
// the one with the fewest backends; then the one drawn first. Shares count only
// if each drawn candidate limits all that is asked for. It reports false when no
// candidate has room.
func Choose(candidates []Candidate, asks Resources, bestOf int, seed uint64) (Candidate, bool) {
	able := make([]Candidate, 0, len(candidates))
	for _, c := range candidates {
		if c.HasRoom(asks) {
			able = append(able, c)
		}
	}
	if len(able) == 0 {
		return Candidate{}, false
	}
	rnd := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // the choice need not be hard to guess, but must follow from the seed
	drawn := able[:min(max(bestOf, 1), len(able))]
	for i := range drawn {
		j := i + rnd.IntN(len(able)-i)
		able[i], able[j] = able[j], able[i]
	}
	return leastLoaded(drawn, asks), true
}

func leastLoaded(drawn []Candidate, asks Resources) Candidate {
	allLimited := true
	for _, c := range drawn {
		_, limited := c.share(asks)
		allLimited = allLimited && limited
	}
	best := drawn[0]
	for _, c := range drawn[1:] {
		mine, its := int64(0), int64(0)
		if allLimited {
			mine, _ = c.share(asks)
			its, _ = best.share(asks)
		}
		if mine < its || mine == its && c.Backends < best.Backends {
			best = c
		}
	}
	return best
}
