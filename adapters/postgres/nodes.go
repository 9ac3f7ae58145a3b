package postgres

import (
	"context"
	"fmt"

	"plane/system/port"
)

// stuck: a connection without a heartbeat for longer gives way to another one of
// the same drone that has them.
const stuck = 3 * port.HeartbeatEvery

// RegisterNode implements port.Store.
func (s *Store) RegisterNode(ctx context.Context, n port.NodeRegistration) (port.NodeID, error) {
	var id int64
	err := insist(func() error {
		return s.pool.QueryRow(ctx, `select plane.register($1::text, $2::text, $3::text, $4::text, $5::text, $6::text, $7::text, $8::text,
			$9::bigint, $10::bigint, $11::bigint)`,
			string(n.Kind), text(n.Cluster), text(n.Name), text(n.Pool), text(n.Controller), text(n.Connection), text(n.Version.Version), text(n.Version.GitHash),
			n.Capacity.MaxBackends, n.Capacity.MilliCPUs, n.Capacity.MemoryBytes).Scan(&id)
	})
	s.drones.forget()
	return port.NodeID(id), failed(ctx, "register "+n.Name, err)
}

// DisconnectNode implements port.Store.
func (s *Store) DisconnectNode(ctx context.Context, node port.NodeID, connection string) error {
	_, err := s.pool.Exec(ctx, "update plane.node set connected = false where id = $1::bigint and connection = $2::text", int64(node), text(connection))
	s.drones.forget()
	return failed(ctx, "disconnect a node", err)
}

// Heartbeats implements port.Store.
func (s *Store) Heartbeats(ctx context.Context, beats []port.DroneHeartbeat) error {
	_, err := s.beats.do(ctx, beats)
	return failed(ctx, "note heartbeats", err)
}

func (s *Store) beatAll(ctx context.Context, beats []port.DroneHeartbeat) ([]struct{}, error) {
	drones, connections, local := make([]int64, len(beats)), make([]string, len(beats)), make([]int64, len(beats))
	for i, b := range beats {
		drones[i], connections[i], local[i] = int64(b.Drone), text(b.Connection), b.LocalTime.UnixMilli()
	}
	_, err := s.pool.Exec(ctx, "select plane.beat($1::bigint[], $2::text[], $3::bigint[], $4::bigint)", drones, connections, local, stuck.Microseconds())
	return make([]struct{}, len(beats)), err
}

// ControllerHeartbeat implements port.Store.
func (s *Store) ControllerHeartbeat(ctx context.Context, c port.ControllerInfo) error {
	_, err := s.pool.Exec(ctx, `insert into plane.controller (name, version, git_hash, peer_url, seen)
		values ($1::text, $2::text, $3::text, $4::text, plane.now())
		on conflict (name) do update set version = excluded.version, git_hash = excluded.git_hash, peer_url = excluded.peer_url, seen = excluded.seen`,
		text(c.Name), text(c.Version.Version), text(c.Version.GitHash), text(c.PeerURL))
	return failed(ctx, "note a controller's heartbeat", err)
}

// Drain implements port.Store.
func (s *Store) Drain(ctx context.Context, cluster, drone string) (bool, error) {
	var updated *bool
	err := insist(func() error {
		return s.pool.QueryRow(ctx, "select plane.drain($1::text, $2::text)", text(cluster), text(drone)).Scan(&updated)
	})
	s.drones.forget()
	if err != nil {
		return false, failed(ctx, "drain", err)
	}
	if updated == nil {
		return false, fmt.Errorf("drone %q in cluster %q: %w", drone, cluster, port.ErrNotFound)
	}
	return *updated, nil
}
