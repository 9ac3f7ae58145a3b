package fake

import (
	"context"
	"time"

	"plane/system/ledger"
	"plane/system/port"
)

var _ port.Operations = (*Store)(nil)

// Nodes implements port.Operations.
func (s *Store) Nodes(ctx context.Context) ([]port.Node, error) {
	return query(ctx, s, "nodes", func(l *ledger.Ledger, now time.Time) ([]port.Node, error) { return l.Nodes(now), nil })
}

// TerminationCandidates implements port.Operations.
func (s *Store) TerminationCandidates(ctx context.Context, p port.SweepParams, limit int) ([]port.TerminationCandidate, error) {
	return query(ctx, s, "termination candidates", func(l *ledger.Ledger, now time.Time) ([]port.TerminationCandidate, error) {
		return l.TerminationCandidates(now, p, limit), nil
	})
}

// PreventRenew implements port.Operations.
func (s *Store) PreventRenew(ctx context.Context, backendID string) (bool, error) {
	return query(ctx, s, "prevent renew", func(l *ledger.Ledger, _ time.Time) (bool, error) { return l.PreventRenew(backendID) })
}

// MarkLost implements port.Operations.
func (s *Store) MarkLost(ctx context.Context, backendID string) (time.Duration, error) {
	return query(ctx, s, "mark lost", func(l *ledger.Ledger, now time.Time) (time.Duration, error) { return l.MarkLost(now, backendID) })
}
