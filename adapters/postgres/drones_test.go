package postgres

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"plane/system/backend"
	"plane/system/lease"
	"plane/system/placement"
	"plane/system/port"
	"plane/system/protocol"
)

func TestDronesAreLookedAtWhereManyBackendsAreMade(t *testing.T) {
	d, began := newDrones(), time.Now()
	after := func(ms int) time.Time { return began.Add(time.Duration(ms) * time.Millisecond) }
	spawn := &port.SpawnParams{Cluster: "c", Pool: "p", Healthy: time.Minute, BestOf: 2, Asks: placement.Resources{MilliCPUs: 100}}
	want := func(ms int) (int64, *look) { return d.choose(spawn, uint64(ms), after(ms)) }

	drone, look := want(0)
	require.Zero(t, drone)
	require.Nil(t, look, "this may be the only one for a long time")
	drone, look = want(2000)
	require.Zero(t, drone)
	require.Nil(t, look, "they are few")
	drone, look = want(2900)
	require.Zero(t, drone)
	require.NotNil(t, look)
	require.Equal(t, pool{"c", "p", time.Minute}, look.pool)
	_, second := want(2901)
	require.Nil(t, second, "somebody is on the way")
	roomy := placement.Load{Has: placement.Capacity{MilliCPUs: 1000}}
	look.saw([]placement.Candidate{{Drone: 7, Load: roomy}, {Drone: 8, Load: roomy}})

	count := map[int64]int{}
	for i := range 20 {
		drone, _ := want(2902 + i)
		count[drone]++
	}
	require.Equal(t, map[int64]int{7: 10, 8: 10}, count, "what is placed counts at once")
	drone, _ = want(2925)
	require.Zero(t, drone, "none has room: the server knows better")
	other := *spawn
	other.Pool = "elsewhere"
	drone, _ = d.choose(&other, 0, after(2926))
	require.Zero(t, drone)

	_, look = want(3030)
	require.NotNil(t, look, "what is known is getting old")
	look.saw([]placement.Candidate{{Drone: 9, Load: roomy}})
	drone, _ = want(3031)
	require.EqualValues(t, 9, drone)
	drone, late := want(3290)
	require.Zero(t, drone, "it is too old")
	require.NotNil(t, late)
	d.forget()
	late.saw([]placement.Candidate{{Drone: 9, Load: roomy}})
	drone, _ = want(3291)
	require.Zero(t, drone, "who has looked before does not know")
}

// placing is a store with drones that are known to it.
func placing(t *testing.T, drones ...string) (*Store, []port.NodeID) {
	t.Helper()
	s := freshStore(t)
	ids := make([]port.NodeID, len(drones))
	for i, name := range drones {
		id, err := s.RegisterNode(t.Context(), port.NodeRegistration{
			Kind: port.DroneNode, Cluster: "c", Name: name, Connection: name, Capacity: placement.Capacity{MaxBackends: 100},
		})
		require.NoError(t, err)
		require.NoError(t, s.Heartbeats(t.Context(), []port.DroneHeartbeat{{Drone: id, Connection: name, LocalTime: time.UnixMilli(1_000_000)}}))
		ids[i] = id
	}
	for i := range 3 {
		made(t, s, fmt.Sprint("first-", i))
	}
	known, _ := s.choose([]port.ConnectParams{wishing("k", "b")})
	require.NotNil(t, known[0], "or the test tests nothing")
	return s, ids
}

// wishing is a connect that makes a backend for a key unless there is one.
func wishing(key, id string) port.ConnectParams {
	return port.ConnectParams{
		Key: protocol.Key{Name: key}, Token: "token of " + id, TokenLife: time.Hour, SecretToken: "secret",
		Spawn: &port.SpawnParams{
			BackendID: id, ActionID: "ak-" + id, Cluster: "c", Executable: []byte(`{"image":"x"}`), BestOf: 2, Healthy: 45 * time.Second, Lease: lease.Default(),
		},
	}
}

func made(t *testing.T, s *Store, id string) port.Connected {
	t.Helper()
	c, err := s.Connect(t.Context(), wishing("key of "+id, id))
	require.NoError(t, err)
	require.True(t, c.Spawned)
	return c
}

// What a store knows of drones may not hold any more, which only the database can
// say: whoever else has changed it.
func TestADroneThatIsKnownMayHaveChanged(t *testing.T) {
	for name, change := range map[string]string{
		"drained":         "update plane.load set draining = true where drone = $1",
		"gone":            "update plane.node set connected = false where id = $1",
		"silent":          "update plane.node set seen = seen - interval '1 hour' where id = $1",
		"heard of anew":   "update plane.node set local_time = null where id = $1",
		"in another pool": "update plane.node set pool = 'p' where id = $1",
		"full":            "update plane.load set spare_backends = 0, backends = 50 where drone = $1",
	} {
		t.Run(name, func(t *testing.T) {
			s, ids := placing(t, "dr-1", "dr-2")
			_, err := s.pool.Exec(t.Context(), change, int64(ids[0]))
			require.NoError(t, err)
			for i := range 8 {
				require.Equal(t, "dr-2", made(t, s, fmt.Sprint("b", i)).Drone)
			}
		})
	}
}

// Many connects in one batch come to what each comes to alone.
func TestABatchDoesWithEachWhatIsRight(t *testing.T) {
	s, ids := placing(t, "dr-1", "dr-2")
	for _, id := range []string{"held", "lapsed", "ending", "ended"} {
		made(t, s, id)
	}
	static := wishing("key of static", "static")
	static.Spawn.StaticToken = "s.static"
	_, err := s.Connect(t.Context(), static)
	require.NoError(t, err)
	_, err = s.pool.Exec(t.Context(), "update plane.backend set lease_end = plane.now() - interval '1 second' where id = 'lapsed'")
	require.NoError(t, err)
	_, err = s.pool.Exec(t.Context(), "update plane.backend set status = 60 where id = 'ending'")
	require.NoError(t, err)
	for _, drone := range ids {
		_, err = s.RecordStates(t.Context(), []port.StateReport{{Drone: drone, BackendID: "ended", State: backend.State{Status: backend.Terminated, Last: backend.Scheduled}}})
		require.NoError(t, err)
	}
	tagged := wishing("key of held", "new-1")
	tagged.Key.Tag = "another"
	finding := wishing("key of nobody", "")
	finding.Spawn = nil
	nowhere := wishing("key of nowhere", "new-2")
	nowhere.Spawn.Pool = "none"
	fixed := wishing("fixed", "new-3")
	fixed.Spawn.StaticToken = "s.fixed"
	cases := []struct {
		name    string
		p       port.ConnectParams
		outcome string
		backend string
	}{
		{"a held key", wishing("key of held", "new-4"), "ok", "held"},
		{"a new key", wishing("z", "new-5"), "ok", "new-5"},
		{"one like it", wishing("a", "new-6"), "ok", "new-6"},
		{"the same key", wishing("z", "new-7"), "ok", "new-5"},
		{"the same name", wishing("y", "new-6"), "exists", ""},
		{"a key whose lease has expired", wishing("key of lapsed", "new-8"), "ok", "new-8"},
		{"a backend that is ending", wishing("key of ending", "new-9"), "unhealthy", "ending"},
		{"a key that is free again", wishing("key of ended", "new-10"), "ok", "new-10"},
		{"a name that was used", wishing("x", "ended"), "exists", ""},
		{"a static token is there", wishing("key of static", "new-11"), "ok", "static"},
		{"a static token is wanted", fixed, "ok", "new-3"},
		{"another tag", tagged, "held", "held"},
		{"nothing is to be made", finding, "unheld", ""},
		{"no drone", nowhere, "no_drone", ""},
	}
	items := make([]port.ConnectParams, len(cases))
	for i, c := range cases {
		items[i] = c.p
	}
	answers, err := s.connectAll(t.Context(), items)
	require.NoError(t, err)
	for i, c := range cases {
		a := answers[i]
		require.Equal(t, c.outcome, a.outcome, c.name)
		if c.backend != "" {
			require.Equal(t, c.backend, *a.backend, c.name)
		}
		if a.outcome == "ok" {
			require.Equal(t, c.p.Spawn.BackendID == *a.backend, a.drone != nil, "%s: the drone is named to who has made the backend", c.name)
		}
		if a.outcome == "ok" && *a.staticToken == "" {
			route, err := s.RouteToken(t.Context(), c.p.Token)
			require.NoError(t, err, c.name)
			require.Equal(t, c.backend, route.Info.BackendID, c.name)
		}
	}
	var promised int
	require.NoError(t, s.pool.QueryRow(t.Context(), "select sum(backends) - (select count(*) from plane.backend) from plane.load").Scan(&promised))
	require.Zero(t, promised, "each is counted once")
}

// G2: whoever gets a key has a greater fencing token than all who had it before,
// however long it was held up on the way.
func TestAFencingTokenIsDrawnWhileNobodyElseCanHaveTheKey(t *testing.T) {
	for name, batch := range map[string][]port.ConnectParams{
		"alone":      {wishing("k", "slow")},
		"in a batch": {wishing("k", "slow"), wishing("a key before", "b"), wishing("zz", "c")},
	} {
		t.Run(name, func(t *testing.T) { fencingGrows(t, batch) })
	}
}

func fencingGrows(t *testing.T, batch []port.ConnectParams) {
	s, _ := placing(t, "dr-1")
	other := openStore(t, Config{URL: s.cfg.URL})
	hold, err := s.pool.Begin(t.Context())
	require.NoError(t, err)
	defer hold.Rollback(context.WithoutCancel(t.Context())) //nolint:errcheck // it is over by then
	_, err = hold.Exec(t.Context(), `insert into plane.backend (id, namespace, name, tag, fencing, lease_end, cluster, drone, subdomain, static_token, made, made_at, millicpus, memory, status, history)
		select 'slow', '', 'another key', '', 1, b.lease_end, 'c', b.drone, '', '', b.made, b.made_at, 0, 0, 10, b.history from plane.backend b limit 1`)
	require.NoError(t, err)

	var fencing []int64 // of those who got the key, in this order
	got := func(id string) {
		var token int64
		require.NoError(t, s.pool.QueryRow(t.Context(), "select fencing from plane.backend where id = $1", id).Scan(&token))
		fencing = append(fencing, token)
	}
	waiting := func() (n int) {
		require.NoError(t, s.pool.QueryRow(t.Context(), "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'").Scan(&n))
		return n
	}
	slow, fast := make(chan error, 1), make(chan port.Connected, 1)
	go func() {
		_, err := s.connectAll(t.Context(), batch)
		slow <- err
	}()
	for waiting() == 0 {
		require.Empty(t, slow)
	}
	go func() {
		c, err := other.Connect(t.Context(), wishing("k", "fast"))
		assert.NoError(t, err)
		fast <- c
	}()
	for waiting() < 2 && len(fast) == 0 {
		require.Empty(t, slow)
	}
	if len(fast) == 1 { // it need not wait, if that is harmless
		c := <-fast
		got(c.BackendID)
		_, err = other.RecordStates(t.Context(), []port.StateReport{{Drone: c.DroneID, BackendID: c.BackendID, State: backend.State{Status: backend.Terminated, Last: backend.Scheduled}}})
		require.NoError(t, err)
		fast <- c
	}
	require.NoError(t, hold.Rollback(t.Context()))
	require.NoError(t, <-slow)
	<-fast
	got("slow")
	require.IsIncreasing(t, fencing)
}

// A batch has no key locked while it waits for who revokes tokens: plane.connect
// locks the two the other way round, and with a second revocation they would wait
// for each other.
func TestABatchLocksNoKeyBeforeItMayMakeTokens(t *testing.T) {
	s, _ := placing(t, "dr-1")
	made(t, s, "held")
	revoking, err := s.pool.Begin(t.Context())
	require.NoError(t, err)
	defer revoking.Rollback(context.WithoutCancel(t.Context())) //nolint:errcheck // it is over by then
	_, err = revoking.Exec(t.Context(), "select pg_advisory_xact_lock(plane.token_lock('held'))")
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() {
		_, err := s.connectAll(t.Context(), []port.ConnectParams{wishing("key of held", "b1"), wishing("a", "b2"), wishing("z", "b3")})
		done <- err
	}()
	for n := 0; n == 0; {
		require.Empty(t, done)
		require.NoError(t, s.pool.QueryRow(t.Context(), "select count(*) from pg_locks where locktype = 'advisory' and not granted and database = (select oid from pg_database where datname = current_database())").Scan(&n))
	}
	var free bool
	require.NoError(t, s.pool.QueryRow(t.Context(), "select pg_try_advisory_xact_lock(plane.key_lock('', 'a')) and pg_try_advisory_xact_lock(plane.key_lock('', 'z'))").Scan(&free))
	require.True(t, free)
	require.NoError(t, revoking.Rollback(t.Context()))
	require.NoError(t, <-done)
}
