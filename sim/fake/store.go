package fake

import (
	"context"
	"time"

	"plane/system/backend"
	"plane/system/ledger"
	"plane/system/port"
	"plane/system/protocol"
)

var _ port.Store = (*Store)(nil)

// run is query for an operation without an answer.
func (s *Store) run(ctx context.Context, what string, op func(l *ledger.Ledger, now time.Time) error) error {
	_, err := query(ctx, s, what, func(l *ledger.Ledger, now time.Time) (none, error) { return none{}, op(l, now) })
	return err
}

// Health implements port.Store.
func (s *Store) Health(ctx context.Context) error {
	return s.run(ctx, "health", func(*ledger.Ledger, time.Time) error { return nil })
}

// Connect implements port.Store.
func (s *Store) Connect(ctx context.Context, p port.ConnectParams) (port.Connected, error) {
	return query(ctx, s, "connect", func(l *ledger.Ledger, now time.Time) (port.Connected, error) { return l.Connect(now, p) })
}

// RouteToken implements port.Store.
func (s *Store) RouteToken(ctx context.Context, token string) (port.Route, error) {
	return query(ctx, s, "route token", func(l *ledger.Ledger, now time.Time) (port.Route, error) { return l.RouteToken(now, token) })
}

// Revoke implements port.Store.
func (s *Store) Revoke(ctx context.Context, backendID, user string) error {
	return s.run(ctx, "revoke", func(l *ledger.Ledger, now time.Time) error { return l.Revoke(now, backendID, user) })
}

// Revocations implements port.Store.
func (s *Store) Revocations(ctx context.Context, within time.Duration) ([]port.Revocation, time.Time, error) {
	type answer struct { // of its own: the store may answer when nobody waits any more
		recent []port.Revocation
		now    time.Time
	}
	a, err := query(ctx, s, "revocations", func(l *ledger.Ledger, now time.Time) (answer, error) {
		s.db.clock.tick(s.db.env.Now())
		return answer{l.Revocations(now, within), now}, nil
	})
	return a.recent, a.now, err
}

// Terminate implements port.Store.
func (s *Store) Terminate(ctx context.Context, p port.TerminateParams) error {
	return s.run(ctx, "terminate", func(l *ledger.Ledger, now time.Time) error { return l.Terminate(now, p) })
}

// RecordStates implements port.Store.
func (s *Store) RecordStates(ctx context.Context, reports []port.StateReport) ([]port.RecordOutcome, error) {
	return query(ctx, s, "record states", func(l *ledger.Ledger, now time.Time) ([]port.RecordOutcome, error) {
		return l.RecordStates(now, reports), nil
	})
}

// RenewKeys implements port.Store.
func (s *Store) RenewKeys(ctx context.Context, renewals []port.Renewal) ([]bool, error) {
	return query(ctx, s, "renew keys", func(l *ledger.Ledger, now time.Time) ([]bool, error) {
		held := l.RenewKeys(now, renewals)
		for i, r := range renewals {
			if held[i] {
				s.db.renewed[r.BackendID] = now
			}
		}
		return held, nil
	})
}

// KeepAlive implements port.Store.
func (s *Store) KeepAlive(ctx context.Context, u port.ProxyUse) error {
	return s.run(ctx, "keep alive", func(l *ledger.Ledger, now time.Time) error {
		l.KeepAlive(now, u)
		return nil
	})
}

// PendingActions implements port.Store.
func (s *Store) PendingActions(ctx context.Context, drone port.NodeID) ([]port.PendingAction, error) {
	return query(ctx, s, "pending actions", func(l *ledger.Ledger, _ time.Time) ([]port.PendingAction, error) {
		return l.PendingActions(drone), nil
	})
}

// AckActions implements port.Store.
func (s *Store) AckActions(ctx context.Context, drone port.NodeID, actionIDs []string) error {
	return s.run(ctx, "ack actions", func(l *ledger.Ledger, _ time.Time) error {
		l.AckActions(drone, actionIDs)
		return nil
	})
}

// RegisterNode implements port.Store.
func (s *Store) RegisterNode(ctx context.Context, n port.NodeRegistration) (port.NodeID, error) {
	return query(ctx, s, "register node", func(l *ledger.Ledger, now time.Time) (port.NodeID, error) {
		id := l.RegisterNode(now, n)
		if n.Kind == port.ProxyNode {
			s.db.proxies[id] = n.Name
		}
		return id, nil
	})
}

// DisconnectNode implements port.Store.
func (s *Store) DisconnectNode(ctx context.Context, node port.NodeID, connection string) error {
	return s.run(ctx, "disconnect node", func(l *ledger.Ledger, _ time.Time) error {
		l.DisconnectNode(node, connection)
		return nil
	})
}

// Heartbeats implements port.Store.
func (s *Store) Heartbeats(ctx context.Context, beats []port.DroneHeartbeat) error {
	return s.run(ctx, "heartbeats", func(l *ledger.Ledger, now time.Time) error {
		l.Heartbeats(now, beats)
		return nil
	})
}

// ControllerHeartbeat implements port.Store.
func (s *Store) ControllerHeartbeat(ctx context.Context, c port.ControllerInfo) error {
	return s.run(ctx, "controller heartbeat", func(l *ledger.Ledger, now time.Time) error {
		l.ControllerHeartbeat(now, c)
		return nil
	})
}

// Drain implements port.Store.
func (s *Store) Drain(ctx context.Context, cluster, drone string) (bool, error) {
	return query(ctx, s, "drain", func(l *ledger.Ledger, _ time.Time) (bool, error) { return l.Drain(cluster, drone) })
}

// Sweep implements port.Store. Like the real one it takes the turn, where it has
// to, in a transaction of its own: between the two anything may fail.
func (s *Store) Sweep(ctx context.Context, p port.SweepParams) (int, bool, error) {
	if p.Every > 0 {
		turn, err := query(ctx, s, "turn", func(l *ledger.Ledger, now time.Time) (bool, error) { return l.TakeTurn(now, p), nil })
		if err != nil || !turn {
			return 0, false, err
		}
		p.Every = 0
	}
	type answer struct {
		handled int
		more    bool
	}
	a, err := query(ctx, s, "sweep", func(l *ledger.Ledger, now time.Time) (a answer, err error) {
		a.handled, a.more = l.Sweep(now, p)
		return a, nil
	})
	return a.handled, a.more, err
}

// Cleanup implements port.Store.
func (s *Store) Cleanup(ctx context.Context, minAge time.Duration, limit int) (int, error) {
	return query(ctx, s, "cleanup", func(l *ledger.Ledger, now time.Time) (int, error) { return l.Cleanup(now, minAge, limit), nil })
}

// Statuses implements port.Store.
func (s *Store) Statuses(ctx context.Context, backendIDs []string) ([]backend.Status, error) {
	return query(ctx, s, "statuses", func(l *ledger.Ledger, _ time.Time) ([]backend.Status, error) { return l.Statuses(backendIDs), nil })
}

// Backend implements port.Store.
func (s *Store) Backend(ctx context.Context, backendID string) (port.Backend, error) {
	return query(ctx, s, "backend", func(l *ledger.Ledger, _ time.Time) (port.Backend, error) { return l.Backend(backendID) })
}

// History implements port.Store.
func (s *Store) History(ctx context.Context, backendID string, after backend.Status) ([]port.HistoryEntry, error) {
	return query(ctx, s, "history", func(l *ledger.Ledger, _ time.Time) ([]port.HistoryEntry, error) { return l.History(backendID, after) })
}

// ClusterState implements port.Store.
func (s *Store) ClusterState(ctx context.Context, cluster string) (protocol.ClusterState, error) {
	return query(ctx, s, "cluster state", func(l *ledger.Ledger, now time.Time) (protocol.ClusterState, error) {
		return l.ClusterState(now, cluster), nil
	})
}

// Backends implements port.Store.
func (s *Store) Backends(ctx context.Context, q port.BackendQuery) ([]port.Backend, error) {
	return query(ctx, s, "backends", func(l *ledger.Ledger, _ time.Time) ([]port.Backend, error) {
		return l.Backends(q), nil
	})
}

// LeaseCertificate implements port.ChallengeStore.
func (s *Store) LeaseCertificate(ctx context.Context, cluster string, proxy port.NodeID, term time.Duration) (bool, error) {
	return query(ctx, s, "lease certificate", func(l *ledger.Ledger, now time.Time) (bool, error) {
		return l.LeaseCertificate(now, cluster, proxy, term), nil
	})
}

// ReleaseCertificate implements port.ChallengeStore.
func (s *Store) ReleaseCertificate(ctx context.Context, cluster string, proxy port.NodeID) error {
	return s.run(ctx, "release certificate", func(l *ledger.Ledger, _ time.Time) error {
		l.ReleaseCertificate(cluster, proxy)
		s.db.released[s.db.proxies[proxy]] = s.db.env.Now()
		return nil
	})
}

// AddChallenge implements port.ChallengeStore.
func (s *Store) AddChallenge(ctx context.Context, cluster string, proxy port.NodeID, value string, life time.Duration) error {
	return s.run(ctx, "add challenge", func(l *ledger.Ledger, now time.Time) error {
		l.AddChallenge(now, cluster, proxy, value, life)
		if ctx.Err() != nil {
			s.db.late[value] = true
		}
		return nil
	})
}

// Challenges implements port.ChallengeStore.
func (s *Store) Challenges(ctx context.Context, clusters []string) ([][]string, error) {
	return query(ctx, s, "challenges", func(l *ledger.Ledger, now time.Time) ([][]string, error) {
		return l.Challenges(now, clusters), nil
	})
}
