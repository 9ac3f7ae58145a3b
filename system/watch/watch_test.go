package watch_test

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"plane/system/watch"
)

func TestHubWakesInOrderAndOnlyTheTopic(t *testing.T) {
	var hub watch.Hub
	var got []string
	cancelA := hub.Subscribe("x", func() { got = append(got, "a") })
	hub.Subscribe("x", func() { got = append(got, "b") })
	hub.Subscribe("y", func() { got = append(got, "c") })
	hub.Announce("x")
	hub.Announce("nobody")
	require.Equal(t, []string{"a", "b"}, got)

	got = nil
	cancelA()
	cancelA()
	hub.AnnounceAll()
	require.Equal(t, []string{"b", "c"}, got)
}

func TestSubscriberMayCancelWhileItIsWoken(t *testing.T) {
	var hub watch.Hub
	woken := 0
	var cancel func()
	cancel = hub.Subscribe("x", func() { woken++; cancel() })
	hub.Announce("x")
	hub.Announce("x")
	require.Equal(t, 1, woken)
}

func TestHubIsSafeForManyTasks(t *testing.T) {
	var hub watch.Hub
	var marks watch.Marks
	var running sync.WaitGroup
	for range 8 {
		running.Go(func() {
			for range 200 {
				cancel := hub.Subscribe("x", func() { marks.Mark("x") })
				hub.Announce("x")
				cancel()
			}
		})
	}
	running.Wait()
	require.Equal(t, []string{"x"}, marks.Take())
	require.Empty(t, marks.Take())
}
