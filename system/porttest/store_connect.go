package porttest

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/backend"
	"plane/system/port"
	"plane/system/protocol"
)

var connectTests = []storeTest{
	{name: "a key that nothing holds", run: func(s *store) {
		s.drone("dr-1")
		s.refuse(s.find("k", "t"), port.ErrKeyUnheld)
	}},
	{name: "a new backend has a drone, an action and a history", run: spawnWritesAll},
	{name: "G12: repeated after an unclear failure it finds what it made", run: func(s *store) {
		d := s.drone("dr-1")
		first := s.connect(s.spawn("k", "b"))
		require.True(s, first.Spawned)
		require.Equal(s, first, s.connect(s.spawn("k", "b")))
		require.Equal(s, []string{"spawn b"}, s.pending(d))
		s.to(d, "b", backend.Ready)
		again := s.connect(s.spawn("k", "b"))
		require.True(s, again.Spawned)
		require.Equal(s, backend.Ready, again.Status)
		require.Equal(s, "b", s.route("token for b").Info.BackendID)
	}},
	{name: "G1: a held key leads everyone to its backend", run: func(s *store) {
		d := s.drone("dr-1")
		s.connect(s.spawn("k", "b"))
		for _, p := range []port.ConnectParams{s.spawn("k", "other"), s.find("k", "t")} {
			c := s.connect(p)
			require.Equal(s, port.Connected{BackendID: "b", Status: backend.Scheduled, Cluster: cluster}, c)
		}
		require.Equal(s, []string{"spawn b"}, s.pending(d))
		for _, token := range []string{"token for b", "token for other", "t"} {
			require.Equal(s, "b", s.route(token).Info.BackendID)
		}
		_, err := s.Store.Backend(s.Context(), "other")
		require.ErrorIs(s, err, port.ErrNotFound)
	}},
	{name: "keys are told apart by name and namespace", run: func(s *store) {
		s.drone("dr-1")
		s.connect(s.spawn("k", "b"))
		p := s.spawn("k", "b2")
		p.Key.Namespace = "n"
		require.Equal(s, "b2", s.connect(p).BackendID)
	}},
	{name: "another tag is refused, even while the holder is ending", run: func(s *store) {
		d := s.drone("dr-1")
		s.connect(s.spawn("k", "b"))
		p := s.spawn("k", "b2")
		p.Key.Tag = "other"
		s.refuse(p, port.ErrKeyHeld)
		s.to(d, "b", backend.Terminating)
		s.refuse(p, port.ErrKeyHeld)
	}},
	{name: "G11: an ending holder is unhealthy, an ended one frees the key at once", run: func(s *store) {
		d := s.ready("b")
		for _, status := range []backend.Status{backend.Terminating, backend.HardTerminating} {
			s.to(d, "b", status)
			s.refuse(s.spawn("k", "b2"), port.ErrKeyUnhealthy)
			ending, err := s.Store.Connect(s.Context(), s.find("k", "t"))
			require.ErrorIs(s, err, port.ErrKeyUnhealthy)
			require.Equal(s, "b", ending.BackendID)
		}
		s.to(d, "b", backend.Terminated)
		s.refuse(s.find("k", "t"), port.ErrKeyUnheld)
		require.Equal(s, "b2", s.connect(s.spawn("k", "b2")).BackendID)
	}},
	{name: "user and auth are refused with a static token", run: func(s *store) {
		s.drone("dr-1")
		p := s.spawn("k", "b")
		p.Spawn.StaticToken = "s.static"
		p.RefuseStatic = true
		s.refuse(p, port.ErrStaticUser)
		p.RefuseStatic = false
		require.Equal(s, "s.static", s.connect(p).StaticToken)
		find := s.find("k", "t")
		find.RefuseStatic = true
		s.refuse(find, port.ErrStaticUser)
		require.Equal(s, "s.static", s.connect(s.find("k", "not recorded")).StaticToken)
		s.noRoute("not recorded")
	}},
	{name: "a backend name is used once", run: func(s *store) {
		d := s.drone("dr-1")
		s.connect(s.spawn("k", "b"))
		s.refuse(s.spawn("k2", "b"), port.ErrBackendExists)
		s.refuse(s.find("k2", "t"), port.ErrKeyUnheld)
		s.to(d, "b", backend.Terminated)
		s.refuse(s.spawn("k2", "b"), port.ErrBackendExists)
		s.refuse(s.spawn("k", "b"), port.ErrBackendExists)
	}},
	{name: "the emptiest of the drones looked at is chosen", run: func(s *store) {
		for _, name := range []string{"dr-1", "dr-2", "dr-3"} {
			s.drone(name)
		}
		count := map[string]int{}
		for i := range 9 {
			p := s.spawn("k"+strconv.Itoa(i), "b"+strconv.Itoa(i))
			p.Spawn.BestOf, p.PlacementSeed = 3, uint64(i)
			count[s.connect(p).Drone]++
		}
		require.Equal(s, map[string]int{"dr-1": 3, "dr-2": 3, "dr-3": 3}, count)
	}},
	{name: "no drone", run: func(s *store) {
		refused := func(why string) {
			s.refuse(s.spawn("k", "b"), port.ErrNoDrone)
			_, err := s.Store.Backend(s.Context(), "b")
			require.ErrorIs(s, err, port.ErrNotFound, why)
			s.refuse(s.find("k", "t"), port.ErrKeyUnheld)
		}
		refused("there is none")
		s.proxy("px-1")
		refused("a proxy is no drone")
		elsewhere, err := s.Store.RegisterNode(s.Context(), port.NodeRegistration{Kind: port.DroneNode, Cluster: "other", Name: "dr-2", Connection: "2"})
		s.ok(err)
		s.beat(elsewhere, "2", droneClock)
		refused("another cluster")
		pooled, err := s.Store.RegisterNode(s.Context(), port.NodeRegistration{Kind: port.DroneNode, Cluster: cluster, Pool: "p", Name: "dr-3", Connection: "3"})
		s.ok(err)
		s.beat(pooled, "3", droneClock)
		refused("another pool")
		id := s.register(port.DroneNode, "dr-1", "dr-1")
		refused("no heartbeat yet")
		s.beat(id, "dr-1", droneClock)
		s.pass(46)
		refused("silent for too long")
		p := s.spawn("k", "b")
		p.Spawn.Pool = "p"
		s.beat(pooled, "3", droneClock)
		require.Equal(s, "dr-3", s.connect(p).Drone)
	}},
	{name: "G13: a drained drone gets no new backends and keeps its own", run: func(s *store) {
		d := s.ready("b")
		updated, err := s.Store.Drain(s.Context(), cluster, "dr-1")
		s.ok(err)
		require.True(s, updated)
		updated, err = s.Store.Drain(s.Context(), cluster, "dr-1")
		s.ok(err)
		require.False(s, updated)
		s.refuse(s.spawn("k2", "b2"), port.ErrNoDrone)
		s.register(port.DroneNode, "dr-1", "anew")
		s.beat(d, "anew", droneClock)
		s.refuse(s.spawn("k2", "b2"), port.ErrNoDrone)
		require.Equal(s, "b", s.connect(s.find("k", "t")).BackendID)
		require.True(s, s.renew(d, "b"))
		for _, missing := range [][2]string{{cluster, "dr-9"}, {"other", "dr-1"}} {
			_, err = s.Store.Drain(s.Context(), missing[0], missing[1])
			require.ErrorIs(s, err, port.ErrNotFound)
		}
	}},
}

func spawnWritesAll(s *store) {
	d := s.drone("dr-1")
	p := s.spawn("k", "b")
	p.Key.Namespace, p.Key.Tag = "n", "tag"
	p.Spawn.Subdomain, p.Spawn.StaticToken = "sub", "s.static"
	require.Equal(s, port.Connected{
		BackendID: "b", Spawned: true, Status: backend.Scheduled, Cluster: cluster,
		Subdomain: "sub", StaticToken: "s.static", Drone: "dr-1", DroneID: d,
	}, s.connect(p))
	s.hinted(port.ActionTopic, strconv.FormatInt(int64(d), 10))

	action := s.spawned(d, "b")
	require.Equal(s, "ak-spawn-b", action.ActionID)
	spawn := action.Action.Spawn
	require.Nil(s, action.Action.Terminate)
	require.JSONEq(s, `{"image":"x"}`, string(spawn.Executable))
	require.Equal(s, p.Key, spawn.Key.Key)
	require.Equal(s, "s.static", *spawn.StaticToken)
	want, err := json.Marshal(protocol.Deadlines(s.lease().Deadlines(droneClock)))
	s.ok(err)
	got, err := json.Marshal(spawn.Key.Deadlines)
	s.ok(err)
	require.JSONEq(s, string(want), string(got), "deadlines count from the drone's own last heartbeat")

	b, err := s.Store.Backend(s.Context(), "b")
	s.ok(err)
	require.Equal(s, backend.State{Status: backend.Scheduled}, b.State)
	require.Equal(s, []any{"b", p.Key, cluster, "dr-1"}, []any{b.ID, b.Key, b.Cluster, b.Drone})
	require.True(s, b.StateTime.Equal(b.CreatedAt), "the first state is the store's own")
	require.Equal(s, []backend.Status{backend.Scheduled}, s.statuses("b", 0))
}

var leaseTests = []storeTest{
	{name: "shortfall 10, G2: the fencing token grows at every acquisition and stays through renewals", run: func(s *store) {
		d := s.drone("dr-1")
		last := int64(0)
		grows := func(id string) {
			token := s.spawned(d, id).Action.Spawn.Key.Token
			require.Greater(s, token, last)
			last = token
		}
		s.connect(s.spawn("k", "b1"))
		grows("b1")
		s.connect(s.spawn("other", "o1")) // in the same millisecond, perhaps
		grows("o1")
		s.pass(30)
		require.True(s, s.renew(d, "b1"))
		require.Equal(s, last, s.spawned(d, "o1").Action.Spawn.Key.Token)
		s.to(d, "b1", backend.Terminated)
		s.connect(s.spawn("k", "b2"))
		grows("b2")
		s.connect(s.spawn("k", "again")) // found, not acquired
		require.Equal(s, last, s.spawned(d, "b2").Action.Spawn.Key.Token)
		s.pass(61)
		s.beat(d, "dr-1", droneClock)
		s.connect(s.spawn("k", "b3")) // taken over
		grows("b3")
	}},
	{name: "G11: a key whose lease has expired is taken over", run: func(s *store) {
		d := s.ready("b")
		s.pass(59)
		s.beat(d, "dr-1", droneClock)
		require.Equal(s, "b", s.connect(s.spawn("k", "b2")).BackendID, "not yet")
		s.pass(2)
		s.refuse(s.find("k", "t"), port.ErrKeyUnheld)
		s.refuse(s.spawn("k", "b"), port.ErrBackendExists)
		other := s.spawn("k", "b2")
		other.Key.Tag = "any tag"
		require.True(s, s.connect(other).Spawned)
		require.False(s, s.renew(d, "b"), "what lost its key cannot renew")
		require.True(s, s.renew(d, "b2"))
		// The one before goes on with its own history, and frees nothing.
		s.to(d, "b", backend.Terminated)
		require.Equal(s, []backend.Status{backend.Scheduled, backend.Ready, backend.Terminated}, s.statuses("b", 0))
		find := s.find("k", "t")
		find.Key.Tag = "any tag"
		require.Equal(s, "b2", s.connect(find).BackendID)
	}},
	{name: "a lease that a renewal came too late for is over", run: func(s *store) {
		d := s.ready("b")
		s.pass(61)
		require.False(s, s.renew(d, "b"))
	}},
	{name: "renewals count from their commit", run: func(s *store) {
		d := s.ready("b")
		for range 3 {
			s.pass(50)
			require.True(s, s.renew(d, "b"))
			require.True(s, s.renew(d, "b"), "harmless twice")
		}
		s.pass(61)
		require.False(s, s.renew(d, "b"))
	}},
	{name: "renewals are answered one by one", run: func(s *store) {
		d, other := s.ready("b"), s.register(port.DroneNode, "dr-2", "dr-2")
		s.connect(s.spawn("k2", "b2"))
		s.connect(s.spawn("k3", "b3"))
		s.to(d, "b2", backend.Terminating)
		s.to(d, "b3", backend.Terminated)
		renewed, err := s.Store.RenewKeys(s.Context(), []port.Renewal{
			{Drone: d, BackendID: "unknown", Lease: s.lease()},
			{Drone: other, BackendID: "b", Lease: s.lease()},
			{Drone: d, BackendID: "b", Lease: s.lease()},
			{Drone: d, BackendID: "b2", Lease: s.lease()},
			{Drone: d, BackendID: "b3", Lease: s.lease()},
		})
		s.ok(err)
		require.Equal(s, []bool{false, false, true, true, false}, renewed)
	}},
}

var routeTests = []storeTest{
	{name: "where a token leads", run: func(s *store) {
		d := s.drone("dr-1")
		user := "ann"
		p := s.spawn("k", "b")
		p.User, p.UserData, p.TokenLife = &user, json.RawMessage(`{"a":1}`), s.seconds(100)
		p.Spawn.Subdomain = "sub"
		s.connect(p)
		r := s.route(p.Token)
		require.Equal(s, backend.Scheduled, r.Status)
		require.Empty(s, r.Info.Address)
		s.to(d, "b", backend.Waiting)
		require.Equal(s, address, s.route(p.Token).Info.Address)
		s.to(d, "b", backend.Ready)
		s.pass(40)
		r = s.route(p.Token)
		require.Equal(s, backend.Ready, r.Status)
		require.Equal(s, []any{"b", address, p.SecretToken, cluster, "ann", "sub"},
			[]any{r.Info.BackendID, r.Info.Address, r.Info.SecretToken, r.Info.Cluster, *r.Info.User, *r.Info.Subdomain})
		require.JSONEq(s, `{"a":1}`, string(r.Info.UserData))
		left := time.Duration(*r.Info.ExpiresIn) * time.Millisecond
		require.InDelta(s, s.seconds(60), left, float64(s.Second))
		s.noRoute("never given out")
	}},
	{name: "without user, user data and subdomain", run: func(s *store) {
		s.ready("b")
		r := s.route("token for b")
		require.Nil(s, r.Info.User)
		require.Nil(s, r.Info.UserData)
		require.Nil(s, r.Info.Subdomain)
	}},
	{name: "shortfall 8: an expired token leads nowhere", run: func(s *store) {
		s.drone("dr-1")
		p := s.spawn("k", "b")
		p.TokenLife = s.seconds(10)
		s.connect(p)
		s.pass(9)
		s.route(p.Token)
		s.pass(2)
		s.noRoute(p.Token)
	}},
	{name: "a static token leads to its backend for as long as that lives", run: func(s *store) {
		d := s.drone("dr-1")
		p := s.spawn("k", "b")
		p.Spawn.StaticToken, p.TokenLife = "s.static", s.seconds(10)
		s.connect(p)
		s.noRoute(p.Token)
		s.to(d, "b", backend.Ready)
		s.pass(30)
		r := s.route("s.static")
		require.Equal(s, protocol.RouteInfo{BackendID: "b", Address: address, Cluster: cluster}, r.Info)
		s.to(d, "b", backend.Terminated)
		s.noRoute("s.static")
	}},
	{name: "a backend that ends has no routes", run: func(s *store) {
		d := s.ready("b")
		s.route("token for b")
		s.to(d, "b", backend.Terminating)
		s.noRoute("token for b")
		s.to(d, "b", backend.Terminated)
		s.noRoute("token for b")
	}},
	{name: "shortfall 8: a revoke takes all tokens of the user, and only those", run: func(s *store) {
		s.drone("dr-1")
		ann, bob := "ann", "bob"
		for key, id := range map[string]string{"k": "b", "k2": "b2"} {
			p := s.spawn(key, id)
			p.User = &ann
			s.connect(p)
		}
		second, third := s.find("k", "second of ann"), s.find("k", "of bob")
		second.User, third.User = &ann, &bob
		s.connect(second)
		s.connect(third)
		s.connect(s.find("k", "of nobody"))
		s.ok(s.Store.Revoke(s.Context(), "b", "ann"))
		s.hinted(port.RevokedTopic, "")
		s.noRoute("token for b")
		s.noRoute("second of ann")
		s.route("of bob")
		s.route("of nobody")
		s.route("token for b2")
		s.ok(s.Store.Revoke(s.Context(), "b", "ann"))
		s.hinted(port.RevokedTopic, "")
		s.connect(second) // a try of the first call that comes late
		s.noRoute("second of ann")
		again := s.find("k", "third of ann")
		again.User = &ann
		s.connect(again)
		s.route("third of ann")
		require.ErrorIs(s, s.Store.Revoke(s.Context(), "unknown", "ann"), port.ErrNotFound)
	}},
	{name: "G8: revocations can be read again", run: func(s *store) {
		s.ready("b")
		recent := func() []string {
			revocations, _, err := s.Store.Revocations(s.Context(), s.seconds(30))
			s.ok(err)
			shown, last := []string{}, int64(0)
			for _, r := range revocations {
				require.Greater(s, r.ID, last)
				last = r.ID
				shown = append(shown, r.BackendID+" "+r.User)
			}
			return shown
		}
		require.Empty(s, recent())
		s.ok(s.Store.Revoke(s.Context(), "b", "ann"))
		s.pass(20)
		s.ok(s.Store.Revoke(s.Context(), "b", "bob"))
		s.ok(s.Store.Revoke(s.Context(), "b", "ann"))
		require.Equal(s, []string{"b ann", "b bob", "b ann"}, recent())
		s.pass(11)
		require.Equal(s, []string{"b bob", "b ann"}, recent())
		s.pass(20)
		require.Empty(s, recent())
	}},
}
