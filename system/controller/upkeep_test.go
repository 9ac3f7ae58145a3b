package controller_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/controller"
	"plane/system/port"
)

// loaded is a store with much to sweep, which takes its time.
type loaded struct {
	port.Store
	sweeps   atomic.Int32
	cleanups atomic.Int32
	age      atomic.Int64 // that backends are kept for
}

const muchToSweep = 10

func (l *loaded) Sweep(ctx context.Context, _ port.SweepParams) (int, bool, error) {
	time.Sleep(3 * time.Second) //nolint:forbidigo // the time of the bubble
	return 0, l.sweeps.Add(1) < muchToSweep, ctx.Err()
}

func (l *loaded) Cleanup(_ context.Context, minAge time.Duration, _ int) (int, error) {
	l.cleanups.Add(1)
	l.age.Store(int64(minAge))
	return 0, nil
}

// Expired tokens are deleted even where the history is kept for ever.
func TestCleanupRunsAlways(t *testing.T) {
	for name, age := range map[string]time.Duration{"keeping all": 0, "keeping a day": 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, everyHint, func(r *rig) {
				other := *r
				store := &loaded{Store: r.store.Store}
				other.store = &flaky{Store: store}
				other.join("co-2", func(c *controller.Config) { c.CleanupMinAge, c.CleanupBatch = age, 10 })
				pass(time.Minute + time.Second)
				require.EqualValues(r, 2, store.cleanups.Load())
				require.EqualValues(r, age, store.age.Load())
			})
		})
	}
}

// G4: what ends together is swept together, not a batch every five seconds; and
// the time that one call may take is not that of all.
func TestASweepGoesOnWhileThereIsMore(t *testing.T) {
	inBubble(t, everyHint, func(r *rig) {
		other := *r
		store := &loaded{Store: r.store.Store}
		other.store = &flaky{Store: store}
		other.join("co-2", func(*controller.Config) {})
		pass(muchToSweep*3*time.Second + time.Second)
		require.EqualValues(r, muchToSweep, store.sweeps.Load())
		pass(4 * time.Second)
		require.EqualValues(r, muchToSweep, store.sweeps.Load(), "and then it rests")
	})
}
