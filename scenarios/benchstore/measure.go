package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// contender is a store with drones, and backends that hold the held keys. held
// and fresh may be called from any number of goroutines, and fail if the answer
// is not what was asked for.
type contender interface {
	name() string
	// held connects to the backend of held key i.
	held(ctx context.Context, i int) error
	// fresh connects to a key that nothing holds.
	fresh(ctx context.Context) error
	// endFresh ends the backends that fresh has made, so that each measurement
	// finds as many live ones as the one before.
	endFresh(ctx context.Context) error
	close() error
}

// kind is what is connected to.
type kind string

const (
	heldKind  kind = "held"
	freshKind kind = "new"
)

var kinds = []kind{heldKind, freshKind}

// clients is how many connect at once.
var clients = []int{1, 16, 64}

// cell is one place in the table.
type cell struct {
	kind    kind
	clients int
}

// figures is what was measured in one cell.
type figures struct {
	perSecond   float64
	median, p99 time.Duration
	server      time.Duration // of the server's processors, per connect
}

// takeTurns measures every cell for each contender in turn, round by round, and
// returns the medians over the rounds, by contender and cell.
func (b *benchmark) takeTurns(ctx context.Context, contenders ...contender) (map[string]map[cell]figures, error) {
	all := map[string]map[cell][]figures{}
	for _, c := range contenders {
		all[c.name()] = map[cell][]figures{}
	}
	for round := range b.load.rounds {
		for _, k := range kinds {
			for _, n := range clients {
				at := cell{k, n}
				for _, c := range contenders {
					f, err := b.measure(ctx, c, at)
					if err != nil {
						return nil, fmt.Errorf("%s, %s key, %d clients: %w", c.name(), k, n, err)
					}
					say("round %d of %d, %s key, %d clients, %s: %.0f/s, median %v, server %v each", round+1, b.load.rounds, k, n, c.name(),
						f.perSecond, f.median.Round(10*time.Microsecond), f.server.Round(time.Microsecond))
					all[c.name()][at] = append(all[c.name()][at], f)
				}
			}
		}
	}
	medians := map[string]map[cell]figures{}
	for name, cells := range all {
		medians[name] = map[cell]figures{}
		for at, rounds := range cells {
			medians[name][at] = median(rounds)
		}
	}
	return medians, nil
}

// median is taken of each figure by itself.
func median(rounds []figures) figures {
	return figures{
		perSecond: middle(rounds, func(f figures) float64 { return f.perSecond }),
		median:    middle(rounds, func(f figures) time.Duration { return f.median }),
		p99:       middle(rounds, func(f figures) time.Duration { return f.p99 }),
		server:    middle(rounds, func(f figures) time.Duration { return f.server }),
	}
}

func middle[N float64 | time.Duration](rounds []figures, of func(figures) N) N {
	all := make([]N, len(rounds))
	for i, f := range rounds {
		all[i] = of(f)
	}
	slices.Sort(all)
	return (all[(len(all)-1)/2] + all[len(all)/2]) / 2
}

// measure warms up and then counts. A connect that was begun in time is waited
// for and counts, and so does the time until the last one is over.
func (b *benchmark) measure(ctx context.Context, c contender, at cell) (figures, error) {
	if _, _, err := run(ctx, b.load, c, at, b.load.warm); err != nil {
		return figures{}, err
	}
	before, err := b.server.processorTime()
	if err != nil {
		return figures{}, err
	}
	took, elapsed, err := run(ctx, b.load, c, at, b.load.cell)
	if err != nil {
		return figures{}, err
	}
	after, err := b.server.processorTime()
	if err != nil {
		return figures{}, err
	}
	if at.kind == freshKind {
		if err := c.endFresh(ctx); err != nil {
			return figures{}, fmt.Errorf("end what was made: %w", err)
		}
	}
	slices.Sort(took)
	return figures{
		perSecond: float64(len(took)) / elapsed.Seconds(),
		median:    took[len(took)/2], p99: took[len(took)*99/100],
		server: (after - before) / time.Duration(len(took)),
	}, nil
}

// run has clients connect, each as soon as its last one was answered, and
// returns how long each connect took, and how long all.
func run(ctx context.Context, l load, c contender, at cell, d time.Duration) ([]time.Duration, time.Duration, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	each := make([][]time.Duration, at.clients)
	began := time.Now()
	var all sync.WaitGroup
	for i := range each {
		all.Go(func() {
			// At least one, so that there is a figure even on the slowest disk.
			for first := true; first || time.Since(began) < d; first = false {
				start := time.Now()
				if err := connectOnce(ctx, l, c, at.kind); err != nil {
					cancel(err)
					return
				}
				each[i] = append(each[i], time.Since(start))
			}
		})
	}
	all.Wait()
	return slices.Concat(each...), time.Since(began), context.Cause(ctx)
}

func connectOnce(ctx context.Context, l load, c contender, k kind) error {
	if k == freshKind {
		return c.fresh(ctx)
	}
	return c.held(ctx, rand.IntN(l.keys))
}
