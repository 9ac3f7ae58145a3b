package memory

import (
	"context"
	"time"

	"plane/system/ledger"
	"plane/system/port"
)

var _ port.Operations = (*Store)(nil)

// Nodes implements port.Operations.
func (s *Store) Nodes(ctx context.Context) (nodes []port.Node, err error) {
	err = s.do(ctx, func(l *ledger.Ledger, now time.Time) error {
		nodes = l.Nodes(now)
		return nil
	})
	return nodes, err
}

// TerminationCandidates implements port.Operations.
func (s *Store) TerminationCandidates(ctx context.Context, p port.SweepParams, limit int) (found []port.TerminationCandidate, err error) {
	err = s.do(ctx, func(l *ledger.Ledger, now time.Time) error {
		found = l.TerminationCandidates(now, p, limit)
		return nil
	})
	return found, err
}

// PreventRenew implements port.Operations.
func (s *Store) PreventRenew(ctx context.Context, backendID string) (changed bool, err error) {
	err = s.do(ctx, func(l *ledger.Ledger, _ time.Time) error {
		changed, err = l.PreventRenew(backendID)
		return err
	})
	return changed, err
}

// MarkLost implements port.Operations.
func (s *Store) MarkLost(ctx context.Context, backendID string) (expires time.Duration, err error) {
	err = s.do(ctx, func(l *ledger.Ledger, now time.Time) error {
		expires, err = l.MarkLost(now, backendID)
		return err
	})
	return expires, err
}
