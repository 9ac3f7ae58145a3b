package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"plane/system/port"
)

// wordLate is how old a proxy's complete list may be, which it gives every
// port.HeartbeatEvery, before it counts as out of touch.
const wordLate = port.HeartbeatEvery + 4*time.Second

// Sweep implements port.Store. Mostly there is nothing to do, which one statement
// says that only reads. What there is, is looked at again and done in another.
func (s *Store) Sweep(ctx context.Context, p port.SweepParams) (int, error) {
	var ids, actions []string
	var id, verdict string
	rows, err := s.pool.Query(ctx, "select id, verdict from plane.due(null, $1::bigint, $2::bigint, $3::bigint, $4::bigint, $5::bigint, $6::boolean, $7::integer)",
		p.DroneLost.Microseconds(), p.ProxyGone.Microseconds(), p.HardAfter.Microseconds(), p.LeaseGrace.Microseconds(), wordLate.Microseconds(), p.SkipIdle, p.Limit)
	if err != nil {
		return 0, failed(ctx, "sweep", err)
	}
	_, err = pgx.ForEachRow(rows, []any{&id, &verdict}, func() error {
		ids = append(ids, id)
		if verdict == "soft" || verdict == "hard" {
			actions = append(actions, p.NewActionID())
		}
		return nil
	})
	if err != nil || len(ids) == 0 {
		return 0, failed(ctx, "sweep", err)
	}
	var done int
	err = insist(func() error {
		done, err = s.sweep(ctx, p, ids, actions)
		return err
	})
	return done, failed(ctx, "sweep", err)
}

func (s *Store) sweep(ctx context.Context, p port.SweepParams, ids, actions []string) (int, error) {
	var hints []port.Hint
	var id, verdict string
	var drone int64
	rows, err := s.pool.Query(ctx, "select id, verdict, drone from plane.sweep($1::text[], $2::text[], $3::bigint, $4::bigint, $5::bigint, $6::bigint, $7::bigint, $8::boolean)",
		ids, actions, p.DroneLost.Microseconds(), p.ProxyGone.Microseconds(), p.HardAfter.Microseconds(), p.LeaseGrace.Microseconds(), wordLate.Microseconds(), p.SkipIdle)
	if err != nil {
		return 0, err
	}
	_, err = pgx.ForEachRow(rows, []any{&id, &verdict, &drone}, func() error {
		if verdict == "soft" || verdict == "hard" {
			hints = append(hints, actionHint(drone))
		} else {
			hints = append(hints, backendHint(id))
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	s.announcer.announce(hints...)
	return len(hints), nil
}

// Cleanup implements port.Store.
func (s *Store) Cleanup(ctx context.Context, minAge time.Duration, limit int) (int, error) {
	var deleted int
	err := s.pool.QueryRow(ctx, "select plane.cleanup($1::bigint, $2::integer)", minAge.Microseconds(), limit).Scan(&deleted)
	return deleted, failed(ctx, "clean up", err)
}
