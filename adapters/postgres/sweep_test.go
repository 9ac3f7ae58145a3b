package postgres_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"plane/system/backend"
	"plane/system/port"
)

// idling makes ready backends that may be idle for so long; their drone renews.
func (d *database) idling(maxIdle time.Duration, ids ...string) {
	d.t.Helper()
	drone := d.drone("dr-1")
	for _, id := range ids {
		p := spawning(id, id)
		p.Spawn.MaxIdle, p.Spawn.Lease.Expiry = maxIdle, time.Hour
		_, err := d.Connect(d.t.Context(), p)
		require.NoError(d.t, err)
		_, err = d.RecordStates(d.t.Context(), []port.StateReport{{Drone: drone, BackendID: id, State: backend.State{Status: backend.Ready, Address: "10.0.0.1:1"}}})
		require.NoError(d.t, err)
	}
}

func (d *database) proxy(name string) port.NodeID {
	d.t.Helper()
	id, err := d.RegisterNode(d.t.Context(), port.NodeRegistration{Kind: port.ProxyNode, Cluster: "c", Name: name, Connection: name})
	require.NoError(d.t, err)
	return id
}

// uses is a proxy's complete list.
func (d *database) uses(proxy port.NodeID, ids ...string) {
	d.t.Helper()
	require.NoError(d.t, d.KeepAlive(d.t.Context(), port.ProxyUse{Proxy: proxy, Backends: ids, Complete: true, AsOf: d.tick()}))
}

// due is how many things a sweep finds to do.
func (d *database) due() int {
	d.t.Helper()
	return d.number("select count(*) from plane.due(null, 120e6::bigint, 90e6::bigint, 30e6::bigint, 30e6::bigint, 11e6::bigint, false, 100)")
}

// What a proxy uses all the time is not worth a look at all lists in each sweep.
func TestUseIsNotedOncePerIdleLimit(t *testing.T) {
	d := open(t)
	d.idling(20*time.Second, "b1", "b2")
	px := d.proxy("px-1")
	for range 5 {
		d.uses(px, "b1", "b2")
		d.advance(5 * time.Second)
	}
	d.uses(px, "b1", "b2")
	require.Equal(t, 2, d.due(), "by their rows they look idle")
	require.Zero(t, d.sweep())
	require.Zero(t, d.due(), "and now they do not")
	require.Equal(t, 2, d.number("select count(*) from plane.backend b, plane.word w where b.used = w.at"))
	d.advance(5 * time.Second)
	d.uses(px)
	d.advance(14 * time.Second)
	d.uses(px)
	require.Zero(t, d.sweep(), "the limit counts from the last use")
	d.advance(2 * time.Second)
	d.uses(px)
	require.Equal(t, 2, d.sweep())
}

// However many they are, no transaction is long, and the sweep goes on until all
// are noted.
func TestUsesAreNotedSomeAtATime(t *testing.T) {
	d := open(t)
	var ids []string
	for i := range 45 {
		ids = append(ids, fmt.Sprintf("b-%02d", i))
	}
	d.idling(20*time.Second, ids...)
	px := d.proxy("px-1")
	d.uses(px, ids...)
	d.advance(30 * time.Second)
	d.uses(px, ids...)
	var noted []int
	for more := true; more; {
		var n int
		var err error
		n, more, err = d.Sweep(t.Context(), port.SweepParams{
			Limit: 2, DroneLost: 120 * time.Second, ProxyGone: 90 * time.Second, HardAfter: 30 * time.Second, LeaseGrace: 30 * time.Second,
		})
		require.NoError(t, err)
		require.Zero(t, n)
		noted = append(noted, d.number("select count(*) from plane.backend b, plane.word w where b.used = w.at"))
	}
	require.Equal(t, []int{20, 40, 45}, noted)
}

// Proxies make up a name at each start: what the one before has said would stay.
func TestNothingStaysOfProxiesThatAreGone(t *testing.T) {
	d := open(t)
	var ids []string
	for i := range 150 {
		ids = append(ids, fmt.Sprintf("b-%03d", i))
	}
	d.idling(time.Hour, ids...)
	for i := range 3 {
		px := d.proxy(fmt.Sprint("px-", i))
		d.uses(px, ids...)
		require.NoError(t, d.KeepAlive(t.Context(), port.ProxyUse{Proxy: px, Backends: ids[:1]}))
	}
	there := d.proxy("px-there")
	last := d.number("select extract(epoch from max(at))::integer from plane.word")
	d.advance(89 * time.Second)
	d.sweep()
	require.Equal(t, 3, d.number("select count(*) from plane.word"), "they may still hold connections")
	d.uses(there, "b-000")
	d.advance(2 * time.Second)
	for range 6 { // a hundred backends at a time
		d.sweep()
	}
	require.Equal(t, 1, d.number("select count(*) from plane.word"))
	require.Zero(t, d.number("select count(*) from plane.addition"))
	require.Equal(t, len(ids)-1, d.number(fmt.Sprintf("select count(*) from plane.backend where extract(epoch from used)::integer - %d between 0 and 1", last)), "all but the one that is in use")
	require.Zero(t, d.due())
}

// turn is what a sweep takes that goes by the looks of others.
const turn = "select plane.take_turn(4e6::bigint, false)"

func (d *database) takes(sql string) (taken bool) {
	d.t.Helper()
	require.NoError(d.t, d.conn.QueryRow(d.t.Context(), sql).Scan(&taken))
	return taken
}

// Whoever need not look neither waits nor writes.
func TestATurnIsTakenByOneAtATimeAndSparingly(t *testing.T) {
	d := open(t)
	version := func() int { return d.number("select xmin::text::integer from plane.turn") }
	before := version()
	release := d.hold("select from plane.turn for update")
	require.False(t, d.takes(turn), "another is at it, and is not waited for")
	release()
	require.Equal(t, before, version())
	require.True(t, d.takes("select plane.take_turn(4e6::bigint, true)"), "a look at less")
	require.Equal(t, before, version(), "is not noted")
	require.True(t, d.takes(turn))
	taken := version()
	require.NotEqual(t, before, taken)
	require.False(t, d.takes(turn))
	require.Equal(t, taken, version())
	d.advance(4 * time.Second)
	require.True(t, d.takes(turn))
}

// G4: what must not be, a time that is far ahead, stops no sweep.
func TestATurnThatIsAheadCountsForNothing(t *testing.T) {
	d := open(t)
	d.exec("update plane.turn set began = plane.now() + interval '1 hour'")
	require.True(t, d.takes(turn))
	require.False(t, d.takes(turn))
}

// A look that finds nothing waits for no disk and no standby: what it writes may
// be lost.
func TestATurnWaitsForNoDisk(t *testing.T) {
	for _, c := range []struct {
		every int
		want  string
	}{{4_000_000, "off"}, {0, "on"}} {
		d := open(t)
		tx, err := d.conn.Begin(t.Context())
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), "select plane.due(null, 120e6::bigint, 90e6::bigint, 30e6::bigint, 30e6::bigint, 11e6::bigint, false, 100, $1)", c.every)
		require.NoError(t, err)
		var commit string
		require.NoError(t, tx.QueryRow(t.Context(), "show synchronous_commit").Scan(&commit))
		require.Equal(t, c.want, commit)
		require.NoError(t, tx.Rollback(t.Context()))
	}
}

// expiring makes backends whose leases end in a minute, with nobody to renew them.
func (d *database) expiring(ids ...string) {
	d.t.Helper()
	d.drone("dr-1")
	for _, id := range ids {
		_, err := d.Connect(d.t.Context(), spawning(id, id))
		require.NoError(d.t, err)
	}
	d.advance(61 * time.Second)
}

// G4: what another transaction is at just now holds up none of the others.
func TestASweepGoesOnPastWhatIsLocked(t *testing.T) {
	d := open(t)
	d.expiring("b1", "b2", "b3", "b4", "b5", "b6", "b7")
	release := d.hold("select from plane.backend where id = 'b1' for update")
	swept := 0
	for more := true; more; {
		var n int
		var err error
		n, more, err = d.Sweep(t.Context(), port.SweepParams{
			Limit: 2, DroneLost: 120 * time.Second, ProxyGone: 90 * time.Second, HardAfter: 30 * time.Second, LeaseGrace: 30 * time.Second,
		})
		require.NoError(t, err)
		swept += n
	}
	require.Equal(t, 6, swept)
	release()
	require.Equal(t, 1, d.sweep())
}

// G4: what becomes due between a sweep's first look and its second finds no name
// for its action, and takes nothing of the rest back.
func TestASweepWithoutNamesForActions(t *testing.T) {
	for name, actions := range map[string]string{"none": "null", "an empty list": "'{}'"} {
		t.Run(name, func(t *testing.T) {
			d := open(t)
			d.expiring("b1", "b2")
			d.exec("update plane.backend set lifetime = interval '1 second', lease_end = plane.now() + interval '1 minute' where id = 'b1'")
			require.Equal(t, 1, d.number("select count(*) from plane.sweep('{b1,b2}', "+actions+", 120e6::bigint, 90e6::bigint, 30e6::bigint, 30e6::bigint, 11e6::bigint, false)"))
			require.Equal(t, 1, d.number("select count(*) from plane.backend where id = 'b1' and soft is null"))
			require.Equal(t, 1, d.sweep())
		})
	}
}

// One that comes back while its list is being forgotten says anew what it uses.
func TestAProxyThatComesBackIsNotForgotten(t *testing.T) {
	d := open(t)
	d.idling(time.Hour, "b1")
	px := d.proxy("px-1")
	d.uses(px, "b1")
	d.advance(91 * time.Second)
	require.Equal(t, 1, d.due())
	release := d.hold(fmt.Sprintf("select plane.use(%d, '{b1}', true, plane.now())", px))
	d.sweep() // does not wait for it
	release()
	d.sweep()
	require.Equal(t, 1, d.number("select count(*) from plane.word where backends = '{b1}'"))
}

// G4: a name that is in the history already hinders neither its own end nor the
// others that end with it.
func TestASecondBackendOfANameEnds(t *testing.T) {
	d := open(t)
	d.expiring("b1", "b2", "b3")
	d.exec("insert into plane.ended (id, namespace, name, tag, cluster, drone, made_at, ended, history) select id, '', 'before', '', cluster, drone, made_at, plane.now(), history from plane.backend where id = 'b2'")
	require.Equal(t, 3, d.sweep())
	b, err := d.Backend(t.Context(), "b2")
	require.NoError(t, err)
	require.Equal(t, "b2", b.Key.Name)
	require.Equal(t, backend.Terminated, b.State.Status)
}

// A drain takes its locks in the order in which all do, whatever plan the server
// has for it: one that waits has those before, and none behind.
func TestADrainLocksInOrder(t *testing.T) {
	d := open(t)
	drone := d.drone("dr-1")
	d.exec("set enable_indexscan to off; set enable_indexonlyscan to off")
	d.exec("delete from plane.load where stripe = 0")
	d.exec("insert into plane.load (drone, stripe) select $1, 0 from generate_series(1, 1)", int64(drone))
	release := d.hold("select from plane.load where stripe = 4 for update")
	drained := make(chan error, 1)
	conn, err := pgx.Connect(t.Context(), d.url)
	require.NoError(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	go func() {
		_, err := conn.Exec(t.Context(), "set enable_indexscan to off; set enable_indexonlyscan to off; select plane.drain('c', 'dr-1')")
		drained <- err
	}()
	d.blocked()
	var free []int16
	require.NoError(t, d.conn.QueryRow(t.Context(), "select array_agg(stripe order by stripe) from (select stripe from plane.load for update skip locked) l").Scan(&free))
	release()
	require.NoError(t, <-drained)
	require.Equal(t, []int16{5, 6, 7}, free)
}

// Expired tokens are looked for in a part of the table at a time, from anywhere
// on; all are found in the end, and no others.
func TestAllExpiredTokensAreFoundPartByPart(t *testing.T) {
	const all, ofAPage = 6000, 3 // so the table has 2,000 pages
	d := open(t)
	d.exec("alter table plane.token alter column secret set storage plain") // neither pressed nor put elsewhere
	d.exec(`insert into plane.token (token, backend, seq, secret, expires)
		select sha256(int8send(n)), 'b', n, repeat(md5(n::text), 75), plane.now() + case when n % 2 = 0 then interval '1 hour' else interval '-1 hour' end
		from generate_series(1, ` + fmt.Sprint(all) + `) n`)
	require.Greater(t, d.number("select pg_relation_size('plane.token') / 8192"), all/ofAPage-1, "or it is looked at in one go")
	expired := func() int { return d.number("select count(*) from plane.token where expires < plane.now()") }
	deleted, calls := 0, 0
	for ; expired() > 0; calls++ {
		require.Less(t, calls, 20)
		n, err := d.Cleanup(t.Context(), 0, 700)
		require.NoError(t, err)
		require.LessOrEqual(t, n, 700)
		deleted += n
	}
	require.Equal(t, all/2, deleted)
	require.Greater(t, calls, 2)
	require.Equal(t, all/2, d.number("select count(*) from plane.token"))
	n, err := d.Cleanup(t.Context(), 0, 700)
	require.NoError(t, err)
	require.Zero(t, n)
}
