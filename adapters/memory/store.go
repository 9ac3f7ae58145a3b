// Package memory is port.Store for a controller without a database: a
// system/ledger behind a mutex, on the controller's own clock. It serves
// development and single controllers.
//
// Everything is lost when the process ends: backends that a drone still runs
// are unknown to the next controller, renew no more, and end by their leases.
// Within the process every operation is atomic, takes microseconds and never
// fails unclearly; a context that has ended is refused before anything is done.
// A Store and a Listener may be used from any number of goroutines (Next from
// one at a time).
//
// Hints are delivered to each Listener before the operation that caused them
// returns. A Listener that does not keep up loses them, and is told to look at
// everything again.
package memory

import (
	"context"
	"slices"
	"sync"
	"time"

	"plane/system/backend"
	"plane/system/ledger"
	"plane/system/port"
	"plane/system/protocol"
)

// Store implements port.Store.
type Store struct {
	clock port.Clock

	mu        sync.Mutex
	ledger    *ledger.Ledger
	listeners []*Listener
}

var _ port.Store = (*Store)(nil)

// New makes an empty store whose clock is clock.
func New(clock port.Clock) *Store { return &Store{clock: clock, ledger: ledger.New()} }

// do runs one operation on the ledger and delivers its hints.
func (s *Store) do(ctx context.Context, operation func(l *ledger.Ledger, now time.Time) error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := operation(s.ledger, s.clock.Now())
	if hints := s.ledger.TakeHints(); len(hints) > 0 {
		for _, l := range s.listeners {
			l.deliver(hints)
		}
	}
	return err
}

// Listen subscribes to the hints of all later operations.
func (s *Store) Listen() *Listener {
	l := &Listener{store: s, arrived: make(chan struct{}, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listeners = append(s.listeners, l)
	return l
}

func (s *Store) unsubscribe(l *Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listeners = slices.DeleteFunc(s.listeners, func(other *Listener) bool { return other == l })
}

// Health implements port.Store.
func (s *Store) Health(ctx context.Context) error {
	return s.do(ctx, func(*ledger.Ledger, time.Time) error { return nil })
}

// Connect implements port.Store.
func (s *Store) Connect(ctx context.Context, p port.ConnectParams) (c port.Connected, err error) {
	err = s.do(ctx, func(l *ledger.Ledger, now time.Time) error {
		c, err = l.Connect(now, p)
		return err
	})
	return c, err
}

// RouteToken implements port.Store.
func (s *Store) RouteToken(ctx context.Context, token string) (r port.Route, err error) {
	err = s.do(ctx, func(l *ledger.Ledger, now time.Time) error {
		r, err = l.RouteToken(now, token)
		return err
	})
	return r, err
}

// Revoke implements port.Store.
func (s *Store) Revoke(ctx context.Context, backendID, user string) error {
	return s.do(ctx, func(l *ledger.Ledger, now time.Time) error { return l.Revoke(now, backendID, user) })
}

// Revocations implements port.Store.
func (s *Store) Revocations(ctx context.Context, within time.Duration) (recent []port.Revocation, at time.Time, err error) {
	err = s.do(ctx, func(l *ledger.Ledger, now time.Time) error {
		recent, at = l.Revocations(now, within), now
		return nil
	})
	return recent, at, err
}

// Terminate implements port.Store.
func (s *Store) Terminate(ctx context.Context, p port.TerminateParams) error {
	return s.do(ctx, func(l *ledger.Ledger, now time.Time) error { return l.Terminate(now, p) })
}

// RecordStates implements port.Store.
func (s *Store) RecordStates(ctx context.Context, reports []port.StateReport) (outcomes []port.RecordOutcome, err error) {
	err = s.do(ctx, func(l *ledger.Ledger, now time.Time) error {
		outcomes = l.RecordStates(now, reports)
		return nil
	})
	return outcomes, err
}

// RenewKeys implements port.Store.
func (s *Store) RenewKeys(ctx context.Context, renewals []port.Renewal) (renewed []bool, err error) {
	err = s.do(ctx, func(l *ledger.Ledger, now time.Time) error {
		renewed = l.RenewKeys(now, renewals)
		return nil
	})
	return renewed, err
}

// KeepAlive implements port.Store.
func (s *Store) KeepAlive(ctx context.Context, u port.ProxyUse) error {
	return s.do(ctx, func(l *ledger.Ledger, now time.Time) error {
		l.KeepAlive(now, u)
		return nil
	})
}

// PendingActions implements port.Store.
func (s *Store) PendingActions(ctx context.Context, drone port.NodeID) (actions []port.PendingAction, err error) {
	err = s.do(ctx, func(l *ledger.Ledger, _ time.Time) error {
		actions = l.PendingActions(drone)
		return nil
	})
	return actions, err
}

// AckActions implements port.Store.
func (s *Store) AckActions(ctx context.Context, drone port.NodeID, actionIDs []string) error {
	return s.do(ctx, func(l *ledger.Ledger, _ time.Time) error {
		l.AckActions(drone, actionIDs)
		return nil
	})
}

// RegisterNode implements port.Store.
func (s *Store) RegisterNode(ctx context.Context, n port.NodeRegistration) (id port.NodeID, err error) {
	err = s.do(ctx, func(l *ledger.Ledger, now time.Time) error {
		id = l.RegisterNode(now, n)
		return nil
	})
	return id, err
}

// DisconnectNode implements port.Store.
func (s *Store) DisconnectNode(ctx context.Context, node port.NodeID, connection string) error {
	return s.do(ctx, func(l *ledger.Ledger, _ time.Time) error {
		l.DisconnectNode(node, connection)
		return nil
	})
}

// Heartbeats implements port.Store.
func (s *Store) Heartbeats(ctx context.Context, beats []port.DroneHeartbeat) error {
	return s.do(ctx, func(l *ledger.Ledger, now time.Time) error {
		l.Heartbeats(now, beats)
		return nil
	})
}

// ControllerHeartbeat implements port.Store.
func (s *Store) ControllerHeartbeat(ctx context.Context, c port.ControllerInfo) error {
	return s.do(ctx, func(l *ledger.Ledger, now time.Time) error {
		l.ControllerHeartbeat(now, c)
		return nil
	})
}

// Drain implements port.Store.
func (s *Store) Drain(ctx context.Context, cluster, drone string) (updated bool, err error) {
	err = s.do(ctx, func(l *ledger.Ledger, _ time.Time) error {
		updated, err = l.Drain(cluster, drone)
		return err
	})
	return updated, err
}

// Sweep implements port.Store.
func (s *Store) Sweep(ctx context.Context, p port.SweepParams) (handled int, more bool, err error) {
	err = s.do(ctx, func(l *ledger.Ledger, now time.Time) error {
		handled, more = l.Sweep(now, p)
		return nil
	})
	return handled, more, err
}

// Cleanup implements port.Store.
func (s *Store) Cleanup(ctx context.Context, minAge time.Duration, limit int) (deleted int, err error) {
	err = s.do(ctx, func(l *ledger.Ledger, now time.Time) error {
		deleted = l.Cleanup(now, minAge, limit)
		return nil
	})
	return deleted, err
}

// Statuses implements port.Store.
func (s *Store) Statuses(ctx context.Context, backendIDs []string) (statuses []backend.Status, err error) {
	err = s.do(ctx, func(l *ledger.Ledger, _ time.Time) error {
		statuses = l.Statuses(backendIDs)
		return nil
	})
	return statuses, err
}

// Backend implements port.Store.
func (s *Store) Backend(ctx context.Context, backendID string) (b port.Backend, err error) {
	err = s.do(ctx, func(l *ledger.Ledger, _ time.Time) error {
		b, err = l.Backend(backendID)
		return err
	})
	return b, err
}

// History implements port.Store.
func (s *Store) History(ctx context.Context, backendID string, after backend.Status) (entries []port.HistoryEntry, err error) {
	err = s.do(ctx, func(l *ledger.Ledger, _ time.Time) error {
		entries, err = l.History(backendID, after)
		return err
	})
	return entries, err
}

// ClusterState implements port.Store.
func (s *Store) ClusterState(ctx context.Context, cluster string) (state protocol.ClusterState, err error) {
	err = s.do(ctx, func(l *ledger.Ledger, now time.Time) error {
		state = l.ClusterState(now, cluster)
		return nil
	})
	return state, err
}

// Backends implements port.Store.
func (s *Store) Backends(ctx context.Context, q port.BackendQuery) (page []port.Backend, err error) {
	err = s.do(ctx, func(l *ledger.Ledger, _ time.Time) error {
		page = l.Backends(q)
		return nil
	})
	return page, err
}

// LeaseCertificate implements port.ChallengeStore.
func (s *Store) LeaseCertificate(ctx context.Context, cluster string, proxy port.NodeID, term time.Duration) (leased bool, err error) {
	err = s.do(ctx, func(l *ledger.Ledger, now time.Time) error {
		leased = l.LeaseCertificate(now, cluster, proxy, term)
		return nil
	})
	return leased, err
}

// ReleaseCertificate implements port.ChallengeStore.
func (s *Store) ReleaseCertificate(ctx context.Context, cluster string, proxy port.NodeID) error {
	return s.do(ctx, func(l *ledger.Ledger, _ time.Time) error {
		l.ReleaseCertificate(cluster, proxy)
		return nil
	})
}

// AddChallenge implements port.ChallengeStore.
func (s *Store) AddChallenge(ctx context.Context, cluster string, proxy port.NodeID, value string, life time.Duration) error {
	return s.do(ctx, func(l *ledger.Ledger, now time.Time) error {
		l.AddChallenge(now, cluster, proxy, value, life)
		return nil
	})
}

// Challenges implements port.ChallengeStore.
func (s *Store) Challenges(ctx context.Context, clusters []string) (values [][]string, err error) {
	err = s.do(ctx, func(l *ledger.Ledger, now time.Time) error {
		values = l.Challenges(now, clusters)
		return nil
	})
	return values, err
}
