package porttest

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/backend"
	"plane/system/placement"
	"plane/system/port"
	"plane/system/protocol"
)

// OperationsUnderTest is an empty store that operators can work on as well.
type OperationsUnderTest struct {
	StoreUnderTest
	Operations port.Operations
}

// Operations holds an implementation of port.Operations to what that
// interface's comments say. open gives each test a store of its own.
func Operations(t *testing.T, open func(t *testing.T) OperationsUnderTest) {
	for _, test := range operationsTests {
		t.Run(test.name, func(t *testing.T) {
			u := open(t)
			test.run(&operations{store: &store{T: t, StoreUnderTest: u.StoreUnderTest}, ops: u.Operations})
		})
	}
}

// operations is an OperationsUnderTest in the hands of one test.
type operations struct {
	*store
	ops port.Operations
}

func (o *operations) preventRenew(id string) bool {
	o.Helper()
	changed, err := o.ops.PreventRenew(o.Context(), id)
	o.ok(err)
	return changed
}

// markLost returns when the backend will be declared terminated, in seconds.
func (o *operations) markLost(id string) float64 {
	o.Helper()
	expires, err := o.ops.MarkLost(o.Context(), id)
	o.ok(err)
	return float64(expires) / float64(o.Second)
}

// candidates shows what is to end, as "backend: why (kind)".
func (o *operations) candidates(limit int) []string {
	o.Helper()
	found, err := o.ops.TerminationCandidates(o.Context(), o.sweepParams(), limit)
	o.ok(err)
	shown := []string{}
	for _, c := range found {
		b, err := o.Store.Backend(o.Context(), c.Backend.ID)
		o.ok(err)
		require.Equal(o, b, c.Backend)
		require.Equal(o, b.Drone, c.Drone)
		line := fmt.Sprintf("%s: %s", c.Backend.ID, c.Why)
		if c.Kind != "" {
			line += fmt.Sprintf(" (%s)", c.Kind)
		}
		shown = append(shown, line)
	}
	return shown
}

// beatFor lets seconds pass, in which the drone gives its heartbeat.
func (o *operations) beatFor(seconds int, drone port.NodeID) {
	o.Helper()
	for ; seconds > 0; seconds -= 5 {
		o.pass(min(seconds, 5))
		o.beat(drone, "dr-1", droneClock)
	}
}

var operationsTests = []struct {
	name string
	run  func(o *operations)
}{
	{"prevent-renew: every renewal is refused from then on", func(o *operations) {
		d := o.ready("b")
		o.connect(o.spawn("k2", "b2"))
		require.True(o, o.renew(d, "b"))
		require.True(o, o.preventRenew("b"))
		require.False(o, o.preventRenew("b"), "it was so already")
		require.False(o, o.renew(d, "b"))
		require.True(o, o.renew(d, "b2"), "another backend's lease is its own")
		o.beatFor(30, d)
		require.False(o, o.renew(d, "b"))
		require.Equal(o, backend.Ready, o.state("b").Status, "its drone ends it, by the deadlines that it has")
		require.Equal(o, []string{"spawn b", "spawn b2"}, o.pending(d), "no action is needed for that")
		require.Equal(o, "b", o.connect(o.find("k", "t")).BackendID, "until then it holds its key")
		o.beatFor(30, d)
		require.Equal(o, "b3", o.connect(o.spawn("k", "b3")).BackendID, "and with the lease its hold ends")
	}},
	{"prevent-renew: a spawn that was not taken up yet", func(o *operations) {
		d := o.drone("dr-1")
		o.connect(o.spawn("k", "b"))
		require.True(o, o.preventRenew("b"))
		require.False(o, o.renew(d, "b"))
		o.beatFor(61, d)
		require.Equal(o, 1, o.sweep())
		o.ended("b", backend.KeyExpired)
	}},
	{"G1: what is marked as lost ends when its lease has expired, never before", func(o *operations) {
		d := o.ready("b")
		o.beatFor(20, d)
		require.True(o, o.renew(d, "b"))
		require.InDelta(o, 60, o.markLost("b"), 1)
		require.False(o, o.renew(d, "b"), "or it would never expire")
		require.Zero(o, o.sweep(), "its container may run")
		o.beatFor(50, d)
		require.InDelta(o, 10, o.markLost("b"), 1, "harmless twice")
		require.Zero(o, o.sweep())
		o.refuse(o.find("other", "t"), port.ErrKeyUnheld)
		require.Equal(o, "b", o.connect(o.spawn("k", "b2")).BackendID, "the key is not free before")
		o.beatFor(11, d)
		require.Equal(o, 1, o.sweep(), "though its drone was heard from all the time")
		o.ended("b", backend.Lost)
		o.noRoute("token for b")
		require.Equal(o, "b2", o.connect(o.spawn("k", "b2")).BackendID)
		require.Equal(o, []port.RecordOutcome{port.Stale}, o.report(d, "b", stateAt(backend.Terminated)))
	}},
	{"mark-lost: of an expired lease there is nothing to wait for", func(o *operations) {
		d := o.ready("b")
		o.beatFor(61, d)
		require.Zero(o, o.sweep(), "its drone may still say how it ended")
		require.Zero(o, o.markLost("b"))
		require.Equal(o, 1, o.sweep())
		o.ended("b", backend.Lost)
	}},
	{"mark-lost: the drone can still say how it ended", func(o *operations) {
		d := o.ready("b")
		o.markLost("b")
		o.to(d, "b", backend.Terminated)
		require.Equal(o, backend.External, o.state("b").Reason)
		o.refuse(o.find("k", "t"), port.ErrKeyUnheld)
		o.pass(61)
		require.Zero(o, o.sweep())
	}},
	{"neither is for what is unknown or has ended", func(o *operations) {
		o.to(o.ready("b"), "b", backend.Terminated)
		for _, id := range []string{"b", "unknown"} {
			_, err := o.ops.PreventRenew(o.Context(), id)
			require.ErrorIs(o, err, port.ErrNotFound)
			_, err = o.ops.MarkLost(o.Context(), id)
			require.ErrorIs(o, err, port.ErrNotFound)
		}
	}},
	{"candidates: why each is to end", whyCandidatesEnd},
	{"candidates: what was not renewed, once the grace is over", func(o *operations) {
		d := o.ready("b")
		o.connect(o.spawn("k2", "b2"))
		o.beatFor(55, d)
		require.Empty(o, o.candidates(10))
		o.beatFor(6, d)
		require.Equal(o, []string{"b2: its lease expired"}, o.candidates(10), "of the other the drone may still say how it ended")
		o.beatFor(30, d)
		require.Equal(o, []string{"b: its lease expired", "b2: its lease expired"}, o.candidates(10))
		require.Equal(o, 2, o.sweep(), "which is what a sweep does")
		require.Empty(o, o.candidates(10))
	}},
	{"candidates: those of a lost drone, once their leases have expired", func(o *operations) {
		d := o.ready("b")
		o.pass(55)
		require.True(o, o.renew(d, "b"))
		o.pass(55)
		require.True(o, o.renew(d, "b"))
		o.pass(55)
		require.Empty(o, o.candidates(10), "lost, but the lease holds")
		o.pass(6)
		require.Equal(o, []string{"b: its drone is lost"}, o.candidates(10))
		found, err := o.ops.TerminationCandidates(o.Context(), o.sweepParams(), 10)
		o.ok(err)
		require.InDelta(o, o.seconds(171), found[0].Silent, float64(o.Second))
	}},
	{"nodes: of all clusters, in order of cluster, kind and name", func(o *operations) {
		nodes, err := o.ops.Nodes(o.Context())
		o.ok(err)
		require.Empty(o, nodes)
		o.drone("dr-2")
		o.proxy("px-1")
		o.drone("dr-1")
		_, err = o.Store.RegisterNode(o.Context(), port.NodeRegistration{Kind: port.DroneNode, Cluster: "a.example", Name: "dr-9", Connection: "9"})
		o.ok(err)
		nodes, err = o.ops.Nodes(o.Context())
		o.ok(err)
		shown := []string{}
		for _, n := range nodes {
			shown = append(shown, fmt.Sprintf("%s %s %s", n.Cluster, n.Kind, n.Name))
		}
		require.Equal(o, []string{"a.example drone dr-9", "c.example drone dr-1", "c.example drone dr-2", "c.example proxy px-1"}, shown)
	}},
	{"nodes: what is known of each", whatIsKnownOfNodes},
}

func whyCandidatesEnd(o *operations) {
	d := o.drone("dr-1")
	for id, limits := range map[string][2]int{"old": {25, 0}, "idle": {0, 20}, "asked": {0, 0}, "final": {0, 0}, "hard": {0, 0}, "marked": {0, 0}, "well": {1000, 1000}} {
		p := o.spawn("key of "+id, id)
		p.Spawn.Lifetime, p.Spawn.MaxIdle = o.seconds(limits[0]), o.seconds(limits[1])
		o.connect(p)
		o.to(d, id, backend.Ready)
	}
	require.Empty(o, o.candidates(10))
	o.terminate("asked", backend.Soft)
	o.terminate("hard", backend.Soft)
	o.terminate("hard", backend.Hard)
	o.preventRenew("final")
	o.terminate("final", backend.Soft)
	o.markLost("marked")
	o.beatFor(25, d)
	want := []string{
		"asked: its end was asked for (soft)", "final: its lease is renewed no more (soft)", "hard: its end was asked for (hard)",
		"idle: idle", "marked: marked as lost", "old: past its lifetime",
	}
	require.Equal(o, want, o.candidates(10))
	require.Equal(o, want[:3], o.candidates(3))
	require.Equal(o, 2, o.sweep())
	want[3], want[5] = "idle: idle (soft)", "old: past its lifetime (soft)"
	require.Equal(o, want, o.candidates(10), "under way")
	p := o.sweepParams()
	p.SkipIdle = true
	found, err := o.ops.TerminationCandidates(o.Context(), p, 10)
	o.ok(err)
	require.Len(o, found, len(want))
	require.Equal(o, port.EndAskedFor, found[3].Why, "idle backends are left alone now; this one was not")
	o.to(d, "old", backend.Terminated)
	require.Equal(o, want[:5], o.candidates(10))
}

func whatIsKnownOfNodes(o *operations) {
	d, err := o.Store.RegisterNode(o.Context(), port.NodeRegistration{
		Kind: port.DroneNode, Cluster: cluster, Name: "dr-1", Pool: "p", Controller: "co-1", Connection: "dr-1",
		Version: protocol.Version{Version: "1.2.3", GitHash: "abc"}, Capacity: placement.Capacity{MaxBackends: 10, MilliCPUs: 4000, MemoryBytes: 1 << 33},
	})
	o.ok(err)
	o.beat(d, "dr-1", droneClock)
	px := o.proxy("px-1")
	for i, asks := range []placement.Resources{{MilliCPUs: 500, MemoryBytes: 1 << 20}, {MilliCPUs: 250}, {MilliCPUs: 1000, MemoryBytes: 1 << 30}} {
		p := o.spawn(fmt.Sprint("k", i), fmt.Sprint("b", i))
		p.Spawn.Pool, p.Spawn.Asks = "p", asks
		o.connect(p)
	}
	o.to(d, "b2", backend.Terminated)
	drained, err := o.Store.Drain(o.Context(), cluster, "dr-1")
	o.ok(err)
	require.True(o, drained)
	o.pass(20)
	o.disconnect(px, "px-1")
	nodes, err := o.ops.Nodes(o.Context())
	o.ok(err)
	require.Len(o, nodes, 2)
	for i := range nodes {
		require.InDelta(o, o.seconds(20), nodes[i].Silent, float64(o.Second))
		nodes[i].Silent = 20 * time.Second
	}
	version := protocol.Version{Version: "1.2.3", GitHash: "abc"}
	require.Equal(o, []port.Node{
		{
			ID: d, Kind: port.DroneNode, Cluster: cluster, Name: "dr-1", Pool: "p", Version: version, Controller: "co-1", Connected: true,
			Silent: 20 * time.Second, Draining: true, Backends: 2,
			Capacity: placement.Capacity{MaxBackends: 10, MilliCPUs: 4000, MemoryBytes: 1 << 33},
			Promised: placement.Resources{MilliCPUs: 750, MemoryBytes: 1 << 20},
		},
		{ID: px, Kind: port.ProxyNode, Cluster: cluster, Name: "px-1", Version: version, Controller: "co-1", Silent: 20 * time.Second},
	}, nodes)
}
