package porttest

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/backend"
	"plane/system/lease"
	"plane/system/port"
	"plane/system/protocol"
)

// StoreUnderTest is an empty store and what a test needs to look at it.
type StoreUnderTest struct {
	Store    port.Store
	Listener port.Listener
	// Advance lets d pass on the store's clock. Nothing else may move it by more
	// than a fraction of Second.
	Advance func(d time.Duration)
	// Second is what the suite takes for a second: time.Second, or less where
	// Advance really sleeps. Rules with times of their own cannot be shortened;
	// their tests are skipped, by name, unless it is time.Second.
	Second time.Duration
}

// Store holds an implementation of port.Store to what that interface's comments
// say. open gives each test a store of its own.
func Store(t *testing.T, open func(t *testing.T) StoreUnderTest) {
	for _, group := range []struct {
		name  string
		tests []storeTest
	}{
		{"connect", connectTests},
		{"capacity", capacityTests},
		{"list", listTests},
		{"lease", leaseTests},
		{"route", routeTests},
		{"state", stateTests},
		{"action", actionTests},
		{"node", nodeTests},
		{"sweep", sweepTests},
		{"turn", turnTests},
		{"idle", idleTests},
		{"read", readTests},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, test := range group.tests {
				t.Run(test.name, func(t *testing.T) {
					s := &store{T: t, StoreUnderTest: open(t)}
					if test.real && s.Second != time.Second {
						t.Skip("goes by whole seconds, which this store's Second is not")
					}
					test.run(s)
				})
			}
		})
	}
}

type storeTest struct {
	name string
	run  func(s *store)
	real bool // goes by times that are no parameters
}

// store is a StoreUnderTest in the hands of one test, which ends at the first
// error that the test did not ask for.
type store struct {
	*testing.T
	StoreUnderTest
	actions int
}

const (
	cluster = "c.example"
	address = "10.0.0.5:49153"
)

// droneClock is what drones' clocks show at first: far from the store's.
var droneClock = time.UnixMilli(946_684_800_123)

func (s *store) seconds(n int) time.Duration { return time.Duration(n) * s.Second }

func (s *store) pass(seconds int) { s.Advance(s.seconds(seconds)) }

func (s *store) lease() lease.Timing {
	return lease.Timing{Renew: s.seconds(30), Soft: s.seconds(40), Hard: s.seconds(50), Expiry: s.seconds(60)}
}

func (s *store) sweepParams() port.SweepParams {
	return port.SweepParams{
		Limit: 100, DroneLost: s.seconds(120), ProxyGone: s.seconds(90), HardAfter: s.seconds(30), LeaseGrace: s.seconds(30),
		NewActionID: s.actionID,
	}
}

func (s *store) actionID() string {
	s.actions++
	return fmt.Sprintf("ak-%d", s.actions)
}

func (s *store) ok(err error) {
	s.Helper()
	require.NoError(s, err)
}

func (s *store) register(kind port.NodeKind, name, connection string) port.NodeID {
	s.Helper()
	id, err := s.Store.RegisterNode(s.Context(), port.NodeRegistration{
		Kind: kind, Cluster: cluster, Name: name, Controller: "co-1", Connection: connection,
		Version: protocol.Version{Version: "1.2.3", GitHash: "abc"},
	})
	s.ok(err)
	return id
}

func (s *store) beat(drone port.NodeID, connection string, local time.Time) {
	s.Helper()
	s.ok(s.Store.Heartbeats(s.Context(), []port.DroneHeartbeat{{Drone: drone, Connection: connection, LocalTime: local}}))
}

func (s *store) disconnect(node port.NodeID, connection string) {
	s.Helper()
	s.ok(s.Store.DisconnectNode(s.Context(), node, connection))
}

// drone is a drone that can take backends; its connection is called like it.
func (s *store) drone(name string) port.NodeID {
	s.Helper()
	id := s.register(port.DroneNode, name, name)
	s.beat(id, name, droneClock)
	return id
}

// proxy is a connected proxy; its connection is called like it.
func (s *store) proxy(name string) port.NodeID {
	s.Helper()
	return s.register(port.ProxyNode, name, name)
}

// find is a connect to a key; spawn one that makes a backend if need be.
func (s *store) find(key, token string) port.ConnectParams {
	return port.ConnectParams{Key: protocol.Key{Name: key}, Token: token, SecretToken: "secret of " + token, TokenLife: s.seconds(3600)}
}

func (s *store) spawn(key, id string) port.ConnectParams {
	p := s.find(key, "token for "+id)
	p.Spawn = &port.SpawnParams{
		BackendID: id, ActionID: "ak-spawn-" + id, Cluster: cluster, Executable: json.RawMessage(`{"image":"x"}`),
		BestOf: 2, Healthy: s.seconds(45), Lease: s.lease(),
	}
	return p
}

func (s *store) connect(p port.ConnectParams) port.Connected {
	s.Helper()
	c, err := s.Store.Connect(s.Context(), p)
	s.ok(err)
	return c
}

func (s *store) refuse(p port.ConnectParams, want error) {
	s.Helper()
	_, err := s.Store.Connect(s.Context(), p)
	require.ErrorIs(s, err, want)
}

func (s *store) report(drone port.NodeID, id string, states ...backend.State) []port.RecordOutcome {
	s.Helper()
	reports := make([]port.StateReport, len(states))
	for i, state := range states {
		reports[i] = port.StateReport{Drone: drone, BackendID: id, State: state, Time: droneClock.Add(time.Duration(i) * time.Millisecond)}
	}
	outcomes, err := s.Store.RecordStates(s.Context(), reports)
	s.ok(err)
	return outcomes
}

// to moves a backend to a status.
func (s *store) to(drone port.NodeID, id string, status backend.Status) {
	s.Helper()
	require.Equal(s, []port.RecordOutcome{port.Recorded}, s.report(drone, id, stateAt(status)))
}

// ready makes a drone with one ready backend for key "k".
func (s *store) ready(id string) port.NodeID {
	s.Helper()
	d := s.drone("dr-1")
	s.connect(s.spawn("k", id))
	s.to(d, id, backend.Ready)
	return d
}

// stateAt is a whole state with the status.
func stateAt(status backend.Status) backend.State {
	state := backend.State{Status: status}
	switch status {
	case backend.Waiting, backend.Ready:
		state.Address = address
	case backend.Terminating:
		state.Last, state.Termination, state.Reason = backend.Ready, backend.Soft, backend.External
	case backend.HardTerminating:
		state.Last, state.Termination, state.Reason = backend.Ready, backend.Hard, backend.External
	case backend.Terminated:
		code := 3
		state.Last, state.Termination, state.Reason, state.ExitCode = backend.Ready, backend.Soft, backend.External, &code
	}
	return state
}

func (s *store) renew(drone port.NodeID, id string) bool {
	s.Helper()
	renewed, err := s.Store.RenewKeys(s.Context(), []port.Renewal{{Drone: drone, BackendID: id, Lease: s.lease()}})
	s.ok(err)
	require.Len(s, renewed, 1)
	return renewed[0]
}

// uses is a proxy's complete word on what it uses.
func (s *store) uses(proxy port.NodeID, ids ...string) {
	s.Helper()
	s.ok(s.Store.KeepAlive(s.Context(), port.ProxyUse{Proxy: proxy, Backends: ids, Complete: true, AsOf: s.now()}))
}

// now is what the store's clock shows.
func (s *store) now() time.Time {
	s.Helper()
	_, now, err := s.Store.Revocations(s.Context(), 0)
	s.ok(err)
	return now
}

// usesToo adds to what a proxy uses.
func (s *store) usesToo(proxy port.NodeID, ids ...string) {
	s.Helper()
	s.ok(s.Store.KeepAlive(s.Context(), port.ProxyUse{Proxy: proxy, Backends: ids, AsOf: s.now()}))
}

func (s *store) terminate(id string, kind backend.Kind) {
	s.Helper()
	s.ok(s.Store.Terminate(s.Context(), port.TerminateParams{BackendID: id, ActionID: s.actionID(), Kind: kind, Reason: backend.External}))
}

func (s *store) sweep() int {
	s.Helper()
	n, _, err := s.Store.Sweep(s.Context(), s.sweepParams())
	s.ok(err)
	return n
}

// live lets seconds pass, in which every five of them the drone gives its
// heartbeat and renews, and the others do what they do.
func (s *store) live(seconds int, drone port.NodeID, id string, others ...func()) {
	s.Helper()
	for ; seconds > 0; seconds -= 5 {
		s.pass(min(seconds, 5))
		s.beat(drone, "dr-1", droneClock)
		require.True(s, s.renew(drone, id), "the lease is renewed")
		for _, other := range others {
			other()
		}
	}
}

// pending shows the drone's unacknowledged actions as "what backend".
func (s *store) pending(drone port.NodeID) []string {
	s.Helper()
	actions, err := s.Store.PendingActions(s.Context(), drone)
	s.ok(err)
	shown := []string{}
	for _, a := range actions {
		require.Equal(s, int64(drone), a.Action.DroneID)
		if t := a.Action.Action.Terminate; t != nil {
			shown = append(shown, fmt.Sprintf("%s %s %s", t.Kind, t.Reason, a.Action.BackendID))
		} else {
			shown = append(shown, "spawn "+a.Action.BackendID)
		}
	}
	return shown
}

// spawned returns the spawn action of a backend.
func (s *store) spawned(drone port.NodeID, id string) protocol.Action {
	s.Helper()
	actions, err := s.Store.PendingActions(s.Context(), drone)
	s.ok(err)
	for _, a := range actions {
		if a.Action.BackendID == id && a.Action.Action.Spawn != nil {
			return a.Action
		}
	}
	require.FailNow(s, "no spawn action", "for backend %s", id)
	return protocol.Action{}
}

func (s *store) state(id string) backend.State {
	s.Helper()
	b, err := s.Store.Backend(s.Context(), id)
	s.ok(err)
	return b.State
}

func (s *store) statuses(id string, after backend.Status) []backend.Status {
	s.Helper()
	entries, err := s.Store.History(s.Context(), id, after)
	s.ok(err)
	statuses := []backend.Status{}
	for _, e := range entries {
		statuses = append(statuses, e.State.Status)
	}
	return statuses
}

func (s *store) route(token string) port.Route {
	s.Helper()
	r, err := s.Store.RouteToken(s.Context(), token)
	s.ok(err)
	return r
}

func (s *store) noRoute(token string) {
	s.Helper()
	_, err := s.Store.RouteToken(s.Context(), token)
	require.ErrorIs(s, err, port.ErrNotFound)
	require.NotContains(s, err.Error(), token, "a token is a secret")
}

// hinted waits for a hint, and skips others.
func (s *store) hinted(topic port.Topic, subject string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 10*time.Second)
	defer cancel()
	for {
		h, err := s.Listener.Next(ctx)
		require.NoError(s, err, "waiting for the hint %s %q", topic, subject)
		if h == (port.Hint{Topic: topic, Subject: subject}) {
			return
		}
	}
}
