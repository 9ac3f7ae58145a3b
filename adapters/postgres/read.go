package postgres

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"plane/system/backend"
	"plane/system/placement"
	"plane/system/port"
	"plane/system/protocol"
)

// The ages by which ClusterState goes.
const (
	lately = placement.Lately // a node or controller that was heard from since may be there
	fresh  = 45 * time.Second // a drone that was not heard from since is not ready
)

// Health implements port.Store.
func (s *Store) Health(ctx context.Context) error {
	var one int
	return failed(ctx, "ask the database", s.pool.QueryRow(ctx, "select 1").Scan(&one))
}

// Statuses implements port.Store.
func (s *Store) Statuses(ctx context.Context, backendIDs []string) ([]backend.Status, error) {
	ids := make([]string, len(backendIDs))
	for i, id := range backendIDs {
		ids[i] = text(id)
	}
	var found []int16
	err := s.pool.QueryRow(ctx, "select plane.statuses($1::text[])", ids).Scan(&found)
	if err != nil {
		return nil, failed(ctx, "read statuses", err)
	}
	statuses := make([]backend.Status, len(found))
	for i, status := range found {
		statuses[i] = backend.Status(status)
	}
	return statuses, nil
}

// Backend implements port.Store.
func (s *Store) Backend(ctx context.Context, backendID string) (port.Backend, error) {
	page, err := s.backends(ctx, backendFilter{id: &backendID, limit: 1, live: true, ended: true})
	switch {
	case err != nil:
		return port.Backend{}, failed(ctx, "read a backend", err)
	case len(page) == 0:
		return port.Backend{}, unknownBackend(backendID)
	}
	return page[0], nil
}

// Backends implements port.Store.
func (s *Store) Backends(ctx context.Context, q port.BackendQuery) ([]port.Backend, error) {
	f := backendFilter{cluster: &q.Cluster, after: q.After, limit: max(q.Limit, 0), live: true, ended: !q.Live, namespace: q.Namespace}
	if len(q.Statuses) > 0 {
		for _, s := range q.Statuses {
			f.statuses = append(f.statuses, int16(s))
		}
		f.live = slices.ContainsFunc(q.Statuses, func(s backend.Status) bool { return s != backend.Terminated })
		f.ended = f.ended && slices.Contains(q.Statuses, backend.Terminated)
	}
	if q.Drone != "" {
		f.drone = &q.Drone
	}
	if q.Key != "" {
		f.key = &q.Key
	}
	page, err := s.backends(ctx, f)
	return page, failed(ctx, "list backends", err)
}

// backendFilter is the parameters of plane.backends.
type backendFilter struct {
	id, cluster           *string
	after                 string
	limit                 int
	live, ended           bool
	statuses              []int16
	drone, key, namespace *string
}

func (s *Store) backends(ctx context.Context, f backendFilter) ([]port.Backend, error) {
	rows, err := s.pool.Query(ctx, "select "+backendColumns+` from plane.backends($1::text, $2::text, $3::text, $4::integer, $5::boolean, $6::boolean, $7::smallint[], $8::text, $9::text, $10::text)`,
		optional(f.id), optional(f.cluster), text(f.after), min(f.limit, math.MaxInt32), f.live, f.ended, f.statuses, optional(f.drone), optional(f.key), optional(f.namespace))
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (port.Backend, error) { return scanBackend(row) })
}

// backendColumns are what scanBackend wants, of plane.backends.
const backendColumns = `id, namespace, name, tag, cluster, drone, made_at, controller, peer_url,
	status, at, address, last, termination, reason, exit_code, oom, message`

// scanBackend reads a backend, and more columns after it.
func scanBackend(row pgx.CollectableRow, more ...any) (b port.Backend, err error) {
	var last step
	err = row.Scan(append([]any{&b.ID, &b.Key.Namespace, &b.Key.Name, &b.Key.Tag, &b.Cluster, &b.Drone, &b.CreatedAt, &b.Controller, &b.PeerURL,
		&last.Status, &last.At, &last.Address, &last.Last, &last.Termination, &last.Reason, &last.ExitCode, &last.OOM, &last.Message}, more...)...)
	b.Key = protocol.Key{Namespace: plain(b.Key.Namespace), Name: plain(b.Key.Name), Tag: plain(b.Key.Tag)}
	b.State, b.StateTime = last.state(), last.At
	return b, err
}

// History implements port.Store.
func (s *Store) History(ctx context.Context, backendID string, after backend.Status) ([]port.HistoryEntry, error) {
	rows, err := s.pool.Query(ctx, "select status, at, address, last, termination, reason, exit_code, oom, message from plane.history($1::text, $2::smallint)", text(backendID), int16(after))
	if err != nil {
		return nil, failed(ctx, "read a history", err)
	}
	entries, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (port.HistoryEntry, error) {
		var e step
		err := row.Scan(&e.Status, &e.At, &e.Address, &e.Last, &e.Termination, &e.Reason, &e.ExitCode, &e.OOM, &e.Message)
		return port.HistoryEntry{State: e.state(), Time: e.At}, err
	})
	if code(err) == codeNotFound {
		return nil, unknownBackend(backendID)
	}
	return entries, failed(ctx, "read a history", err)
}

// ClusterState implements port.Store.
func (s *Store) ClusterState(ctx context.Context, cluster string) (protocol.ClusterState, error) {
	state := protocol.ClusterState{Drones: []protocol.DroneState{}, Proxies: []protocol.NodeState{}}
	rows, err := s.pool.Query(ctx, `
		select n.kind, n.name, n.version, n.git_hash, n.controller,
			extract(epoch from c.now - coalesce(o.seen, n.seen))::float8, extract(epoch from c.now - n.seen)::float8,
			n.connected and n.local_time is not null and c.now - n.seen <= plane.us($3::bigint), coalesce(l.draining, false), coalesce(l.backends, 0),
			n.max_backends, n.millicpus, n.memory, coalesce(l.millicpus, 0), coalesce(l.memory, 0)
		from (select plane.now() as now) c
		cross join plane.node n
		left join plane.promised l on l.drone = n.id
		left join plane.controller o on o.name = n.controller
		where n.cluster = $1::text and (c.now - n.seen <= plane.us($2::bigint) or n.connected and c.now - o.seen <= plane.us($2::bigint))
		order by n.name`, text(cluster), lately.Microseconds(), fresh.Microseconds())
	if err != nil {
		return state, failed(ctx, "read the state of a cluster", err)
	}
	var (
		kind, name             string
		node                   protocol.NodeState
		drone                  protocol.DroneState
		controllerAge, nodeAge float64
	)
	_, err = pgx.ForEachRow(rows, []any{&kind, &name, &node.PlaneVersion, &node.PlaneHash, &node.Controller,
		&controllerAge, &nodeAge, &drone.Ready, &drone.Draining, &drone.BackendCount,
		&drone.Capacity.MaxBackends, &drone.Capacity.MilliCPUs, &drone.Capacity.MemoryBytes, &drone.Promised.MilliCPUs, &drone.Promised.MemoryBytes}, func() error {
		node.ControllerHeartbeatAge = int64(max(controllerAge, 0))
		if port.NodeKind(kind) == port.ProxyNode {
			node.Name = protocol.NodeName{Proxy: name}
			state.Proxies = append(state.Proxies, node)
			return nil
		}
		node.Name = protocol.NodeName{Drone: name}
		drone.LastHeartbeatAge, drone.Node = int64(max(nodeAge, 0)), node
		state.Drones = append(state.Drones, drone)
		return nil
	})
	return state, failed(ctx, "read the state of a cluster", err)
}
