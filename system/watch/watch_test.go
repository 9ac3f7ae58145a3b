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
	require.Equal(t, []string{"x"}, marks.Take(10))
	require.Empty(t, marks.Take(10))
}

func TestMarksAreTakenSomeAtATime(t *testing.T) {
	var marks watch.Marks
	for _, name := range []string{"c", "a", "b", "a"} {
		marks.Mark(name)
	}
	require.Equal(t, []string{"a", "b"}, marks.Take(2))
	marks.Mark("d")
	require.Equal(t, []string{"c", "d"}, marks.Take(2))
	require.Empty(t, marks.Take(2))
}

func TestHubKnowsWhatIsWaitedFor(t *testing.T) {
	var hub watch.Hub
	for _, topic := range []string{"x b", "y a", "x a"} {
		hub.Subscribe(topic, func() {})
	}
	cancel := hub.Subscribe("x c", func() {})
	require.Equal(t, []string{"x a", "x b", "x c"}, hub.Topics("x "))
	cancel()
	require.Equal(t, []string{"x a", "x b"}, hub.Topics("x "))
}
