package scenarios

import (
	"fmt"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/postgres/pgtest"
	"plane/system/backend"
	"plane/system/protocol"
)

// outage is how long a database may be away without anybody noticing: leases are
// renewed every 12 s, and end backends softly after 40.
const outage = 20 * time.Second

// TestControllersKilledAllAlong: three controllers share a database, and one of
// them is killed all the time. 500 connects for 50 keys at once give 50 backends,
// and so do those that come all along, each kill meeting a new key as well; none
// is lost, none is there twice, and no open WebSocket notices.
func TestControllersKilledAllAlong(t *testing.T) {
	t.Parallel()
	c := startShared(t, pgtest.Database(t))
	c.addDrone(t, "one")
	c.addDrone(t, "two")
	users := c.users(t, 4)
	const keys, times = 50, 10

	var mu sync.Mutex
	given, spawned := map[string]map[string]bool{}, 0
	var connects sync.WaitGroup
	errs := make([]error, keys*times)
	for i := range keys * times {
		key := fmt.Sprint("key-", i%keys)
		connects.Go(func() {
			var resp protocol.ConnectResponse
			resp, errs[i] = c.insist(t.Context(), key)
			mu.Lock()
			defer mu.Unlock()
			if given[key] == nil {
				given[key] = map[string]bool{}
			}
			given[key][resp.BackendID] = true
			if resp.Spawned {
				spawned++
			}
		})
	}
	var all []string
	for i := range keys {
		all = append(all, fmt.Sprint("key-", i))
	}
	visits := []*visitors{c.visit(t, all[:keys/4])}
	kills := 0
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); kills++ {
		victim := slices.Concat([]*process{c.controller}, c.others)[kills%sharedControllers]
		visits = append(visits, c.visit(t, []string{fmt.Sprint("new-", kills)}))
		victim.kill9()
		c.watch(t, users, 500*time.Millisecond)
		victim.start(t)
		c.watch(t, users, time.Second)
	}
	connects.Wait()
	t.Logf("killed controllers %d times", kills)
	for _, v := range visits {
		eventually(t, 20*time.Second, "every visitor has been given a backend", v.served)
		one := v.leave(t)
		for key, id := range one {
			if given[key] == nil {
				given[key] = map[string]bool{}
			}
			given[key][id] = true
		}
	}

	backends := map[string]bool{}
	for i, err := range errs {
		require.NoError(t, err, "connect %d", i)
	}
	for key, ids := range given {
		require.Len(t, ids, 1, "key %s led to several backends", key)
		for id := range ids {
			backends[id] = true
			c.reaches(t, id, backend.Ready, 30*time.Second)
			c.is(t, id, backend.Ready)
		}
	}
	require.Len(t, backends, keys+kills)
	require.LessOrEqual(t, spawned, keys) // an answer may be lost, so not every spawn is told
	running := c.keysRunning(t)
	for key := range given {
		require.Equal(t, 1, running[key], "backends that run for %s", key)
	}
	c.allIsWell(t, users)
}

// TestDatabaseKilledAndStartedAgain, again and again, once for as long as leases
// allow: what was committed is there, everything goes on by itself, status
// streams miss nothing, and no key has two backends.
func TestDatabaseKilledAndStartedAgain(t *testing.T) {
	t.Parallel()
	pg := pgtest.Server(t, pgtest.Options{Durable: true})
	c := startShared(t, pg.Database(t))
	c.addDrone(t, "one")
	users := c.users(t, 4)
	keys := []string{"v1", "v2", "v3", "v4", "v5"}
	visitors := c.visit(t, keys)
	// It changes its status while the database is away.
	slow := c.connect(t, "slow", withEnv(map[string]string{"START_DELAY": "3s"}))
	stream := c.follow(t, slow.BackendID)
	for _, away := range []time.Duration{5 * time.Second, time.Second, outage} {
		pg.Kill(t)
		c.watch(t, users, away)
		pg.Start(t)
		c.watch(t, users, 5*time.Second)
	}
	c.goesOn(t, users, visitors, keys)
	c.missedNothing(t, slow.BackendID, stream)
}

// TestFailover: a streaming standby, which has every committed transaction, is
// promoted while the primary hangs, or cannot be reached. Plane follows by
// itself.
func TestFailover(t *testing.T) {
	t.Parallel()
	for _, fault := range []struct {
		name string
		cut  func(t *testing.T, primary *pgtest.Instance, line *cutter)
	}{
		{"the primary hangs", func(t *testing.T, primary *pgtest.Instance, _ *cutter) { primary.Freeze(t) }},
		{"the primary cannot be reached", func(_ *testing.T, _ *pgtest.Instance, line *cutter) { line.cutForGood() }},
	} {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel()
			primary := pgtest.Server(t, pgtest.Options{})
			database := primary.Database(t)
			standby := primary.Standby(t)
			lines := []*cutter{newCutter(t, primary.Address()), newCutter(t, standby.Address())}
			c := startShared(t, onHosts(t, database, lines...))
			c.addDrone(t, "one")
			users := c.users(t, 4)
			keys := []string{"v1", "v2", "v3", "v4", "v5"}
			visitors := c.visit(t, keys)
			slow := c.connect(t, "slow", withEnv(map[string]string{"START_DELAY": "3s"}))
			stream := c.follow(t, slow.BackendID)

			c.watch(t, users, 2*time.Second)
			fault.cut(t, primary, lines[0])
			c.watch(t, users, 5*time.Second)
			standby.Promote(t)
			// Past every deadline that there was before.
			c.watch(t, users, 35*time.Second)
			c.goesOn(t, users, visitors, keys)
			c.missedNothing(t, slow.BackendID, stream)
		})
	}
}

// onHosts is the URL with other hosts, of which one takes writes.
func onHosts(t *testing.T, database string, lines ...*cutter) string {
	t.Helper()
	u, err := url.Parse(database)
	require.NoError(t, err)
	u.Host = lines[0].address()
	for _, l := range lines[1:] {
		u.Host += "," + l.address()
	}
	q := u.Query()
	q.Set("target_session_attrs", "read-write")
	u.RawQuery = q.Encode()
	return u.String()
}

// goesOn requires that visitors were given what they asked for, that each key
// still has its one backend, and that all is well otherwise.
func (c *cluster) goesOn(t *testing.T, users []user, v *visitors, keys []string) {
	t.Helper()
	eventually(t, 20*time.Second, "the store answers", func() error { return c.api.Health(t.Context()) })
	time.Sleep(2 * time.Second) // visits that had to wait end
	one := v.leave(t)
	require.Len(t, one, len(keys))
	running := c.keysRunning(t)
	for key, id := range one {
		c.is(t, id, backend.Ready)
		require.Equal(t, 1, running[key], "backends that run for %s", key)
	}
	c.allIsWell(t, users)
}
