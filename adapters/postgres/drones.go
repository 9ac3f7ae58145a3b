package postgres

import (
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"plane/system/placement"
	"plane/system/port"
	"plane/system/recent"
)

// What is known of a pool's drones counts for viewAge, and is made anew from
// lookAgain on. Nobody looks where backends are made further than busyWithin apart.
const (
	viewAge    = 250 * time.Millisecond
	lookAgain  = viewAge / 2
	busyWithin = time.Second
	mostPools  = 1000
)

// drones is what is known of the drones of the pools where many backends are made:
// which are there, and what they were promised a moment ago, with what was placed
// from here since. To look at all drones costs the server as much as all else that
// a new backend needs. A choice that is made by this is a wish: the statement that
// makes the backend finds out whether the drone may have it, and where it may not,
// the server looks at all of them. So what is known may be old, or wrong after an
// unclear failure; backends are then spread a little less well.
type drones struct {
	mu    sync.Mutex
	pools *recent.Table[*view]
}

// pool is where a backend is wanted.
type pool struct {
	cluster, name string
	healthy       time.Duration // for how long a drone may have been silent
}

// view is what is known of a pool.
type view struct {
	wanted time.Time // when a backend was last wanted there
	asked  time.Time // when somebody was last sent to look
	seen   time.Time // when who has come back was sent; zero: nobody has
	drones []placement.Candidate
}

func newDrones() *drones {
	return &drones{pools: recent.New[*view](mostPools, time.Minute)}
}

func (p pool) key() string { return p.cluster + "\x00" + p.name + "\x00" + p.healthy.String() }

// choose returns the drone that a backend may go to, and counts it there; zero:
// the server has to choose. look is the pool that the caller is to look at in the
// same round trip, if any.
func (d *drones) choose(p *port.SpawnParams, seed uint64, now time.Time) (drone int64, look *look) {
	d.mu.Lock()
	defer d.mu.Unlock()
	at := pool{p.Cluster, p.Pool, p.Healthy}
	v := &view{}
	if kept, ok := d.pools.Get(at.key(), now); ok {
		v = kept.Value
	}
	busy := now.Sub(v.wanted) < busyWithin
	v.wanted = now
	d.pools.Put(at.key(), v, now)
	if busy && now.Sub(v.asked) >= lookAgain {
		v.asked = now
		look = d.lookAt(at, v)
	}
	if now.Sub(v.seen) >= viewAge {
		return 0, look
	}
	chosen, ok := placement.Choose(v.drones, p.Asks, p.BestOf, seed)
	if !ok {
		return 0, look
	}
	for i := range v.drones {
		if c := &v.drones[i]; c.Drone == chosen.Drone {
			c.Backends++
			c.Promised.MilliCPUs += p.Asks.MilliCPUs
			c.Promised.MemoryBytes += p.Asks.MemoryBytes
		}
	}
	return chosen.Drone, look
}

// forget is told that other drones are there than before.
func (d *drones) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pools = recent.New[*view](mostPools, time.Minute) // who is looking comes back to nobody
}

// look is the errand of who was sent to look at a pool.
type look struct {
	pool
	saw func(found []placement.Candidate)
}

func (d *drones) lookAt(at pool, v *view) *look {
	sent := v.asked
	return &look{at, func(found []placement.Candidate) {
		d.mu.Lock()
		defer d.mu.Unlock()
		v.drones, v.seen = found, sent
	}}
}

// queue has a batch look at which drones of the pool are connected and may take
// backends, and what they are promised.
func (l *look) queue(b *pgx.Batch) {
	b.Queue(`
		select d.id, l.backends, l.millicpus, l.memory, d.max_backends, d.millicpus, d.memory
		from (select plane.now() as now offset 0) c
		cross join plane.node d
		cross join lateral (
			select bool_or(l.draining) as draining, plane.total(l.backends) as backends, plane.total(l.millicpus) as millicpus, plane.total(l.memory) as memory
			from plane.load l where l.drone = d.id
		) l
		where d.cluster = $1::text and d.kind = 'drone' and d.pool = $2::text
			and d.connected and not l.draining and d.local_time is not null and d.seen >= c.now - plane.us($3::bigint)
		order by d.id`, text(l.cluster), text(l.name), l.healthy.Microseconds(),
	).Query(func(rows pgx.Rows) error {
		found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (c placement.Candidate, err error) {
			return c, row.Scan(&c.Drone, &c.Backends, &c.Promised.MilliCPUs, &c.Promised.MemoryBytes, &c.Has.MaxBackends, &c.Has.MilliCPUs, &c.Has.MemoryBytes)
		})
		if err == nil {
			l.saw(found)
		}
		return err
	})
}
