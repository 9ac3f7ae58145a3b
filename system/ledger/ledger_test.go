package ledger_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"plane/system/backend"
	"plane/system/lease"
	"plane/system/ledger"
	"plane/system/placement"
	"plane/system/port"
	"plane/system/protocol"
)

// What each operation means is in porttest, which adapters/memory runs. Here is
// what must hold after any operations whatever.

const cluster = "c"

var epoch = time.UnixMilli(1_900_000_000_000)

// world makes random calls and keeps its own, simpler books.
type world struct {
	*ledger.Ledger
	now     time.Time
	calls   []string // of every answer, to compare two runs
	made    int
	drones  map[string]port.NodeID
	has     map[port.NodeID]placement.Capacity
	asked   map[string]placement.Resources // by every backend ever made
	homes   map[string]port.NodeID         // of every backend ever made
	keys    map[string]string              // of every backend ever made
	fencing map[string]int64               // the greatest token of each key
	leases  map[string]time.Time           // when a backend's last lease ends
	history map[string][]backend.Status    // as far as it was read
	ended   map[string]bool                // backends known to be terminated
	hints   map[port.Topic]int
}

func newWorld() *world {
	return &world{
		Ledger: ledger.New(), now: epoch, drones: map[string]port.NodeID{}, homes: map[string]port.NodeID{},
		has: map[port.NodeID]placement.Capacity{}, asked: map[string]placement.Resources{},
		keys: map[string]string{}, fencing: map[string]int64{}, leases: map[string]time.Time{},
		history: map[string][]backend.Status{}, ended: map[string]bool{}, hints: map[port.Topic]int{},
	}
}

func (w *world) note(format string, args ...any) {
	w.calls = append(w.calls, fmt.Sprintf(format, args...))
}

func (w *world) backends() []string {
	var ids []string
	for id := range w.homes {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (w *world) anyBackend(t *rapid.T) string {
	ids := w.backends()
	if len(ids) == 0 {
		return "unknown"
	}
	return rapid.SampledFrom(ids).Draw(t, "backend")
}

func (w *world) anyDrone(t *rapid.T) (string, port.NodeID) {
	name := rapid.SampledFrom([]string{"dr-1", "dr-2", "dr-3"}).Draw(t, "drone")
	return name, w.drones[name]
}

func (w *world) step(t *rapid.T) {
	switch rapid.SampledFrom([]string{
		"pass", "node", "beat", "connect", "connect", "connect", "report", "report", "renew", "renew",
		"terminate", "use", "sweep", "ack", "disconnect", "revoke", "cleanup",
	}).Draw(t, "operation") {
	case "pass":
		w.now = w.now.Add(time.Duration(rapid.IntRange(0, 70).Draw(t, "seconds")) * time.Second)
	case "node":
		name, _ := w.anyDrone(t)
		w.register(t, name)
	case "beat":
		_, id := w.anyDrone(t)
		w.Heartbeats(w.now, []port.DroneHeartbeat{{Drone: id, Connection: "1", LocalTime: time.Unix(1000, 0)}})
	case "disconnect":
		_, id := w.anyDrone(t)
		w.DisconnectNode(id, "1")
	case "connect":
		w.connect(t)
	case "report":
		id := w.anyBackend(t)
		status := rapid.SampledFrom([]backend.Status{
			backend.Loading, backend.Waiting, backend.Ready, backend.Terminating, backend.HardTerminating, backend.Terminated,
		}).Draw(t, "status")
		out := w.RecordStates(w.now, []port.StateReport{{Drone: w.homes[id], BackendID: id, State: backend.State{Status: status}, Time: w.now}})
		w.note("report %s %v: %v", id, status, out)
	case "renew":
		id := w.anyBackend(t)
		renewed := w.RenewKeys(w.now, []port.Renewal{{Drone: w.homes[id], BackendID: id, Lease: lease.Default()}})[0]
		if renewed {
			require.True(t, w.now.Before(w.leases[id]), "%s renewed a lease that had expired", id)
			w.leases[id] = w.now.Add(lease.Default().Expiry)
		}
		w.note("renew %s: %v", id, renewed)
	case "terminate":
		id := w.anyBackend(t)
		kind := rapid.SampledFrom([]backend.Kind{backend.Soft, backend.Hard}).Draw(t, "kind")
		err := w.Terminate(w.now, port.TerminateParams{BackendID: id, ActionID: w.name("ak"), Kind: kind, Reason: backend.External})
		w.note("terminate %s %s: %v", kind, id, err)
	case "use":
		w.KeepAlive(w.now, port.ProxyUse{Proxy: w.drones["dr-1"], Backends: []string{w.anyBackend(t)}, Complete: rapid.Bool().Draw(t, "complete"), AsOf: w.now})
	case "ack":
		_, id := w.anyDrone(t)
		if pending := w.PendingActions(id); len(pending) > 0 {
			w.AckActions(id, []string{rapid.SampledFrom(pending).Draw(t, "action").Action.ActionID})
		}
	case "revoke":
		id := w.anyBackend(t)
		w.note("revoke %s: %v", id, w.Revoke(w.now, id, "ann"))
	case "cleanup":
		w.note("cleanup: %d", w.Cleanup(w.now, time.Hour, 10))
	case "sweep":
		n, _ := w.Sweep(w.now, port.SweepParams{
			Limit: rapid.IntRange(0, 5).Draw(t, "limit"), DroneLost: 2 * time.Minute, ProxyGone: time.Minute,
			HardAfter: 30 * time.Second, LeaseGrace: time.Minute, NewActionID: func() string { return w.name("ak") },
		})
		w.note("sweep: %d", n)
	}
}

// register connects a drone, with what it has at the time.
func (w *world) register(t *rapid.T, name string) {
	has := placement.Capacity{
		MaxBackends: rapid.Int64Range(0, 3).Draw(t, "most backends"),
		MilliCPUs:   rapid.Int64Range(0, 5).Draw(t, "cpus"),
		MemoryBytes: rapid.Int64Range(0, 5).Draw(t, "memory"),
	}
	id := w.RegisterNode(w.now, port.NodeRegistration{Kind: port.DroneNode, Cluster: cluster, Name: name, Connection: "1", Capacity: has})
	w.drones[name], w.has[id] = id, has
}

func (w *world) name(prefix string) string {
	w.made++
	return fmt.Sprintf("%s-%d", prefix, w.made)
}

func (w *world) connect(t *rapid.T) {
	key := rapid.SampledFrom([]string{"k1", "k2", "k3"}).Draw(t, "key")
	user := "ann"
	id := w.name("b")
	asks := placement.Resources{MilliCPUs: rapid.Int64Range(0, 3).Draw(t, "cpu"), MemoryBytes: rapid.Int64Range(0, 3).Draw(t, "memory")}
	c, err := w.Connect(w.now, port.ConnectParams{
		Key: protocol.Key{Name: key}, Token: w.name("t"), User: &user, TokenLife: time.Minute,
		PlacementSeed: rapid.Uint64().Draw(t, "seed"),
		Spawn: &port.SpawnParams{
			BackendID: id, ActionID: w.name("ak"), Cluster: cluster, BestOf: 2, Healthy: 45 * time.Second, Lease: lease.Default(),
			Lifetime: time.Duration(rapid.IntRange(0, 300).Draw(t, "lifetime")) * time.Second,
			MaxIdle:  time.Duration(rapid.IntRange(0, 100).Draw(t, "idle")) * time.Second,
			Asks:     asks,
		},
	})
	w.note("connect %s: %+v %v", key, c, err)
	if err != nil || !c.Spawned {
		return
	}
	// G1 and G11: whoever had the key is terminated, or its lease has expired.
	for other, k := range w.keys {
		if k == key && w.now.Before(w.leases[other]) {
			b, err := w.Backend(other)
			require.True(t, errors.Is(err, port.ErrNotFound) || b.State.Status == backend.Terminated,
				"%s was given to %s while %s held it", key, id, other)
		}
	}
	w.homes[id], w.keys[id], w.leases[id] = c.DroneID, key, w.now.Add(lease.Default().Expiry)
	w.asked[id] = asks
	load := w.load(c.DroneID)
	require.True(t, within(int64(load.Backends), load.Has.MaxBackends), "%s is overbooked: %+v", c.Drone, load)
	require.True(t, asks.MilliCPUs == 0 || within(load.Promised.MilliCPUs, load.Has.MilliCPUs), "%s is overbooked: %+v", c.Drone, load)
	require.True(t, asks.MemoryBytes == 0 || within(load.Promised.MemoryBytes, load.Has.MemoryBytes), "%s is overbooked: %+v", c.Drone, load)
	pending := w.PendingActions(c.DroneID)
	token := pending[len(pending)-1].Action.Action.Spawn.Key.Token
	require.Greater(t, token, w.fencing[key], "G2")
	w.fencing[key] = token
}

func within(promised, has int64) bool { return has == 0 || promised <= has }

// load is what a drone has, and what by the world's own books is promised.
func (w *world) load(drone port.NodeID) placement.Load {
	load := placement.Load{Has: w.has[drone]}
	for id, home := range w.homes {
		b, err := w.Backend(id)
		if home != drone || err != nil || b.State.Status == backend.Terminated {
			continue
		}
		load.Backends++
		load.Promised.MilliCPUs += w.asked[id].MilliCPUs
		load.Promised.MemoryBytes += w.asked[id].MemoryBytes
	}
	return load
}

// check looks at everything.
func (w *world) check(t *rapid.T) {
	var names []string
	for _, b := range w.Backends(port.BackendQuery{Cluster: cluster, Limit: 1000}) {
		names = append(names, b.ID)
	}
	require.True(t, slices.IsSorted(names))
	live := map[string]int64{}
	for id := range w.homes {
		b, err := w.Backend(id)
		require.Equal(t, err == nil, slices.Contains(names, id))
		if err != nil {
			require.True(t, w.ended[id], "%s was forgotten before it had ended", id)
			continue
		}
		w.checkHistory(t, b)
		if b.State.Status == backend.Terminated {
			w.ended[id] = true
		} else {
			live[b.Drone]++
		}
	}
	for name, id := range w.drones {
		for _, a := range w.PendingActions(id) {
			require.Equal(t, id, w.homes[a.Action.BackendID])
			require.False(t, w.ended[a.Action.BackendID], "an action of an ended backend")
		}
		for _, d := range w.ClusterState(w.now, cluster).Drones {
			if d.Node.Name.Drone == name {
				load := w.load(id)
				require.Equal(t, live[name], d.BackendCount)
				require.Equal(t, protocol.Capacity(load.Has), d.Capacity)
				require.Equal(t, protocol.Resources(load.Promised), d.Promised)
			}
		}
	}
	for _, h := range w.TakeHints() {
		w.hints[h.Topic]++
	}
}

// checkHistory requires that a history grows at its end only (G3).
func (w *world) checkHistory(t *rapid.T, b port.Backend) {
	entries, err := w.History(b.ID, 0)
	require.NoError(t, err)
	before := w.history[b.ID]
	var statuses []backend.Status
	for _, e := range entries {
		statuses = append(statuses, e.State.Status)
	}
	require.GreaterOrEqual(t, len(statuses), len(before))
	require.Equal(t, before, append([]backend.Status(nil), statuses[:len(before)]...))
	require.Equal(t, statuses, slices.Compact(slices.Sorted(slices.Values(statuses))))
	require.Equal(t, b.State.Status, statuses[len(statuses)-1])
	w.history[b.ID] = statuses
}

func TestWhateverIsCalled_G1_G2_G3_G11(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		for _, name := range []string{"dr-1", "dr-2", "dr-3"} {
			w.register(t, name)
			w.Heartbeats(w.now, []port.DroneHeartbeat{{Drone: w.drones[name], Connection: "1", LocalTime: time.Unix(1000, 0)}})
		}
		for range rapid.IntRange(1, 120).Draw(t, "steps") {
			w.step(t)
			w.check(t)
		}
		// G4: left alone, everything ends and every key comes back.
		w.now = w.now.Add(time.Hour)
		for range 100 {
			w.Sweep(w.now, port.SweepParams{
				Limit: 2, DroneLost: 2 * time.Minute, ProxyGone: time.Minute, HardAfter: 30 * time.Second,
				LeaseGrace: time.Minute, NewActionID: func() string { return w.name("ak") },
			})
		}
		w.check(t)
		for id := range w.homes {
			require.True(t, w.ended[id], "%s never ended", id)
		}
		for _, id := range w.drones {
			require.Empty(t, w.PendingActions(id))
		}
		w.Cleanup(w.now.Add(2*time.Hour), time.Hour, 1000)
		require.Empty(t, w.Backends(port.BackendQuery{Cluster: cluster, Limit: 1}))
		require.Empty(t, w.Revocations(w.now, 1000*time.Hour))
	})
}

func TestTheSameCallsGiveTheSameAnswers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.IntRange(0, 1<<30).Draw(t, "seed")
		run := func() []string {
			return rapid.Custom(func(t *rapid.T) []string {
				w := newWorld()
				for range 40 {
					w.step(t)
					w.note("%v %+v", w.TakeHints(), w.ClusterState(w.now, cluster))
				}
				return w.calls
			}).Example(seed)
		}
		first, second := run(), run()
		require.Equal(t, first, second)
	})
}
