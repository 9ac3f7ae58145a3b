package porttest

import (
	"strconv"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/backend"
	"plane/system/port"
	"plane/system/protocol"
)

var stateTests = []storeTest{
	{name: "what is told again after an unclear failure is hinted again", run: func(s *store) {
		d := s.ready("b")
		s.connect(s.spawn("k2", "b2"))
		other := s.drone("dr-2")
		heard := func(status backend.Status) { // all hints up to now
			s.to(d, "b2", status)
			s.hinted(port.BackendTopic, "b2")
		}
		heard(backend.Loading)
		require.Equal(s, []port.RecordOutcome{port.Stale}, s.report(d, "b", stateAt(backend.Ready)))
		s.hinted(port.BackendTopic, "b")
		s.to(d, "b", backend.Terminated)
		heard(backend.Starting)
		require.Equal(s, []port.RecordOutcome{port.Stale}, s.report(d, "b", stateAt(backend.Terminated)))
		s.hinted(port.BackendTopic, "b")
		require.Equal(s, []port.RecordOutcome{port.NotOfDrone}, s.report(other, "b2", stateAt(backend.Ready)))

		s.terminate("b2", backend.Soft)
		heard(backend.Waiting)
		s.terminate("b2", backend.Soft)
		s.hinted(port.ActionTopic, strconv.FormatInt(int64(d), 10))
		heard(backend.Ready)
		require.Len(s, s.pending(d), 2, "and nothing is added")
	}},
	{name: "G3: a history moves forward, one entry a status", run: func(s *store) {
		d := s.drone("dr-1")
		s.connect(s.spawn("k", "b"))
		require.Equal(s,
			[]port.RecordOutcome{port.Recorded, port.Recorded, port.Stale, port.Stale, port.Recorded, port.Recorded, port.Stale},
			s.report(d, "b", stateAt(backend.Loading), stateAt(backend.Waiting), stateAt(backend.Starting), stateAt(backend.Waiting),
				stateAt(backend.Ready), stateAt(backend.Terminated), stateAt(backend.Terminating)))
		all := []backend.Status{backend.Scheduled, backend.Loading, backend.Waiting, backend.Ready, backend.Terminated}
		require.Equal(s, all, s.statuses("b", 0))
		require.Equal(s, all[3:], s.statuses("b", backend.Waiting))
		require.Equal(s, all[2:], s.statuses("b", backend.Starting), "after a status that it never had")
		require.Empty(s, s.statuses("b", backend.Terminated))
		require.Equal(s, stateAt(backend.Terminated), s.state("b"))
		b, err := s.Store.Backend(s.Context(), "b")
		s.ok(err)
		require.True(s, b.StateTime.Equal(droneClock.Add(5*time.Millisecond)), "the time that the drone told")
		entries, err := s.Store.History(s.Context(), "b", backend.Ready)
		s.ok(err)
		require.Equal(s, stateAt(backend.Terminated), entries[0].State)
		require.True(s, entries[0].Time.Equal(b.StateTime))
		_, err = s.Store.History(s.Context(), "unknown", 0)
		require.ErrorIs(s, err, port.ErrNotFound)
	}},
	{name: "each applied change is hinted", run: func(s *store) {
		d := s.drone("dr-1")
		s.connect(s.spawn("k", "b"))
		s.to(d, "b", backend.Loading)
		s.hinted(port.BackendTopic, "b")
		s.to(d, "b", backend.Terminated)
		s.hinted(port.BackendTopic, "b")
	}},
	{name: "only the backend's own drone has a say", run: func(s *store) {
		s.ready("b")
		other := s.register(port.DroneNode, "dr-2", "dr-2")
		require.Equal(s, []port.RecordOutcome{port.NotOfDrone}, s.report(other, "b", stateAt(backend.Terminated)))
		require.Equal(s, []port.RecordOutcome{port.NotOfDrone}, s.report(other, "unknown", stateAt(backend.Ready)))
		require.Equal(s, backend.Ready, s.state("b").Status)
	}},
	{name: "an out-of-memory end is kept whole", run: func(s *store) {
		d := s.ready("b")
		code := 137
		end := backend.State{Status: backend.Terminated, Last: backend.Ready, ExitCode: &code, OOM: true, Message: "out of memory"}
		s.report(d, "b", end)
		require.Equal(s, end, s.state("b"))
	}},
}

var actionTests = []storeTest{
	{name: "shortfall 17, G6: oldest first, until acknowledged, and then never again", run: func(s *store) {
		d := s.drone("dr-1")
		s.connect(s.spawn("k", "b"))
		s.connect(s.spawn("k2", "b2"))
		s.terminate("b", backend.Soft)
		want := []string{"spawn b", "spawn b2", "soft external b"}
		require.Equal(s, want, s.pending(d))
		require.Equal(s, want, s.pending(d), "reading takes nothing away")
		other := s.drone("dr-2")
		s.ok(s.Store.AckActions(s.Context(), other, []string{"ak-spawn-b"}))
		s.ok(s.Store.AckActions(s.Context(), d, []string{"unknown", "ak-spawn-b2"}))
		require.Equal(s, []string{"spawn b", "soft external b"}, s.pending(d))
		s.ok(s.Store.AckActions(s.Context(), d, []string{"ak-spawn-b", "ak-spawn-b2"}))
		require.Equal(s, []string{"soft external b"}, s.pending(d))
		require.Empty(s, s.pending(other))
		require.Empty(s, s.pending(999))
	}},
	{name: "shortfall 17: the actions of an ended backend are void", run: func(s *store) {
		d := s.drone("dr-1")
		s.connect(s.spawn("k", "b"))
		s.connect(s.spawn("k2", "b2"))
		s.terminate("b", backend.Soft)
		s.to(d, "b", backend.Terminated)
		require.Equal(s, []string{"spawn b2"}, s.pending(d))
	}},
	{name: "a termination is asked for once, and once more to be hard", run: func(s *store) {
		d := s.ready("b")
		s.ok(s.Store.AckActions(s.Context(), d, []string{"ak-spawn-b"}))
		s.terminate("b", backend.Soft)
		s.hinted(port.ActionTopic, strconv.FormatInt(int64(d), 10))
		s.terminate("b", backend.Soft)
		require.Equal(s, []string{"soft external b"}, s.pending(d))
		s.terminate("b", backend.Hard)
		s.terminate("b", backend.Hard)
		s.terminate("b", backend.Soft)
		require.Equal(s, []string{"soft external b", "hard external b"}, s.pending(d))
	}},
	{name: "an acknowledged termination is under way", run: func(s *store) {
		d := s.ready("b")
		s.terminate("b", backend.Soft)
		s.ok(s.Store.AckActions(s.Context(), d, []string{"ak-spawn-b", "ak-1"}))
		s.terminate("b", backend.Soft)
		require.Empty(s, s.pending(d))
		s.terminate("b", backend.Hard)
		require.Equal(s, []string{"hard external b"}, s.pending(d))
	}},
	{name: "nothing ends twice, and nothing unknown ends", run: func(s *store) {
		d := s.ready("b")
		s.to(d, "b", backend.Terminated)
		s.terminate("b", backend.Hard)
		require.Empty(s, s.pending(d))
		err := s.Store.Terminate(s.Context(), port.TerminateParams{BackendID: "unknown", ActionID: "ak-1", Kind: backend.Soft, Reason: backend.External})
		require.ErrorIs(s, err, port.ErrNotFound)
	}},
}

// started is what a new backend's deadlines count from.
func (s *store) started(key, id string, d port.NodeID) time.Time {
	s.Helper()
	s.connect(s.spawn(key, id))
	return s.spawned(d, id).Action.Spawn.Key.Deadlines.HardTerminateAt.Add(-s.lease().Hard)
}

func (s *store) requireLocal(want, got time.Time) {
	s.Helper()
	require.Truef(s, want.Equal(got), "want %v, got %v", want, got)
}

var nodeTests = []storeTest{
	{name: "a node keeps its number", run: func(s *store) {
		d := s.register(port.DroneNode, "n", "1")
		require.Equal(s, d, s.register(port.DroneNode, "n", "1"))
		require.Equal(s, d, s.register(port.DroneNode, "n", "2"))
		other, err := s.Store.RegisterNode(s.Context(), port.NodeRegistration{Kind: port.DroneNode, Cluster: "other", Name: "n", Connection: "3"})
		s.ok(err)
		ids := map[port.NodeID]bool{d: true, s.register(port.ProxyNode, "n", "4"): true, s.register(port.DroneNode, "m", "5"): true, other: true}
		require.Len(s, ids, 4)
	}},
	{name: "a new connection waits for its own heartbeat", run: func(s *store) {
		d := s.drone("dr-1")
		s.register(port.DroneNode, "dr-1", "second")
		s.refuse(s.spawn("k", "b"), port.ErrNoDrone)
		s.beat(d, "dr-1", droneClock.Add(time.Hour))
		s.refuse(s.spawn("k", "b"), port.ErrNoDrone)
		earlier := droneClock.Add(-time.Hour) // another machine's disk, perhaps
		s.beat(d, "second", earlier)
		s.requireLocal(earlier, s.started("k", "b", d))
	}},
	{name: "a repeated registration takes nothing back", run: func(s *store) {
		d := s.drone("dr-1")
		s.register(port.DroneNode, "dr-1", "dr-1")
		s.requireLocal(droneClock, s.started("k", "b", d))
	}},
	{name: "late heartbeats do not move the drone's time back", run: func(s *store) {
		d := s.drone("dr-1")
		s.ok(s.Store.Heartbeats(s.Context(), []port.DroneHeartbeat{
			{Drone: d, Connection: "dr-1", LocalTime: droneClock.Add(7 * time.Second)},
			{Drone: 999, Connection: "dr-1", LocalTime: droneClock},
			{Drone: d, Connection: "dr-1", LocalTime: droneClock.Add(time.Second)},
		}))
		s.requireLocal(droneClock.Add(7*time.Second), s.started("k", "b", d))
	}},
	{name: "a heartbeat on an older connection is a sign of life", run: func(s *store) {
		d := s.drone("dr-1")
		s.register(port.DroneNode, "dr-1", "second")
		s.beat(d, "second", droneClock)
		s.pass(15)
		s.beat(d, "dr-1", droneClock.Add(time.Hour))
		s.pass(35)
		s.requireLocal(droneClock, s.started("k", "b", d))
	}},
	{name: "an older connection's end does not end a newer one", run: func(s *store) {
		first, second := s.drone("dr-1"), s.drone("dr-2")
		s.register(port.DroneNode, "dr-1", "newer")
		s.beat(first, "newer", droneClock)
		s.disconnect(first, "dr-1")
		s.disconnect(second, "dr-2")
		s.disconnect(second, "dr-2")
		s.disconnect(999, "dr-1")
		for i := range 10 {
			p := s.spawn("k"+strconv.Itoa(i), "b"+strconv.Itoa(i))
			p.PlacementSeed = uint64(i)
			require.Equal(s, "dr-1", s.connect(p).Drone, "the connected one goes first")
		}
	}},
	{name: "a drone between two connections is better than none", run: func(s *store) {
		d := s.drone("dr-1")
		s.disconnect(d, "dr-1")
		require.Equal(s, "dr-1", s.connect(s.spawn("k", "b")).Drone)
		s.pass(46)
		s.refuse(s.spawn("k2", "b2"), port.ErrNoDrone)
	}},
	{name: "a connection that was registered in the wrong order comes into its own", real: true, run: func(s *store) {
		d := s.register(port.DroneNode, "dr-1", "live")
		s.register(port.DroneNode, "dr-1", "stuck") // the call was made earlier, and tried again
		s.beat(d, "live", droneClock)
		s.refuse(s.spawn("k", "b"), port.ErrNoDrone)
		s.pass(22)
		s.beat(d, "live", droneClock.Add(time.Second))
		s.requireLocal(droneClock.Add(time.Second), s.started("k", "b", d))
		s.register(port.DroneNode, "dr-1", "stuck")
		s.disconnect(d, "stuck")
		s.beat(d, "live", droneClock.Add(2*time.Second))
		s.requireLocal(droneClock.Add(2*time.Second), s.started("k2", "b2", d))
	}},
	{name: "the state of a cluster", real: true, run: func(s *store) {
		s.ok(s.Store.ControllerHeartbeat(s.Context(), port.ControllerInfo{Name: "co-1"}))
		s.pass(2)
		ready := s.drone("dr-b")
		s.connect(s.spawn("k", "b"))
		s.connect(s.spawn("k2", "b2"))
		s.to(ready, "b2", backend.Terminated)
		s.register(port.DroneNode, "dr-a", "dr-a")
		gone := s.proxy("px-2")
		s.proxy("px-1")
		_, err := s.Store.Drain(s.Context(), cluster, "dr-b")
		s.ok(err)
		s.pass(3)
		node := func(name protocol.NodeName) protocol.NodeState {
			return protocol.NodeState{Name: name, PlaneVersion: "1.2.3", PlaneHash: "abc", Controller: "co-1", ControllerHeartbeatAge: 5}
		}
		state, err := s.Store.ClusterState(s.Context(), cluster)
		s.ok(err)
		require.Equal(s, protocol.ClusterState{
			Drones: []protocol.DroneState{
				{Ready: false, LastHeartbeatAge: 3, Node: node(protocol.NodeName{Drone: "dr-a"})},
				{Ready: true, Draining: true, LastHeartbeatAge: 3, BackendCount: 1, Node: node(protocol.NodeName{Drone: "dr-b"})},
			},
			Proxies: []protocol.NodeState{node(protocol.NodeName{Proxy: "px-1"}), node(protocol.NodeName{Proxy: "px-2"})},
		}, state)
		s.disconnect(gone, "px-2")
		listed := func() (drones, proxies int) {
			state, err := s.Store.ClusterState(s.Context(), cluster)
			s.ok(err)
			return len(state.Drones), len(state.Proxies)
		}
		s.pass(110)
		s.beat(ready, "dr-b", droneClock)
		s.ok(s.Store.ControllerHeartbeat(s.Context(), port.ControllerInfo{Name: "co-1"}))
		drones, proxies := listed()
		require.Equal(s, []int{2, 2}, []int{drones, proxies}, "all were heard from lately")
		s.pass(10)
		drones, proxies = listed()
		require.Equal(s, []int{2, 1}, []int{drones, proxies}, "or are connected to a controller that was")
		s.beat(ready, "dr-b", droneClock)
		s.disconnect(ready, "dr-b")
		s.pass(111)
		drones, proxies = listed()
		require.Equal(s, []int{1, 0}, []int{drones, proxies}, "the controller is gone, and what hung on it")
		state, err = s.Store.ClusterState(s.Context(), "other")
		s.ok(err)
		require.Equal(s, protocol.ClusterState{Drones: []protocol.DroneState{}, Proxies: []protocol.NodeState{}}, state)
	}},
}
