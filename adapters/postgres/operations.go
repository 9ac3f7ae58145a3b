package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"plane/system/backend"
	"plane/system/port"
)

var _ port.Operations = (*Store)(nil)

// Nodes implements port.Operations.
func (s *Store) Nodes(ctx context.Context) ([]port.Node, error) {
	rows, err := s.pool.Query(ctx, `
		select n.id, n.kind, n.cluster, n.name, n.pool, n.version, n.git_hash, n.controller, n.connected,
			extract(epoch from c.now - n.seen)::float8, coalesce(l.draining, false), coalesce(l.backends, 0),
			n.max_backends, n.millicpus, n.memory, coalesce(l.millicpus, 0), coalesce(l.memory, 0)
		from (select plane.now() as now) c
		cross join plane.node n
		left join plane.promised l on l.drone = n.id
		order by n.cluster, n.kind, n.name`)
	if err != nil {
		return nil, failed(ctx, "list nodes", err)
	}
	nodes, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (n port.Node, err error) {
		var silent float64
		err = row.Scan(&n.ID, &n.Kind, &n.Cluster, &n.Name, &n.Pool, &n.Version.Version, &n.Version.GitHash, &n.Controller, &n.Connected,
			&silent, &n.Draining, &n.Backends,
			&n.Capacity.MaxBackends, &n.Capacity.MilliCPUs, &n.Capacity.MemoryBytes, &n.Promised.MilliCPUs, &n.Promised.MemoryBytes)
		n.Silent = seconds(silent)
		return n, err
	})
	return nodes, failed(ctx, "list nodes", err)
}

// seconds is an age that the database gave; none is negative.
func seconds(s float64) time.Duration { return time.Duration(max(s, 0) * float64(time.Second)) }

// TerminationCandidates implements port.Operations.
func (s *Store) TerminationCandidates(ctx context.Context, p port.SweepParams, limit int) ([]port.TerminationCandidate, error) {
	rows, err := s.pool.Query(ctx, `select b.*, c.why, c.kind, c.silent
		from plane.candidates($1::bigint, $2::bigint, $3::bigint, $4::bigint, $5::boolean, $6::integer) c
		cross join lateral (select `+backendColumns+` from plane.backends(p_id => c.id, p_limit => 1, p_live => true)) b
		order by c.id`,
		p.DroneLost.Microseconds(), p.ProxyGone.Microseconds(), p.LeaseGrace.Microseconds(), wordLate.Microseconds(), p.SkipIdle, limit)
	if err != nil {
		return nil, failed(ctx, "list termination candidates", err)
	}
	found, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (port.TerminationCandidate, error) {
		var why, kind string
		var silent int64
		b, err := scanBackend(row, &why, &kind, &silent)
		return port.TerminationCandidate{
			Backend: b, Why: port.WhyEnds(why), Kind: backend.Kind(kind), Drone: b.Drone, Silent: time.Duration(silent) * time.Microsecond,
		}, err
	})
	return found, failed(ctx, "list termination candidates", err)
}

// PreventRenew implements port.Operations.
func (s *Store) PreventRenew(ctx context.Context, backendID string) (bool, error) {
	var changed *bool
	err := s.pool.QueryRow(ctx, "select plane.prevent_renew($1::text)", text(backendID)).Scan(&changed)
	if err != nil {
		return false, failed(ctx, "prevent renewals of "+backendID, err)
	}
	if changed == nil {
		return false, unknownBackend(backendID)
	}
	return *changed, nil
}

// MarkLost implements port.Operations.
func (s *Store) MarkLost(ctx context.Context, backendID string) (time.Duration, error) {
	var expires *int64
	err := s.pool.QueryRow(ctx, "select plane.mark_lost($1::text)", text(backendID)).Scan(&expires)
	if err != nil {
		return 0, failed(ctx, "mark "+backendID+" as lost", err)
	}
	if expires == nil {
		return 0, unknownBackend(backendID)
	}
	return time.Duration(*expires) * time.Microsecond, nil
}
