package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

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

// connectAll does many connects, and has the drones told that have something to do.
func (s *Store) connectAll(ctx context.Context, items []port.ConnectParams) ([]connectAnswer, error) {
	if len(items) > 1 {
		return s.connectMany(ctx, items)
	}
	parameters := connectParameters(items[0])
	drones, look := s.choose(items)
	a, err := s.askConnectOne(ctx, look, connectOneSQL, append(slices.Clip(parameters), drones[0]))
	if code(err) == codeUnique || code(err) == codeCareful {
		a, err = s.askConnectOne(ctx, nil, connectLateSQL, parameters)
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

// connectMany does what is common in one statement, and has plane.connect look
// closer at what is left. In order of their keys: no two of these wait for each
// other, be it for who makes backends for the same keys or who revokes tokens.
func (s *Store) connectMany(ctx context.Context, items []port.ConnectParams) ([]connectAnswer, error) {
	places := make([]int, len(items))
	for i := range places {
		places[i] = i
	}
	slices.SortStableFunc(places, func(i, j int) int { return byKey(items[i], items[j]) })
	sorted := make([]port.ConnectParams, len(items))
	for i, place := range places {
		sorted[i] = items[place]
	}
	done, err := s.connectSorted(ctx, sorted)
	if err != nil {
		return nil, err
	}
	answers := make([]connectAnswer, len(items))
	for i, place := range places {
		answers[place] = done[i]
	}
	return answers, nil
}

func (s *Store) connectSorted(ctx context.Context, items []port.ConnectParams) ([]connectAnswer, error) {
	drones, look := s.choose(items)
	answers, err := s.askConnect(ctx, look, items, connectManySQL, connectColumnsOf(items).common(drones))
	if code(err) == codeUnique { // nothing is done, since something is there already
		answers, err = make([]connectAnswer, len(items)), nil
	}
	if err != nil {
		return nil, err
	}
	var left []port.ConnectParams
	var places []int
	for i, a := range answers {
		if a.outcome == "" {
			left, places = append(left, items[i]), append(places, i)
		}
	}
	if len(left) == 0 {
		return answers, nil
	}
	columns := connectColumnsOf(left).many()
	more, err := s.askConnect(ctx, nil, left, connectSQL, append(columns, false))
	if code(err) == codeCareful {
		more, err = s.askConnect(ctx, nil, left, connectSQL, append(columns, true))
	}
	if err != nil && len(left) == len(items) {
		return nil, err
	}
	for i, place := range places {
		if answers[place].outcome = again; err == nil { // else they ask once more, and are told; the others are done
			answers[place] = more[i]
		}
	}
	return answers, nil
}

// choose returns, for each item, the drone that a new backend may go to, if that
// is known here; nil: the server has to choose, or there is nothing that it would
// be for. Of those that want one key, or one name, only the first has a chance.
// look is what is to be looked at in the same round trip, if anything.
func (s *Store) choose(items []port.ConnectParams) (chosen []*int64, look *look) {
	chosen = make([]*int64, len(items))
	now, taken := time.Now(), make(map[[2]string]bool, 2*len(items))
	for i, p := range items {
		if p.Spawn == nil || p.Spawn.StaticToken != "" {
			continue
		}
		key, id := [2]string{"key", heldName(p)}, [2]string{"backend", p.Spawn.BackendID}
		if taken[key] || taken[id] {
			continue
		}
		taken[key], taken[id] = true, true
		drone, wanted := s.drones.choose(p.Spawn, p.PlacementSeed, now)
		if drone != 0 {
			chosen[i] = &drone
		}
		if wanted != nil {
			look = wanted // of several pools the last; the others have their turn later
		}
	}
	return chosen, look
}

// ask has the server do something and, where wanted, look at a pool's drones in
// the same round trip.
func (s *Store) ask(ctx context.Context, look *look, sql string, parameters []any, read func(rows pgx.Rows) error) error {
	if look == nil {
		rows, err := s.pool.Query(ctx, sql, parameters...)
		if err != nil {
			return err
		}
		return read(rows)
	}
	b := &pgx.Batch{}
	b.Queue(sql, parameters...).Query(read)
	look.queue(b)
	return s.pool.SendBatch(ctx, b).Close()
}

// askConnectOne asks for one connect and reads the array that is the answer.
func (s *Store) askConnectOne(ctx context.Context, look *look, sql string, parameters []any) (a connectAnswer, err error) {
	var fields []*string
	err = s.ask(ctx, look, sql, parameters, func(rows pgx.Rows) error {
		fields, err = pgx.CollectExactlyOneRow(rows, pgx.RowTo[[]*string])
		return err
	})
	if err != nil {
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

func (s *Store) askConnect(ctx context.Context, look *look, items []port.ConnectParams, sql string, columns []any) ([]connectAnswer, error) {
	answers := make([]connectAnswer, len(items))
	err := s.ask(ctx, look, sql, columns, func(rows pgx.Rows) error {
		var a connectAnswer
		_, err := pgx.ForEachRow(rows, []any{&a.item, &a.outcome, &a.backend, &a.status, &a.cluster, &a.subdomain, &a.staticToken, &a.drone, &a.droneName}, func() error {
			answers[a.item-1] = a
			return nil
		})
		return err
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
