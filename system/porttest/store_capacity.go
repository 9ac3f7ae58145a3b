package porttest

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"plane/system/backend"
	"plane/system/placement"
	"plane/system/port"
	"plane/system/protocol"
)

const gib = 1 << 30

// droneWith is a drone that has so much; its connection is called like it.
func (s *store) droneWith(name string, has placement.Capacity) port.NodeID {
	s.Helper()
	id, err := s.Store.RegisterNode(s.Context(), port.NodeRegistration{
		Kind: port.DroneNode, Cluster: cluster, Name: name, Controller: "co-1", Connection: name, Capacity: has,
	})
	s.ok(err)
	s.beat(id, name, droneClock)
	return id
}

// asking is a connect that makes backend id, for a key of its own.
func (s *store) asking(id string, asks placement.Resources) port.ConnectParams {
	p := s.spawn("key of "+id, id)
	p.Spawn.Asks = asks
	return p
}

// noRoom wants the explanation, of what stands after the place, for a backend
// that finds no drone.
func (s *store) noRoom(p port.ConnectParams, why string) {
	s.Helper()
	_, err := s.Store.Connect(s.Context(), p)
	require.ErrorIs(s, err, port.ErrNoDrone)
	var explained *port.NoDroneError
	require.ErrorAs(s, err, &explained)
	require.Equal(s, "no drone in cluster "+cluster+", the default pool "+why, explained.Explanation)
	_, err = s.Store.Backend(s.Context(), p.Spawn.BackendID)
	require.ErrorIs(s, err, port.ErrNotFound, "nothing is left of what was refused")
}

var capacityTests = []storeTest{
	{name: "a drone is never promised more than it has", run: func(s *store) {
		d := s.droneWith("dr-1", placement.Capacity{MilliCPUs: 4000, MemoryBytes: 8 * gib})
		s.connect(s.asking("b1", placement.Resources{MilliCPUs: 2500, MemoryBytes: gib}))
		s.noRoom(s.asking("b2", placement.Resources{MilliCPUs: 1501, MemoryBytes: gib}),
			"has room: asked for 1.501 CPUs and 1 GiB; dr-1 has 1.5 CPUs and 7 GiB free")
		s.noRoom(s.asking("b2", placement.Resources{MemoryBytes: 7*gib + 1}), "has room: asked for 7.01 GiB; dr-1 has 7 GiB free")
		s.connect(s.asking("b2", placement.Resources{MilliCPUs: 1500, MemoryBytes: 7 * gib}))
		s.noRoom(s.asking("b3", placement.Resources{MilliCPUs: 1}), "has room: asked for 0.001 CPUs; dr-1 has 0 CPUs free")
		s.connect(s.asking("b3", placement.Resources{}))
		require.Equal(s, []string{"spawn b1", "spawn b2", "spawn b3"}, s.pending(d))
	}},
	{name: "what a held key's backend was promised is not asked for again", run: func(s *store) {
		s.droneWith("dr-1", placement.Capacity{MaxBackends: 1, MilliCPUs: 1000})
		p := s.asking("b", placement.Resources{MilliCPUs: 1000})
		require.True(s, s.connect(p).Spawned)
		require.True(s, s.connect(p).Spawned, "repeated after an unclear failure")
		other := s.asking("other", placement.Resources{MilliCPUs: 1000})
		other.Key = p.Key
		require.Equal(s, "b", s.connect(other).BackendID)
	}},
	{name: "a promise ends when its backend is terminated, and not before", run: func(s *store) {
		d := s.droneWith("dr-1", placement.Capacity{MaxBackends: 2, MilliCPUs: 1000, MemoryBytes: gib})
		all := placement.Resources{MilliCPUs: 1000, MemoryBytes: gib}
		s.connect(s.asking("b1", all))
		for _, status := range []backend.Status{backend.Ready, backend.Terminating, backend.HardTerminating} {
			s.to(d, "b1", status)
			s.noRoom(s.asking("b2", all), "has room: asked for 1 CPU and 1 GiB; dr-1 has 0 CPUs and 0 bytes free")
		}
		s.to(d, "b1", backend.Terminated)
		s.report(d, "b1", stateAt(backend.Terminated))
		s.connect(s.asking("b2", all))
		s.noRoom(s.asking("b3", placement.Resources{MilliCPUs: 1}), "has room: asked for 0.001 CPUs; dr-1 has 0 CPUs free")
		s.connect(s.asking("b3", placement.Resources{}))
		s.noRoom(s.asking("b4", placement.Resources{}), "has room: dr-1 is full (2 of 2 backends)")
		s.pass(61)
		s.beat(d, "dr-1", droneClock)
		taken := s.asking("b4", placement.Resources{})
		taken.Key = s.asking("b3", all).Key
		s.noRoom(taken, "has room: dr-1 is full (2 of 2 backends)")
		s.pass(60)
		s.beat(d, "dr-1", droneClock)
		require.Equal(s, 2, s.sweep(), "leases that ran out long ago")
		s.connect(s.asking("b5", all))
	}},
	{name: "what is not limited is not scarce", run: func(s *store) {
		s.drone("dr-1")
		for i := range 20 {
			s.connect(s.asking(fmt.Sprint("b", i), placement.Resources{MilliCPUs: placement.MostMilliCPUs, MemoryBytes: placement.MostMemoryBytes}))
		}
	}},
	{name: "a drone that comes back with less keeps what runs and takes nothing new until it fits", run: func(s *store) {
		d := s.droneWith("dr-1", placement.Capacity{MaxBackends: 5, MilliCPUs: 4000, MemoryBytes: 4 * gib})
		for _, id := range []string{"b1", "b2", "b3"} {
			s.connect(s.asking(id, placement.Resources{MilliCPUs: 1000, MemoryBytes: gib}))
			s.to(d, id, backend.Ready)
		}
		s.droneWith("dr-1", placement.Capacity{MaxBackends: 3, MilliCPUs: 2000})
		for _, id := range []string{"b1", "b2", "b3"} {
			require.True(s, s.renew(d, id))
			require.Equal(s, backend.Ready, s.state(id).Status)
		}
		s.noRoom(s.asking("b4", placement.Resources{}), "has room: dr-1 is full (3 of 3 backends)")
		s.to(d, "b1", backend.Terminated)
		s.noRoom(s.asking("b4", placement.Resources{MilliCPUs: 1}), "has room: asked for 0.001 CPUs; dr-1 has 0 CPUs free")
		s.to(d, "b2", backend.Terminated)
		s.connect(s.asking("b4", placement.Resources{MilliCPUs: 1000, MemoryBytes: 100 * gib}))
		s.droneWith("dr-1", placement.Capacity{})
		s.connect(s.asking("b5", placement.Resources{MilliCPUs: 64000}))
		s.droneWith("dr-1", placement.Capacity{MilliCPUs: 66000})
		s.noRoom(s.asking("b6", placement.Resources{MilliCPUs: 1}), "has room: asked for 0.001 CPUs; dr-1 has 0 CPUs free")
	}},
	{name: "every drone is looked at for room", run: func(s *store) {
		for i := range 8 {
			s.droneWith(fmt.Sprint("dr-full", i), placement.Capacity{MilliCPUs: 100})
		}
		s.droneWith("dr-roomy", placement.Capacity{MilliCPUs: 8000})
		for i := range 8 {
			p := s.asking(fmt.Sprint("b", i), placement.Resources{MilliCPUs: 1000})
			p.Spawn.BestOf, p.PlacementSeed = 1, uint64(i)
			require.Equal(s, "dr-roomy", s.connect(p).Drone)
		}
	}},
	{name: "the smallest share is chosen, and where shares say nothing the fewest backends", run: func(s *store) {
		s.droneWith("dr-big", placement.Capacity{MilliCPUs: 64000, MemoryBytes: 64 * gib})
		s.droneWith("dr-small", placement.Capacity{MilliCPUs: 8000, MemoryBytes: 64 * gib})
		count := map[string]int{}
		for i := range 18 {
			p := s.asking(fmt.Sprint("b", i), placement.Resources{MilliCPUs: 1000, MemoryBytes: gib})
			p.PlacementSeed = uint64(i)
			count[s.connect(p).Drone]++
		}
		require.Equal(s, map[string]int{"dr-big": 16, "dr-small": 2}, count)
		for i := range 14 {
			p := s.asking(fmt.Sprint("c", i), placement.Resources{})
			p.PlacementSeed = uint64(i)
			require.Equal(s, "dr-small", s.connect(p).Drone)
		}
		s.drone("dr-unlimited")
		p := s.asking("d", placement.Resources{MilliCPUs: 1000})
		p.Spawn.BestOf = 3
		require.Equal(s, "dr-unlimited", s.connect(p).Drone)
	}},
	{name: "a drone between two connections is better than none with room", run: func(s *store) {
		s.droneWith("dr-1", placement.Capacity{MaxBackends: 1})
		between := s.droneWith("dr-2", placement.Capacity{MaxBackends: 1})
		s.disconnect(between, "dr-2")
		require.Equal(s, "dr-1", s.connect(s.asking("b1", placement.Resources{})).Drone)
		require.Equal(s, "dr-2", s.connect(s.asking("b2", placement.Resources{})).Drone)
		s.noRoom(s.asking("b3", placement.Resources{}), "has room: dr-1 is full (1 of 1 backends), dr-2 is full (1 of 1 backends)")
	}},
	{name: "the explanation lists the drones of the pool that are there", real: true, run: explainsEach},
	{name: "the state of a cluster shows what drones have and have promised", run: func(s *store) {
		d := s.droneWith("dr-1", placement.Capacity{MaxBackends: 9, MilliCPUs: 4000, MemoryBytes: 8 * gib})
		s.connect(s.asking("b1", placement.Resources{MilliCPUs: 500, MemoryBytes: gib}))
		s.connect(s.asking("b2", placement.Resources{MilliCPUs: 250}))
		shows := func(milli, memory int64) {
			state, err := s.Store.ClusterState(s.Context(), cluster)
			s.ok(err)
			require.Len(s, state.Drones, 1)
			require.Equal(s, protocol.Capacity{MaxBackends: 9, MilliCPUs: 4000, MemoryBytes: 8 * gib}, state.Drones[0].Capacity)
			require.Equal(s, protocol.Resources{MilliCPUs: milli, MemoryBytes: memory}, state.Drones[0].Promised)
		}
		shows(750, gib)
		s.to(d, "b1", backend.Terminated)
		shows(250, 0)
	}},
	{name: "a burst never overbooks a drone", run: burst},
}

func explainsEach(s *store) {
	gone := s.drone("dr-gone")
	s.disconnect(gone, "dr-gone")
	s.drone("dr-t")
	_, err := s.Store.RegisterNode(s.Context(), port.NodeRegistration{Kind: port.DroneNode, Cluster: cluster, Name: "dr-stale", Controller: "co-dead", Connection: "1"})
	s.ok(err)
	s.pass(75)
	s.ok(s.Store.ControllerHeartbeat(s.Context(), port.ControllerInfo{Name: "co-1"}))
	s.drone("dr-s")
	s.pass(50)
	s.droneWith("dr-b", placement.Capacity{MaxBackends: 1})
	s.connect(s.asking("b", placement.Resources{}))
	s.droneWith("dr-a", placement.Capacity{MilliCPUs: 1500, MemoryBytes: 8 * gib})
	s.droneWith("dr-c", placement.Capacity{})
	_, err = s.Store.Drain(s.Context(), cluster, "dr-c")
	s.ok(err)
	s.register(port.DroneNode, "dr-d", "dr-d")
	elsewhere, err := s.Store.RegisterNode(s.Context(), port.NodeRegistration{Kind: port.DroneNode, Cluster: cluster, Pool: "p", Name: "dr-e", Connection: "dr-e"})
	s.ok(err)
	s.beat(elsewhere, "dr-e", droneClock)
	s.proxy("px-1")
	want := placement.Resources{MilliCPUs: 2000, MemoryBytes: 4 * gib}
	s.noRoom(s.asking("big", want), "has room: asked for 2 CPUs and 4 GiB; dr-a has 1.5 CPUs and 8 GiB free, "+
		"dr-b is full (1 of 1 backends), dr-c is draining, dr-d has sent no heartbeat yet, dr-s has been silent for 50s, dr-t has been silent for 2m5s")
	_, err = s.Store.Drain(s.Context(), cluster, "dr-a")
	s.ok(err)
	_, err = s.Store.Drain(s.Context(), cluster, "dr-b")
	s.ok(err)
	s.noRoom(s.asking("big", want), "can take a backend: dr-a is draining, dr-b is draining, dr-c is draining, "+
		"dr-d has sent no heartbeat yet, dr-s has been silent for 50s, dr-t has been silent for 2m5s")
	inPool := s.asking("pooled", want)
	inPool.Spawn.Pool = "none"
	_, err = s.Store.Connect(s.Context(), inPool)
	require.EqualError(s, err, "no drone is connected in cluster "+cluster+", pool none")
}

// burst lets many ask at once, of drones that together have room for fewer.
func burst(s *store) {
	const drones, room, askers = 3, 4, 40
	for i := range drones {
		s.droneWith(fmt.Sprint("dr-", i), placement.Capacity{MilliCPUs: room * 1000, MaxBackends: 2 * room})
	}
	var placed, refused atomic.Int64
	var all sync.WaitGroup
	for i := range askers {
		all.Go(func() {
			p := s.asking(fmt.Sprint("b", i), placement.Resources{MilliCPUs: 1000})
			p.PlacementSeed = uint64(i)
			if _, err := s.Store.Connect(s.Context(), p); err == nil {
				placed.Add(1)
				return
			} else if !assert.ErrorIs(s, err, port.ErrNoDrone) {
				return
			}
			refused.Add(1)
		})
	}
	all.Wait()
	require.EqualValues(s, drones*room, placed.Load(), "as many as there is room for")
	require.EqualValues(s, askers-drones*room, refused.Load())
	state, err := s.Store.ClusterState(s.Context(), cluster)
	s.ok(err)
	for _, d := range state.Drones {
		require.EqualValues(s, room, d.BackendCount)
		require.Equal(s, protocol.Resources{MilliCPUs: room * 1000}, d.Promised)
	}
}
