package memory_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/clock"
	"plane/adapters/memory"
	"plane/system/port"
	"plane/system/porttest"
)

// handClock is a clock that the test moves.
type handClock struct {
	port.Clock
	mu  sync.Mutex
	now time.Time
}

func (c *handClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *handClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func TestStore(t *testing.T) {
	porttest.Store(t, func(*testing.T) porttest.StoreUnderTest {
		c := &handClock{now: time.UnixMilli(1_900_000_000_000)}
		s := memory.New(c)
		return porttest.StoreUnderTest{Store: s, Listener: s.Listen(), Advance: c.advance, Second: time.Second}
	})
}

func TestOperations(t *testing.T) {
	porttest.Operations(t, func(*testing.T) porttest.OperationsUnderTest {
		c := &handClock{now: time.UnixMilli(1_900_000_000_000)}
		s := memory.New(c)
		return porttest.OperationsUnderTest{
			StoreUnderTest: porttest.StoreUnderTest{Store: s, Listener: s.Listen(), Advance: c.advance, Second: time.Second},
			Operations:     s,
		}
	})
}

func TestChallenges(t *testing.T) {
	porttest.Challenges(t, func(*testing.T) porttest.StoreUnderTest {
		c := &handClock{now: time.UnixMilli(1_900_000_000_000)}
		s := memory.New(c)
		return porttest.StoreUnderTest{Store: s, Listener: s.Listen(), Advance: c.advance, Second: time.Second}
	})
}

func TestStoreRefusesAnEndedContext(t *testing.T) {
	s := memory.New(clock.New())
	gone := errors.New("client gone")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(gone)
	require.ErrorIs(t, s.Health(ctx), gone)
	_, err := s.RegisterNode(ctx, port.NodeRegistration{Kind: port.ProxyNode, Cluster: "c", Name: "px-1"})
	require.ErrorIs(t, err, gone)
	state, err := s.ClusterState(t.Context(), "c")
	require.NoError(t, err)
	require.Empty(t, state.Proxies, "nothing was done")
}

// spawnOn makes a store with one drone and one backend.
func spawnOn(t *testing.T, s *memory.Store) {
	t.Helper()
	ctx := t.Context()
	id, err := s.RegisterNode(ctx, port.NodeRegistration{Kind: port.DroneNode, Cluster: "c", Name: "dr-1", Connection: "1"})
	require.NoError(t, err)
	require.NoError(t, s.Heartbeats(ctx, []port.DroneHeartbeat{{Drone: id, Connection: "1", LocalTime: time.Unix(1000, 0)}}))
	_, err = s.Connect(ctx, port.ConnectParams{Spawn: &port.SpawnParams{BackendID: "b", ActionID: "ak-1", Cluster: "c", Healthy: time.Minute}})
	require.NoError(t, err)
}

func TestListenerWakesWhenAHintComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New(clock.New())
		spawnOn(t, s)
		l := s.Listen()
		var woken sync.WaitGroup
		var got port.Hint
		var err error
		woken.Go(func() { got, err = l.Next(t.Context()) })
		synctest.Wait()
		require.NoError(t, s.Revoke(t.Context(), "b", "ann"))
		woken.Wait()
		require.NoError(t, err)
		require.Equal(t, port.Hint{Topic: port.RevokedTopic}, got)
	})
}

func TestListenerEndsWithItsContextAndLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := memory.New(clock.New())
		spawnOn(t, s)
		l := s.Listen()
		stop := errors.New("stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		var ended sync.WaitGroup
		ended.Go(func() {
			_, err := l.Next(ctx)
			require.ErrorIs(t, err, stop)
		})
		synctest.Wait()
		cancel(stop)
		ended.Wait()
		require.NoError(t, s.Revoke(t.Context(), "b", "ann"))
		got, err := l.Next(t.Context())
		require.NoError(t, err)
		require.Equal(t, port.RevokedTopic, got.Topic)
	})
}

// A subscriber that falls behind is told so, and served on (shortfall 15).
func TestListenerThatFallsBehindIsToldToResync(t *testing.T) {
	s := memory.New(clock.New())
	spawnOn(t, s)
	behind, closed := s.Listen(), s.Listen()
	closed.Close()
	for i := range 5000 {
		require.NoError(t, s.Revoke(t.Context(), "b", fmt.Sprint(i)))
	}
	got, err := behind.Next(t.Context())
	require.NoError(t, err)
	require.Equal(t, port.Hint{Topic: port.ResyncTopic}, got)
	require.NoError(t, s.Revoke(t.Context(), "b", "the next"))
	got, err = behind.Next(t.Context())
	require.NoError(t, err)
	require.Equal(t, port.Hint{Topic: port.RevokedTopic}, got)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = closed.Next(ctx)
	require.ErrorIs(t, err, context.Canceled)
}
