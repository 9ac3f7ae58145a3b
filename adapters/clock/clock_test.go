package clock_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/clock"
	"plane/system/port"
)

var (
	_ port.Clock = (*clock.Monotonic)(nil)
	_ port.Tasks = (*clock.Tasks)(nil)
	_ port.Rand  = clock.Rand{}
)

func TestGroupEndsTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		done := errors.New("done")
		c := clock.New()
		g := clock.NewTasks(t.Context()).Group(t.Context())
		g.Go("waits", func(ctx context.Context) error { return c.Sleep(ctx, time.Hour) })
		g.Go("ends", func(ctx context.Context) error { return errors.Join(c.Sleep(ctx, time.Second), done) })
		start := c.Now()
		require.ErrorIs(t, g.Wait(), done)
		require.Equal(t, time.Second, c.Now().Sub(start))
	})
}

func TestEventCountLosesNoWakeUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tasks := clock.NewTasks(t.Context())
		e := tasks.EventCount()
		seen := e.Read()
		e.Advance()
		require.NoError(t, e.Await(t.Context(), seen), "advanced before the wait")
		seen = e.Read()
		var woken atomic.Int32
		for range 3 {
			tasks.Go("waiter", func(ctx context.Context) {
				if e.Await(ctx, seen) == nil {
					woken.Add(1)
				}
			})
			synctest.Wait()
		}
		e.Advance()
		synctest.Wait()
		require.EqualValues(t, 3, woken.Load())
		tasks.Stop()
	})
}
