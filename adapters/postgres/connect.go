package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5"

	"plane/system/backend"
	"plane/system/placement"
	"plane/system/port"
)

// errFaster: others took the key, or lost it, each time that we looked.
var errFaster = errors.New("others were faster, too often; try again")

// maxKey is how many bytes a key's namespace and name may have: more do not fit
// in an entry of an index.
const maxKey = 2400

// again is the outcome of a connect that others were in the way of.
const again = "again"

// connectAnswer is a row of plane.connect.
type connectAnswer struct {
	item        int32
	outcome     string
	backend     *string
	status      *int16
	cluster     *string
	subdomain   *string
	staticToken *string
	drone       *int64
	droneName   *string
}

// Connect implements port.Store.
func (s *Store) Connect(ctx context.Context, p port.ConnectParams) (port.Connected, error) {
	if n := len(p.Key.Namespace) + len(p.Key.Name); n > maxKey {
		return port.Connected{}, fmt.Errorf("connect: the key's namespace and name have %d bytes, of %d that they may have", n, maxKey)
	}
	if c, ok, err := s.join(ctx, p); ok || err != nil {
		return c, err
	}
	var a connectAnswer
	for n := range attempts {
		ask := s.connects.do
		if n > 1 {
			// Of those that want one key, a batch serves the first, which is no
			// help to the others while that one is refused.
			ask = s.connects.attempt
		}
		answers, err := ask(ctx, []port.ConnectParams{p})
		if err != nil {
			return port.Connected{}, failed(ctx, "connect", err)
		}
		if a = answers[0]; a.outcome != again {
			break
		}
	}
	switch a.outcome {
	case "ok":
		s.remember(p, *a.staticToken == "")
		return a.connected(p), nil
	case "unheld":
		return port.Connected{}, fmt.Errorf("key %q: %w", p.Key.Name, port.ErrKeyUnheld)
	case "held":
		return port.Connected{BackendID: *a.backend}, fmt.Errorf("key %q: %w", p.Key.Name, port.ErrKeyHeld)
	case "unhealthy":
		return port.Connected{BackendID: *a.backend}, fmt.Errorf("key %q, backend %s: %w", p.Key.Name, *a.backend, port.ErrKeyUnhealthy)
	case "static_user":
		return port.Connected{}, fmt.Errorf("key %q: %w", p.Key.Name, port.ErrStaticUser)
	case "exists":
		return port.Connected{}, fmt.Errorf("backend %q: %w", p.Spawn.BackendID, port.ErrBackendExists)
	case "no_drone":
		return port.Connected{}, s.noDrone(ctx, p.Spawn)
	}
	return port.Connected{}, fmt.Errorf("connect: key %q: %w", p.Key.Name, errFaster)
}

// spawned reports whether the backend is the one that was wished for.
func (a connectAnswer) spawned(p port.ConnectParams) bool {
	return p.Spawn != nil && p.Spawn.BackendID == *a.backend
}

func (a connectAnswer) connected(p port.ConnectParams) port.Connected {
	c := port.Connected{
		BackendID: *a.backend, Spawned: a.spawned(p),
		Status: backend.Status(*a.status), Cluster: *a.cluster, Subdomain: *a.subdomain, StaticToken: *a.staticToken,
	}
	if c.Spawned {
		c.Drone, c.DroneID = *a.droneName, port.NodeID(*a.drone)
	}
	return c
}

// noDrone asks what was known of the drones that did not take a backend, to say
// what was missing.
func (s *Store) noDrone(ctx context.Context, p *port.SpawnParams) error {
	rows, err := s.pool.Query(ctx, `
		select n.name, l.draining, n.local_time is null, extract(epoch from c.now - n.seen)::float8,
			l.backends, n.max_backends, n.millicpus, n.memory, l.millicpus, l.memory
		from (select plane.now() as now) c
		cross join plane.node n
		join plane.promised l on l.drone = n.id
		left join plane.controller o on o.name = n.controller
		where n.cluster = $1::text and n.kind = 'drone' and n.pool = $2::text
			and (c.now - n.seen <= plane.us($3::bigint) or n.connected and c.now - o.seen <= plane.us($3::bigint))`,
		text(p.Cluster), text(p.Pool), lately.Microseconds())
	if err != nil {
		return fmt.Errorf("%w (and the database did not say why: %w)", port.ErrNoDrone, failed(ctx, "list drones", err))
	}
	drones, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (d placement.Refused, err error) {
		var silent float64
		err = row.Scan(&d.Name, &d.Draining, &d.Unheard, &silent, &d.Backends,
			&d.Has.MaxBackends, &d.Has.MilliCPUs, &d.Has.MemoryBytes, &d.Promised.MilliCPUs, &d.Promised.MemoryBytes)
		d.Silent = seconds(silent)
		return d, err
	})
	if err != nil {
		return fmt.Errorf("%w (and the database did not say why: %w)", port.ErrNoDrone, failed(ctx, "list drones", err))
	}
	return port.NoDrone(p, drones)
}

// connectColumns are the parameters of plane.connect: an element for each item,
// and one for each way to spawn that is among them, which are few.
type connectColumns struct {
	namespace, name, tag, secret []string
	token                        [][]byte
	username, data               []*string
	life                         []int64
	refuseStatic                 []bool
	backend                      []*string
	action, static, subdomain    []string
	seed                         []int64
	spawn                        []int32 // which of those below, from 1

	spawns []spawn
}

// spawn is what a new backend would be, but for its names.
type spawn struct {
	cluster, pool, executable                             string
	lifetime, maxIdle, healthy, renew, soft, hard, expiry int64 // milliseconds: renew, soft, hard; else microseconds
	bestOf                                                int32
	milliCPUs, memory                                     int64
}

const connectSQL = `select item, outcome, backend, status, cluster, subdomain, static_token, drone, drone_name from plane.connect(
	$1::text[], $2::text[], $3::text[], $4::bytea[], $5::text[], $6::text[], $7::text[], $8::bigint[], $9::boolean[],
	$10::text[], $11::text[], $12::text[], $13::text[], $14::bigint[], $15::integer[],
	$16::text[], $17::text[], $18::text[], $19::bigint[], $20::bigint[], $21::integer[], $22::bigint[],
	$23::bigint[], $24::bigint[], $25::bigint[], $26::bigint[], $27::bigint[], $28::bigint[], $29::boolean)`

// connectOneSQL and connectLateSQL do one connect. They have the same parameters,
// and answer with one array of what is in a row of plane.connect. The first joins
// the holder of the key by itself, which costs a third less than in a function.
const (
	connectOneSQL = `
	with held as materialized (
		select b.id, b.status, b.cluster, b.subdomain, c.now,
			b.lease_end > c.now and b.tag = $3::text and b.status < 60 and b.static_token = '' and b.id is distinct from $10::text as good
		from (select plane.shows(k.last, k.behind) as now from plane.clock k where k.one) c
		cross join plane.backend b
		where b.namespace = $1::text and b.name = $2::text and b.holds
	), given as (
		insert into plane.token (token, backend, seq, secret, username, data, expires)
		select $4::bytea, h.id, plane.number(h.id), $5::text, $6::text, $7::json, h.now + plane.us($8::bigint)
		from held h where h.good
	)
	select coalesce(
		(select array['ok', h.id, h.status::text, h.cluster, h.subdomain, '', null, null] from held h where h.good),
		plane.connect_new` + oneConnect + `, exists (select from held)))`
	connectLateSQL = `select plane.connect_late` + oneConnect + `)`
	oneConnect     = `(
	$1::text, $2::text, $3::text, $4::bytea, $5::text, $6::text, $7::text, $8::bigint, $9::boolean,
	$10::text, $11::text, $12::text, $13::text, $14::bigint,
	$15::text, $16::text, $17::text, $18::bigint, $19::bigint, $20::integer, $21::bigint,
	$22::bigint, $23::bigint, $24::bigint, $25::bigint, $26::bigint, $27::bigint`
)

// connectAll does many connects in one transaction, and has the drones told that
// have something to do.
func (s *Store) connectAll(ctx context.Context, items []port.ConnectParams) ([]connectAnswer, error) {
	c := newConnectColumns(len(items))
	for _, p := range items {
		c.add(p)
	}
	if len(items) > 1 {
		answers, err := s.askConnect(ctx, items, connectSQL, c.many(false))
		if code(err) == codeCareful {
			answers, err = s.askConnect(ctx, items, connectSQL, c.many(true))
		}
		return answers, err
	}
	a, err := s.askConnectOne(ctx, connectOneSQL, c.one())
	if code(err) == codeUnique {
		a, err = s.askConnectOne(ctx, connectLateSQL, c.one())
	}
	if code(err) == codeUnique {
		a, err = connectAnswer{outcome: again}, nil
	}
	if err != nil {
		return nil, err
	}
	s.tellDrones(items, []connectAnswer{a})
	return []connectAnswer{a}, nil
}

// askConnectOne asks for one connect and reads the array that is the answer.
func (s *Store) askConnectOne(ctx context.Context, sql string, parameters []any) (a connectAnswer, err error) {
	var fields []*string
	if err := s.pool.QueryRow(ctx, sql, parameters...).Scan(&fields); err != nil {
		return a, err
	}
	if len(fields) != 8 || fields[0] == nil {
		return a, fmt.Errorf("the database answered %d fields to a connect", len(fields))
	}
	a = connectAnswer{outcome: *fields[0], backend: fields[1], cluster: fields[3], subdomain: fields[4], staticToken: fields[5], droneName: fields[7]}
	if a.status, err = number[int16](fields[2]); err == nil {
		a.drone, err = number[int64](fields[6])
	}
	return a, err
}

// number reads one that came as text, if it came.
func number[N int16 | int64](text *string) (*N, error) {
	if text == nil {
		return nil, nil //nolint:nilnil // null is a value here
	}
	i, err := strconv.ParseInt(*text, 10, 64)
	n := N(i)
	return &n, err
}

func (s *Store) askConnect(ctx context.Context, items []port.ConnectParams, sql string, columns []any) ([]connectAnswer, error) {
	rows, err := s.pool.Query(ctx, sql, columns...)
	if err != nil {
		return nil, err
	}
	answers := make([]connectAnswer, len(items))
	var a connectAnswer
	_, err = pgx.ForEachRow(rows, []any{&a.item, &a.outcome, &a.backend, &a.status, &a.cluster, &a.subdomain, &a.staticToken, &a.drone, &a.droneName}, func() error {
		answers[a.item-1] = a
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.tellDrones(items, answers)
	return answers, nil
}

// tellDrones announces the new backends to those that are to start them.
func (s *Store) tellDrones(items []port.ConnectParams, answers []connectAnswer) {
	var hints []port.Hint
	for i, a := range answers {
		if a.outcome == "ok" && a.spawned(items[i]) {
			hints = append(hints, actionHint(*a.drone))
		}
	}
	s.announcer.announce(hints...)
}

func newConnectColumns(n int) *connectColumns {
	return &connectColumns{
		namespace: make([]string, 0, n), name: make([]string, 0, n), tag: make([]string, 0, n), token: make([][]byte, 0, n), secret: make([]string, 0, n),
		username: make([]*string, 0, n), data: make([]*string, 0, n), life: make([]int64, 0, n), refuseStatic: make([]bool, 0, n),
		backend: make([]*string, 0, n), action: make([]string, 0, n), static: make([]string, 0, n), subdomain: make([]string, 0, n),
		seed: make([]int64, 0, n), spawn: make([]int32, 0, n),
	}
}

// many are the parameters of plane.connect, one those of its variants for one.
func (c *connectColumns) many(careful bool) []any {
	return []any{
		c.namespace, c.name, c.tag, c.token, c.secret, c.username, c.data, c.life, c.refuseStatic,
		c.backend, c.action, c.static, c.subdomain, c.seed, c.spawn,
		column(c.spawns, func(s spawn) string { return s.cluster }),
		column(c.spawns, func(s spawn) string { return s.pool }),
		column(c.spawns, spawn.run),
		column(c.spawns, func(s spawn) int64 { return s.lifetime }),
		column(c.spawns, func(s spawn) int64 { return s.maxIdle }),
		column(c.spawns, func(s spawn) int32 { return s.bestOf }),
		column(c.spawns, func(s spawn) int64 { return s.healthy }),
		column(c.spawns, func(s spawn) int64 { return s.renew }),
		column(c.spawns, func(s spawn) int64 { return s.soft }),
		column(c.spawns, func(s spawn) int64 { return s.hard }),
		column(c.spawns, func(s spawn) int64 { return s.expiry }),
		column(c.spawns, func(s spawn) int64 { return s.milliCPUs }),
		column(c.spawns, func(s spawn) int64 { return s.memory }),
		careful,
	}
}

func (c *connectColumns) one() []any {
	s := c.spawns[0]
	return []any{
		c.namespace[0], c.name[0], c.tag[0], c.token[0], c.secret[0], c.username[0], c.data[0], c.life[0], c.refuseStatic[0],
		c.backend[0], c.action[0], c.static[0], c.subdomain[0], c.seed[0],
		s.cluster, s.pool, s.run(), s.lifetime, s.maxIdle, s.bestOf, s.healthy, s.renew, s.soft, s.hard, s.expiry, s.milliCPUs, s.memory,
	}
}

// column is one field of many.
func column[S, T any](all []S, field func(S) T) []T {
	out := make([]T, len(all))
	for i, s := range all {
		out[i] = field(s)
	}
	return out
}

// run is what to run, as a parameter; nil: nothing.
func (s spawn) run() *string {
	if s.executable == "" {
		return nil
	}
	return &s.executable
}

func (c *connectColumns) add(p port.ConnectParams) {
	c.namespace = append(c.namespace, text(p.Key.Namespace))
	c.name = append(c.name, text(p.Key.Name))
	c.tag = append(c.tag, text(p.Key.Tag))
	c.token = append(c.token, digest(p.Token))
	c.secret = append(c.secret, text(p.SecretToken))
	c.username = append(c.username, optional(p.User))
	c.data = append(c.data, raw(p.UserData))
	c.life = append(c.life, p.TokenLife.Microseconds())
	c.refuseStatic = append(c.refuseStatic, p.RefuseStatic)
	c.seed = append(c.seed, int64(p.PlacementSeed))
	s, backendID := p.Spawn, (*string)(nil)
	if s == nil {
		s = &port.SpawnParams{}
	} else {
		backendID = &s.BackendID
	}
	c.backend = append(c.backend, backendID)
	c.action = append(c.action, s.ActionID)
	c.static = append(c.static, s.StaticToken)
	c.subdomain = append(c.subdomain, s.Subdomain)
	c.spawn = append(c.spawn, c.like(spawnOf(s)))
}

func spawnOf(s *port.SpawnParams) spawn {
	return spawn{
		cluster: s.Cluster, pool: s.Pool, executable: string(s.Executable),
		lifetime: s.Lifetime.Microseconds(), maxIdle: s.MaxIdle.Microseconds(), bestOf: int32(s.BestOf), healthy: s.Healthy.Microseconds(),
		renew: s.Lease.Renew.Milliseconds(), soft: s.Lease.Soft.Milliseconds(), hard: s.Lease.Hard.Milliseconds(), expiry: s.Lease.Expiry.Microseconds(),
		milliCPUs: s.Asks.MilliCPUs, memory: s.Asks.MemoryBytes,
	}
}

// like is the place of a spawn among those that differ.
func (c *connectColumns) like(s spawn) int32 {
	i := slices.Index(c.spawns, s)
	if i < 0 {
		i = len(c.spawns)
		c.spawns = append(c.spawns, s)
	}
	return int32(i + 1)
}
