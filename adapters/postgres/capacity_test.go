package postgres_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"plane/adapters/postgres"
	"plane/adapters/postgres/pgtest"
	"plane/system/backend"
	"plane/system/lease"
	"plane/system/placement"
	"plane/system/port"
	"plane/system/protocol"
)

// TestABurstFromThreeControllersOverbooksNoDrone asks for more than there is from
// three stores at once, several times, and lets some end in between.
func TestABurstFromThreeControllersOverbooksNoDrone(t *testing.T) {
	const drones, room, askers, rounds = 2, 8, 45, 4
	url := pgtest.Database(t)
	stores := make([]*postgres.Store, 3)
	for i := range stores {
		s, err := postgres.Open(t.Context(), postgres.Config{URL: url})
		require.NoError(t, err)
		t.Cleanup(s.Close)
		stores[i] = s
	}
	homes := map[string]port.NodeID{}
	has := placement.Capacity{MilliCPUs: room * 1000, MemoryBytes: room << 30, MaxBackends: room + 1}
	for i := range drones {
		name := fmt.Sprint("dr-", i)
		id, err := stores[i].RegisterNode(t.Context(), port.NodeRegistration{Kind: port.DroneNode, Cluster: "c", Name: name, Connection: name, Capacity: has})
		require.NoError(t, err)
		beat := port.DroneHeartbeat{Drone: id, Connection: name, LocalTime: time.UnixMilli(1_000_000)}
		require.NoError(t, stores[i].Heartbeats(t.Context(), []port.DroneHeartbeat{beat}))
		homes[name] = id
	}
	free := int64(drones * room)
	for round := range rounds {
		placed := burst(t, stores, round, askers)
		require.Len(t, placed, int(free), "as many as there is room for")
		state, err := stores[0].ClusterState(t.Context(), "c")
		require.NoError(t, err)
		for _, d := range state.Drones {
			require.Equal(t, protocol.Resources{MilliCPUs: has.MilliCPUs, MemoryBytes: has.MemoryBytes}, d.Promised, d.Node.Name.Drone)
			require.EqualValues(t, room, d.BackendCount)
		}
		free = int64(len(placed)+1) / 2
		for _, c := range placed[:free] {
			_, err := stores[round%3].RecordStates(t.Context(), []port.StateReport{{
				Drone: homes[c.Drone], BackendID: c.BackendID, State: backend.State{Status: backend.Terminated, Last: backend.Scheduled}, Time: time.UnixMilli(1_000_000),
			}})
			require.NoError(t, err)
		}
	}
}

// burst asks for many backends from all stores at once, and returns those that
// were placed.
func burst(t *testing.T, stores []*postgres.Store, round, askers int) (placed []port.Connected) {
	var all sync.WaitGroup
	var mu sync.Mutex
	var refused atomic.Int64
	for i := range askers {
		all.Go(func() {
			id := fmt.Sprintf("b%d-%d", round, i)
			c, err := stores[i%len(stores)].Connect(t.Context(), port.ConnectParams{
				Key: protocol.Key{Name: id}, Token: "token for " + id, TokenLife: time.Hour, PlacementSeed: uint64(i),
				Spawn: &port.SpawnParams{
					BackendID: id, ActionID: "ak-" + id, Cluster: "c", Executable: []byte(`{}`), BestOf: 2, Healthy: time.Hour,
					Lease: lease.Default(), Asks: placement.Resources{MilliCPUs: 1000, MemoryBytes: 1 << 30},
				},
			})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				placed = append(placed, c)
			case errors.Is(err, port.ErrNoDrone):
				refused.Add(1)
			default:
				assert.NoError(t, err)
			}
		})
	}
	all.Wait()
	require.EqualValues(t, askers, int64(len(placed))+refused.Load())
	return placed
}
