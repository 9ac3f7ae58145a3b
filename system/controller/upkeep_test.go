package controller_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/controller"
	"plane/system/ledger"
	"plane/system/port"
)

// loaded is a store with much to sweep, which takes its time.
type loaded struct {
	port.Store
	sweeps   atomic.Int32
	cleanups atomic.Int32
	age      atomic.Int64 // that backends are kept for
	every    []time.Duration
}

const muchToSweep = 10

func (l *loaded) Sweep(ctx context.Context, p port.SweepParams) (int, bool, error) {
	l.every = append(l.every, p.Every) // one controller, one call at a time
	time.Sleep(3 * time.Second)        //nolint:forbidigo // the time of the bubble
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
		pass(5 * time.Second)
		var want []time.Duration
		for i := range muchToSweep + 1 {
			want = append(want, 0)
			if i == 0 || i == muchToSweep {
				want[i] = 4 * time.Second
			}
		}
		require.Equal(r, want, store.every, "its own turn does not keep it from going on")
	})
}

// turns notes which controller looked when, of those that share it.
type turns struct {
	mu    sync.Mutex
	books *ledger.Ledger
	taken []turn
}

type turn struct {
	by string
	at time.Time
}

func (t *turns) all() []turn {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.taken)
}

// swept is a controller's way to a store that has nothing to sweep.
type swept struct {
	port.Store
	*turns
	by   string
	away atomic.Bool
}

func (s *swept) Sweep(_ context.Context, p port.SweepParams) (int, bool, error) {
	if s.away.Load() {
		return 0, false, errUnclear
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if now := time.Now(); s.books.TakeTurn(now, p) { //nolint:forbidigo // the time of the bubble
		s.taken = append(s.taken, turn{s.by, now})
	}
	return 0, false, nil
}

// G4: however many controllers there are, somebody looks every five seconds, and
// hardly more often; and soon after one has stopped, another does.
func TestControllersLookInTurn(t *testing.T) {
	for _, phase := range []time.Duration{0, 300 * time.Millisecond, 1700 * time.Millisecond, 2400 * time.Millisecond} {
		inBubble(t, everyHint, func(r *rig) {
			looks := &turns{books: ledger.New()}
			ways := map[string]*swept{}
			for _, name := range []string{"co-2", "co-3", "co-4"} {
				other := *r
				ways[name] = &swept{Store: r.store.Store, turns: looks, by: name}
				other.store = &flaky{Store: ways[name]}
				other.join(name, func(*controller.Config) {})
				pass(phase)
			}
			pass(2 * time.Minute)
			all := looks.all()
			gone := all[len(all)-1].by
			ways[gone].away.Store(true)
			pass(time.Minute)
			all = looks.all()
			for i, next := range all[1:] {
				gap, most := next.at.Sub(all[i].at), 5*time.Second
				if all[i].by == gone && next.by != gone {
					most = 9 * time.Second
				}
				require.GreaterOrEqual(r, gap, 4*time.Second, "phase %v, look %d", phase, i)
				require.LessOrEqual(r, gap, most, "phase %v, look %d", phase, i)
			}
			require.NotEqual(r, gone, all[len(all)-1].by)
			require.WithinDuration(r, time.Now(), all[len(all)-1].at, 5*time.Second) //nolint:forbidigo // the time of the bubble
		})
	}
}
