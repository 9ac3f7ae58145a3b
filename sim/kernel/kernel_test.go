package kernel_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/sim/kernel"
	"plane/sim/world"
	"plane/system/port"
)

func start(k *kernel.Kernel) world.Node {
	return k.Start("node", 1, world.Clockwork{Offset: 3 * 365 * 24 * time.Hour, PPM: -15_000})
}

// mesh lets tasks of several nodes sleep, wake each other, time out and crash.
func mesh(seed uint64, d time.Duration) *kernel.Kernel {
	k := kernel.New(seed)
	var boot func(i, inc int)
	boot = func(i, inc int) {
		n := k.Start(fmt.Sprint("n", i), inc, world.Clockwork{Offset: time.Duration(i) * time.Hour, PPM: int64(i) * 1000})
		count := n.Tasks().EventCount()
		n.Tasks().Go("beat", func(ctx context.Context) {
			for n.Clock().Sleep(ctx, time.Duration(1+n.Random().IntN(1000))*time.Millisecond) == nil {
				count.Advance()
			}
		})
		for range 4 {
			n.Tasks().Go("wait", func(ctx context.Context) {
				for {
					seen := count.Read()
					ctx, cancel := port.WithTimeout(ctx, n.Clock(), 300*time.Millisecond)
					err := count.Await(ctx, seen)
					cancel()
					k.Tell(n.Name(), "%v", err)
				}
			})
		}
		k.After(time.Duration(1+n.Random().IntN(20))*time.Second, func() {
			n.Crash()
			boot(i, inc+1)
		})
	}
	for i := range 5 {
		boot(i, 1)
	}
	if err := k.Run(d); err != nil {
		panic(err)
	}
	return k
}

func TestSameSeedSameTrace(t *testing.T) {
	hashes := map[uint64]uint64{}
	for seed := range uint64(5) {
		a, b := mesh(seed, time.Minute), mesh(seed, time.Minute)
		require.Equal(t, a.Trace.Sum(), b.Trace.Sum(), "seed %d", seed)
		require.Equal(t, a.Events(), b.Events())
		hashes[a.Trace.Sum()] = seed
		a.Close()
		b.Close()
	}
	require.Len(t, hashes, 5, "each seed has a trace of its own")
}

func TestCrashTouchesNothingMore(t *testing.T) {
	k := kernel.New(1)
	defer k.Close()
	n := start(k)
	count := n.Tasks().EventCount()
	var log []string
	n.Tasks().Go("sleeper", func(ctx context.Context) {
		defer func() { log = append(log, "deferred") }()
		defer func() {
			_ = n.Clock().Sleep(ctx, time.Second)
			log = append(log, "slept in a deferred call")
		}()
		defer func() {
			count.Advance()
			log = append(log, "advanced in a deferred call")
		}()
		_ = n.Clock().Sleep(ctx, time.Hour)
		log = append(log, "slept")
	})
	n.Tasks().Go("never begun", func(context.Context) { log = append(log, "begun") })
	k.After(0, func() {})
	k.After(time.Minute, n.Crash)
	n.Tasks().Go("spawner", func(ctx context.Context) {
		_ = n.Clock().SleepUntil(ctx, n.Clock().Now().Add(50*time.Second))
		log = append(log, "spawner")
	})
	require.NoError(t, k.Run(2*time.Hour))
	require.ElementsMatch(t, []string{"begun", "spawner", "deferred"}, log)
	require.Zero(t, k.Live())
}

func TestCrashOfItself(t *testing.T) {
	k := kernel.New(1)
	defer k.Close()
	n := start(k)
	reached := false
	n.Tasks().Go("suicide", func(ctx context.Context) {
		n.Crash()
		_ = n.Clock().Now()
		reached = true
	})
	require.NoError(t, k.Run(time.Second))
	require.False(t, reached)
}

func TestDeadlineOnTheNodesClock(t *testing.T) {
	k := kernel.New(1)
	defer k.Close()
	n := start(k)
	n.Tasks().Go("task", func(ctx context.Context) {
		begin, truth := n.Clock().Now(), k.Now()
		ctx, cancel := port.WithTimeout(ctx, n.Clock(), 100*time.Second)
		defer cancel()
		inner, stop := context.WithCancel(ctx)
		defer stop()
		err := n.Clock().Sleep(inner, time.Hour)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, ctx.Err(), context.DeadlineExceeded)
		require.Equal(t, 100*time.Second, n.Clock().Now().Sub(begin))
		require.InDelta(t, 101.5, k.Now().Sub(truth).Seconds(), 0.1, "a slow clock takes longer")
		k.Tell("task", "done")
	})
	require.NoError(t, k.Run(time.Hour))
	require.Zero(t, k.Live())
}

// A cancel function of the standard library is nothing the kernel knows of.
func TestForeignCancelWakes(t *testing.T) {
	for _, depth := range []string{"directly", "under a deadline", "in a group"} {
		t.Run(depth, func(t *testing.T) {
			k := kernel.New(1)
			defer k.Close()
			n := start(k)
			var woken time.Duration
			n.Tasks().Go("owner", func(ctx context.Context) {
				cause := errors.New("enough")
				ctx, cancel := context.WithCancelCause(ctx)
				n.Tasks().Go("waiter", func(context.Context) {
					wait := ctx
					switch depth {
					case "under a deadline":
						var stop context.CancelFunc
						wait, stop = port.WithTimeout(ctx, n.Clock(), time.Hour)
						defer stop()
					case "in a group":
						g := n.Tasks().Group(ctx)
						g.Go("member", func(ctx context.Context) error { return n.Clock().Sleep(ctx, time.Hour) })
						require.ErrorIs(t, g.Wait(), cause)
						woken = k.Elapsed()
						return
					}
					require.ErrorIs(t, n.Clock().Sleep(wait, time.Hour), cause)
					woken = k.Elapsed()
				})
				_ = n.Sleep(ctx, time.Second)
				cancel(cause)
			})
			require.NoError(t, k.Run(time.Minute))
			require.Equal(t, time.Second, woken)
		})
	}
}

func TestGroupEndsTogether(t *testing.T) {
	k := kernel.New(1)
	defer k.Close()
	n := start(k)
	done := errors.New("done")
	var err error
	n.Tasks().Go("owner", func(ctx context.Context) {
		g := n.Tasks().Group(ctx)
		g.Go("waits", func(ctx context.Context) error { return n.Clock().Sleep(ctx, time.Hour) })
		g.Go("ends", func(ctx context.Context) error { return errors.Join(n.Clock().Sleep(ctx, time.Second), done) })
		err = g.Wait()
	})
	require.NoError(t, k.Run(time.Minute))
	require.ErrorIs(t, err, done)
	require.Zero(t, k.Live())
}

func TestPanicFailsTheRun(t *testing.T) {
	k := kernel.New(1)
	defer k.Close()
	start(k).Tasks().Go("bad", func(context.Context) { panic("broken invariant") })
	require.ErrorContains(t, k.Run(time.Second), "broken invariant")
}

// A mutex held over a port call stops the whole simulation; the watch says who
// waits for it.
func TestMutexOverPortIsFound(t *testing.T) {
	k := kernel.New(1)
	defer k.Close()
	n := start(k)
	var mu sync.Mutex
	found := make(chan string, 1)
	k.OnHang(50*time.Millisecond, func(task string) {
		select {
		case found <- task:
			mu.Unlock() // let the hung task go on, so that the test can end
		default:
		}
	})
	n.Tasks().Go("holder", func(ctx context.Context) {
		mu.Lock()
		_ = n.Clock().Sleep(ctx, time.Hour)
	})
	n.Tasks().Go("waiter", func(ctx context.Context) {
		_ = n.Clock().Sleep(ctx, time.Second)
		mu.Lock()
		defer mu.Unlock()
	})
	require.NoError(t, k.Run(time.Minute))
	require.Equal(t, "waiter", <-found)
}

func TestNoGoroutineIsLeft(t *testing.T) {
	open := mesh(1, 10*time.Second)
	require.NotEmpty(t, tasks(), "or they are not seen")
	open.Close()
	for seed := range uint64(10) {
		mesh(seed, 10*time.Second).Close()
	}
	require.Empty(t, tasks())
}

// tasks are the stacks of the kernels' tasks. The runtime has goroutines of its
// own that come and go, so it is no use to count.
func tasks() (all []string) {
	text := make([]byte, 1<<22)
	text = text[:runtime.Stack(text, true)]
	for _, stack := range strings.Split(string(text), "\n\n")[1:] { // the first is ours
		if strings.Contains(stack, "plane/sim/kernel") {
			all = append(all, stack)
		}
	}
	return all
}

func TestClockworkNeverGoesBackAndInverts(t *testing.T) {
	for _, ppm := range []int64{-20_000, -1, 0, 1, 19_999} {
		c := world.Clockwork{Offset: -40 * 365 * 24 * time.Hour, PPM: ppm}
		last := c.Local(world.Epoch)
		for e := time.Duration(1); e < 100*24*time.Hour; e = e*3 + 7 {
			truth := world.Epoch.Add(e)
			local := c.Local(truth)
			require.False(t, local.Before(last))
			require.False(t, c.Local(c.True(local)).Before(local))
			require.True(t, c.Local(c.True(local).Add(-1)).Before(local))
			last = local
		}
	}
}

func BenchmarkEvents(b *testing.B) {
	events := 0
	for b.Loop() {
		k := mesh(7, time.Hour)
		events += k.Events()
		k.Close()
	}
	b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
}

func BenchmarkSleepers(b *testing.B) {
	events := 0
	for b.Loop() {
		k := kernel.New(1)
		n := start(k)
		for range 5000 {
			n.Tasks().Go("sleeper", func(ctx context.Context) {
				for n.Clock().Sleep(ctx, 100*time.Millisecond) == nil {
				}
			})
		}
		if err := k.Run(10 * time.Second); err != nil {
			b.Fatal(err)
		}
		events += k.Events()
		k.Close()
	}
	b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
}
