package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"plane/adapters/postgres"
	"plane/system/backend"
	"plane/system/lease"
	"plane/system/placement"
	"plane/system/port"
)

// controllers opens more stores on the same database.
func (d *database) controllers(n int) []*postgres.Store {
	d.t.Helper()
	stores := []*postgres.Store{d.Store}
	for len(stores) < n {
		s, err := postgres.Open(d.t.Context(), postgres.Config{URL: d.url})
		require.NoError(d.t, err)
		d.t.Cleanup(s.Close)
		postgres.GatherNothing(s)
		stores = append(stores, s)
	}
	return stores
}

// number asks the database for one.
func (d *database) number(sql string) (n int) {
	d.t.Helper()
	require.NoError(d.t, d.conn.QueryRow(d.t.Context(), sql).Scan(&n))
	return n
}

// Shortfall 6: there is no limit of 8,000 bytes anywhere. And what goes to the
// drone is byte for byte what came.
func TestLongSpawnGoesThroughAsItIs(t *testing.T) {
	d := open(t)
	drone := d.drone("dr-1")
	p := spawning("k", "b")
	p.Spawn.Executable = fmt.Appendf(nil, `{ "image":"x",  "env":{"LONG":"%s","a":"\u0000\n"}, "image":"x" }`, strings.Repeat("é", 50_000))
	_, err := d.Connect(t.Context(), p)
	require.NoError(t, err)
	actions, err := d.PendingActions(t.Context(), drone)
	require.NoError(t, err)
	require.Equal(t, string(p.Spawn.Executable), string(actions[0].Action.Action.Spawn.Executable))
}

func TestKeysMayBeCalledAnything(t *testing.T) {
	d := open(t)
	drone := d.drone("dr-1")
	for i, name := range []string{"", "\x00", "\x01", "\x00\x01", "\x01\x02", "é 漢", "'; drop schema plane; --", "{a,b}", strings.Repeat("k", 2000)} {
		p := spawning(name, fmt.Sprint("b", i))
		p.Key.Namespace, p.Key.Tag = name[:min(len(name), 100)], name
		user := name
		p.User, p.UserData = &user, []byte(`{ "a" : 1 }`)
		c, err := d.Connect(t.Context(), p)
		require.NoError(t, err)
		require.Equal(t, p.Spawn.BackendID, c.BackendID, "each is a key of its own")
		b, err := d.Backend(t.Context(), c.BackendID)
		require.NoError(t, err)
		require.Equal(t, p.Key, b.Key)
		r, err := d.RouteToken(t.Context(), p.Token)
		require.NoError(t, err)
		require.Equal(t, user, *r.Info.User)
		require.Equal(t, `{ "a" : 1 }`, string(r.Info.UserData))
		require.NoError(t, d.Revoke(t.Context(), c.BackendID, user))
		_, err = d.RouteToken(t.Context(), p.Token)
		require.ErrorIs(t, err, port.ErrNotFound)
	}
	actions, err := d.PendingActions(t.Context(), drone)
	require.NoError(t, err)
	require.Equal(t, "\x00\x01", actions[3].Action.Action.Spawn.Key.Key.Name)
	_, err = d.Connect(t.Context(), spawning(strings.Repeat("k", 3000), "b"))
	require.ErrorContains(t, err, "3000 bytes")
	for _, junk := range []string{"\x00", "\xff\xfe", strings.Repeat("x", 100_000)} {
		_, err = d.RouteToken(t.Context(), junk)
		require.ErrorIs(t, err, port.ErrNotFound)
	}
}

// A token belongs to the try of a connect that was last, whichever backend that
// found; and a revocation is of one backend.
func TestTokenOfARepeatedConnectFollowsIt(t *testing.T) {
	d := open(t)
	drone := d.drone("dr-1")
	user := "ann"
	try := func(key, id string) port.ConnectParams {
		p := spawning(key, id)
		p.Token, p.User = "token", &user
		return p
	}
	leads := func(want string) {
		t.Helper()
		r, err := d.RouteToken(t.Context(), "token")
		if want == "" {
			require.ErrorIs(t, err, port.ErrNotFound)
			return
		}
		require.NoError(t, err)
		require.Equal(t, want, r.Info.BackendID)
	}
	connect := func(p port.ConnectParams) {
		t.Helper()
		_, err := d.Connect(t.Context(), p)
		require.NoError(t, err)
	}
	other := spawning("k2", "b2")
	connect(try("k", "b"))
	leads("b")
	connect(other)
	require.NoError(t, d.Revoke(t.Context(), "b2", "ann"))
	connect(try("k2", "again")) // issued after that revocation
	leads("b2")
	require.NoError(t, d.Revoke(t.Context(), "b2", "ann"))
	connect(try("k2", "again"))
	leads("")
	_, err := d.RecordStates(t.Context(), []port.StateReport{{Drone: drone, BackendID: "b2", State: backend.State{Status: backend.Terminated, Last: backend.Scheduled}}})
	require.NoError(t, err)
	connect(try("k2", "b3")) // nobody was revoked there
	leads("b3")
}

// A message cut in the middle of a character, or with zeros in it, is recorded
// all the same: the drone would tell it for ever.
func TestWhatDronesSayIsRecordedWhateverItIs(t *testing.T) {
	d := open(t)
	drone := d.drone("dr-1")
	_, err := d.Connect(t.Context(), spawning("k", "b"))
	require.NoError(t, err)
	code := 1 << 40
	outcomes, err := d.RecordStates(t.Context(), []port.StateReport{{Drone: drone, BackendID: "b", Time: time.Unix(1, 0), State: backend.State{
		Status: backend.Terminated, Last: backend.Scheduled, ExitCode: &code, Message: "a\x00b\xc3",
	}}})
	require.NoError(t, err)
	require.Equal(t, []port.RecordOutcome{port.Recorded}, outcomes)
	b, err := d.Backend(t.Context(), "b")
	require.NoError(t, err)
	require.Equal(t, "a\x00b\uFFFD", b.State.Message)
	require.Equal(t, code, *b.State.ExitCode)
}

func TestOneConnectThatTheDatabaseRefusesHurtsNoOther(t *testing.T) {
	d := open(t)
	d.drone("dr-1")
	var clients sync.WaitGroup
	for i := range 60 {
		clients.Go(func() {
			p := spawning(fmt.Sprint("k", i), fmt.Sprint("b", i))
			if i%10 == 0 {
				p.UserData = []byte("{no JSON")
			}
			_, err := d.Connect(t.Context(), p)
			if i%10 == 0 {
				require.ErrorContains(t, err, "json")
			} else {
				require.NoError(t, err)
			}
		})
	}
	clients.Wait()
	require.Equal(t, 54, d.number("select count(*) from plane.backend"))
}

// G1: as many clients of as many controllers as you like.
func TestManyConnectsAtOnceGiveOneBackendAKey(t *testing.T) {
	d := open(t)
	for i := range 4 {
		d.drone(fmt.Sprint("dr-", i))
	}
	var mu sync.Mutex
	found, spawned := map[string]map[string]bool{}, 0
	var clients sync.WaitGroup
	for c, s := range d.controllers(3) {
		for i := range 100 {
			clients.Go(func() {
				key, id := fmt.Sprint("k", i%10), fmt.Sprint("b-", c, "-", i)
				got, err := s.Connect(t.Context(), spawning(key, id))
				require.NoError(t, err)
				mu.Lock()
				defer mu.Unlock()
				if found[key] == nil {
					found[key] = map[string]bool{}
				}
				found[key][got.BackendID] = true
				if got.Spawned {
					spawned++
				}
			})
		}
	}
	clients.Wait()
	require.Equal(t, 10, spawned)
	for key, ids := range found {
		require.Len(t, ids, 1, key)
	}
	require.Equal(t, 10, d.number("select sum(backends) from plane.load"))
	require.Equal(t, 300, d.number("select count(*) from plane.token"), "each has its token")
}

// G8: a late try of a connect does not bring its token back past a revocation
// that is being made at the same moment.
func TestALateTryWaitsForARevocation(t *testing.T) {
	d := open(t)
	d.drone("dr-1")
	user := "ann"
	p := spawning("k", "b")
	p.User = &user
	_, err := d.Connect(t.Context(), p)
	require.NoError(t, err)

	revoking, err := pgx.Connect(t.Context(), d.url)
	require.NoError(t, err)
	defer revoking.Close(context.WithoutCancel(t.Context()))
	_, err = revoking.Exec(t.Context(), "begin; select plane.revoke('b', 'ann')")
	require.NoError(t, err)
	late := make(chan error, 1)
	go func() {
		_, err := d.Connect(t.Context(), p)
		late <- err
	}()
	for d.number("select count(*) from pg_locks l join pg_database b on b.oid = l.database where b.datname = current_database() and l.locktype = 'advisory' and not l.granted") == 0 {
		require.Empty(t, late, "it did not wait")
	}
	_, err = revoking.Exec(t.Context(), "commit")
	require.NoError(t, err)
	require.NoError(t, <-late)
	_, err = d.RouteToken(t.Context(), p.Token)
	require.ErrorIs(t, err, port.ErrNotFound)
}

// G8: a revocation counts from its commit on. A connect that is answered before
// has a token that is void then, and one that finds it being made waits, so that
// its token is good: none is told from another by when its number was drawn.
func TestAConnectWaitsForARevocation(t *testing.T) {
	for name, joins := range map[string]int{"the first to a key": 0, "to a key that was held lately": 1} {
		t.Run(name, func(t *testing.T) {
			d := open(t)
			d.drone("dr-1")
			_, err := d.Connect(t.Context(), spawning("k", "b"))
			require.NoError(t, err)
			s := d.controllers(2)[1]
			user := "ann"
			p := spawning("k", "other")
			p.User = &user
			for i := range joins {
				p.Token = fmt.Sprint("early ", i)
				_, err := s.Connect(t.Context(), p)
				require.NoError(t, err)
			}
			release := d.hold("select plane.revoke('b', 'ann')")
			p.Token = "late"
			done := make(chan error, 1)
			go func() {
				_, err := s.Connect(t.Context(), p)
				done <- err
			}()
			d.blocked()
			require.Empty(t, done)
			release()
			require.NoError(t, <-done)
			_, err = s.RouteToken(t.Context(), "late")
			require.NoError(t, err)
			_, err = s.RouteToken(t.Context(), "early 0")
			require.ErrorIs(t, err, port.ErrNotFound)
		})
	}
}

// A burst from three controllers never overbooks a drone.
func TestNoDroneIsOverbooked(t *testing.T) {
	d := open(t)
	has := []placement.Capacity{{MaxBackends: 5}, {MilliCPUs: 4000}, {MilliCPUs: 100_000, MemoryBytes: 3 << 30}}
	var drones []port.NodeID
	for i, c := range has {
		name := fmt.Sprint("dr-", i)
		id, err := d.RegisterNode(t.Context(), port.NodeRegistration{Kind: port.DroneNode, Cluster: "c", Name: name, Connection: name, Capacity: c})
		require.NoError(t, err)
		d.beat(id, name)
		drones = append(drones, id)
	}
	var mu sync.Mutex
	placed := map[port.NodeID][]string{}
	refused := 0
	var clients sync.WaitGroup
	for c, s := range d.controllers(3) {
		for i := range 20 {
			clients.Go(func() {
				id := fmt.Sprint("b-", c, "-", i)
				p := spawning(id, id)
				p.PlacementSeed, p.Spawn.Asks = uint64(i), placement.Resources{MilliCPUs: 1000, MemoryBytes: 1 << 30}
				got, err := s.Connect(t.Context(), p)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					require.ErrorIs(t, err, port.ErrNoDrone)
					require.ErrorContains(t, err, "asked for 1 CPU and 1 GiB")
					refused++
					return
				}
				placed[got.DroneID] = append(placed[got.DroneID], id)
			})
		}
	}
	clients.Wait()
	require.Equal(t, []int{5, 4, 3}, []int{len(placed[drones[0]]), len(placed[drones[1]]), len(placed[drones[2]])})
	require.Equal(t, 60-12, refused)
	var reports []port.StateReport
	for _, id := range drones {
		for _, b := range placed[id] {
			reports = append(reports, port.StateReport{Drone: id, BackendID: b, State: backend.State{Status: backend.Terminated, Last: backend.Scheduled}})
		}
	}
	_, err := d.RecordStates(t.Context(), reports)
	require.NoError(t, err)
	require.Zero(t, d.number("select sum(backends) + sum(millicpus) + sum(memory) from plane.load"), "what has ended counts no longer")
}

// G13: a drain and a placement at the same moment: the backend is there before
// the drain is answered, or goes elsewhere.
func TestDrainIsNotOvertakenByAPlacement(t *testing.T) {
	d := open(t)
	d.drone("dr-1")
	release := d.hold("select plane.drain('c', 'dr-1')")
	refused := make(chan error)
	go func() {
		_, err := d.Connect(t.Context(), spawning("k", "b"))
		refused <- err
	}()
	d.blocked()
	release()
	err := <-refused
	require.ErrorIs(t, err, port.ErrNoDrone)
	require.ErrorContains(t, err, "draining")
	_, err = d.Backend(t.Context(), "b")
	require.ErrorIs(t, err, port.ErrNotFound)
}

// Three controllers, proxies at two of them at once, and everything that is
// written about the same backends: nobody waits for one who waits for him.
func TestNothingDeadlocks(t *testing.T) {
	d := open(t)
	drone := d.drone("dr-1")
	var ids []string
	for i := range 60 {
		id := fmt.Sprintf("b-%02d", i)
		_, err := d.Connect(t.Context(), spawning(id, id))
		require.NoError(t, err)
		ids = append(ids, id)
	}
	px, err := d.RegisterNode(t.Context(), port.NodeRegistration{Kind: port.ProxyNode, Cluster: "c", Name: "px-1", Connection: "1"})
	require.NoError(t, err)
	asOf := d.tick()
	var all sync.WaitGroup
	for c, s := range d.controllers(3) {
		for round := range 8 {
			all.Go(func() {
				rnd := rotated(ids, 17*c+5*round)
				var renewals []port.Renewal
				var reports []port.StateReport
				for i, id := range rnd {
					renewals = append(renewals, port.Renewal{Drone: drone, BackendID: id, Lease: lease.Default()})
					state := backend.State{Status: backend.Status(10 * (2 + (i+round)%3)), Address: "10.0.0.1:1"}
					if i%10 == round {
						state = backend.State{Status: backend.Terminated, Last: backend.Scheduled}
					}
					reports = append(reports, port.StateReport{Drone: drone, BackendID: id, State: state})
				}
				_, err := s.RenewKeys(t.Context(), renewals)
				require.NoError(t, err)
				require.NoError(t, s.KeepAlive(t.Context(), port.ProxyUse{Proxy: px, Backends: ids[c : 20+round], Complete: round%2 == 0, AsOf: asOf}))
				_, err = s.RecordStates(t.Context(), reports)
				require.NoError(t, err)
				require.NoError(t, s.AckActions(t.Context(), drone, []string{"ak-" + rnd[0], "ak-" + rnd[1]}))
				require.NoError(t, s.Terminate(t.Context(), port.TerminateParams{BackendID: rnd[2], ActionID: "ak-x", Kind: backend.Soft, Reason: backend.External}))
				_, err = s.Connect(t.Context(), spawning(rnd[3], fmt.Sprint("new-", c, "-", round)))
				if !errors.Is(err, port.ErrKeyUnhealthy) {
					require.NoError(t, err)
				}
			})
		}
	}
	all.Wait()
	require.Zero(t, d.number("select deadlocks from pg_stat_database where datname = current_database()"))
	require.Zero(t, d.number("select sum(l.backends) - (select count(*) from plane.backend) from plane.load l"))
}

// A burst of spawns, or what came while a drone was away: taken over at once or
// some by some, whatever the server knows of the table.
func TestThousandsOfActionsAreAcknowledgedTogether(t *testing.T) {
	for name, analyze := range map[string]string{"a table that has grown just now": "select 1", "one that the server knows": "analyze plane.action"} {
		t.Run(name, func(t *testing.T) {
			d := open(t)
			d.exec("insert into plane.action (drone, id, backend, kind, reason) select d, 'ak-' || d || '-' || i, 'b', 'soft', '' from generate_series(1, 10) d, generate_series(1, 5000) i")
			d.exec(analyze)
			ids := make([]string, 4_999)
			for i := range ids {
				ids[i] = fmt.Sprint("ak-1-", len(ids)-i)
			}
			for some := range slices.Chunk(ids[:4_000], 500) {
				require.NoError(t, d.AckActions(t.Context(), 1, some))
			}
			require.NoError(t, d.AckActions(t.Context(), 1, ids[4_000:]))
			require.NoError(t, d.AckActions(t.Context(), 2, []string{"ak-1-5000", "ak-3-1"}), "not its own")
			require.Equal(t, 1, d.number("select count(*) from plane.action where drone = 1 and id = 'ak-1-5000'"))
			require.Equal(t, 9*5000+1, d.number("select count(*) from plane.action"))
		})
	}
}

func rotated(ids []string, by int) []string {
	by %= len(ids)
	return append(append([]string{}, ids[by:]...), ids[:by]...)
}
