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
// says that writes nothing but whose turn it was, and mostly not even that: another
// controller has looked. What there is, is looked at again and done in others.
func (s *Store) Sweep(ctx context.Context, p port.SweepParams) (handled int, more bool, err error) {
	due, err := s.due(ctx, p)
	if err != nil {
		return 0, false, failed(ctx, "sweep", err)
	}
	if len(due.ids) > 0 {
		var moved int
		err = insist(func() error {
			handled, moved, err = s.sweep(ctx, p, due)
			return err
		})
		// Where others have moved them all, these others go on.
		more = len(due.ids) == p.Limit && moved > 0
	}
	if err == nil && len(due.used) > 0 {
		var noted int
		err = s.pool.QueryRow(ctx, "select plane.note_uses($1::text[], $2::timestamptz[])", due.used, due.usedAt).Scan(&noted)
		more = more || len(due.used) == usesFor*p.Limit && noted > 0
	}
	if err == nil && due.gone {
		var forgot bool
		err = s.pool.QueryRow(ctx, "select plane.forget_uses($1::bigint, $2::integer)", p.ProxyGone.Microseconds(), p.Limit).Scan(&forgot)
		more = more || forgot
	}
	return handled, more, failed(ctx, "sweep", err)
}

// usesFor is how many uses plane.due names for each backend that a sweep may end.
const usesFor = 10

// due is what a sweep has to do.
type due struct {
	ids     []string    // of backends
	actions []string    // names for those that they need
	used    []string    // of backends in use that do not look it by their rows,
	usedAt  []time.Time // and when they were
	gone    bool        // a proxy is gone, and what it used is still in the tables
}

func (s *Store) due(ctx context.Context, p port.SweepParams) (due, error) {
	d := due{actions: []string{}}
	rows, err := s.pool.Query(ctx, "select id, verdict, used from plane.due(null, $1::bigint, $2::bigint, $3::bigint, $4::bigint, $5::bigint, $6::boolean, $7::integer, $8::bigint)",
		p.DroneLost.Microseconds(), p.ProxyGone.Microseconds(), p.HardAfter.Microseconds(), p.LeaseGrace.Microseconds(), wordLate.Microseconds(), p.SkipIdle, p.Limit, p.Every.Microseconds())
	if err != nil {
		return d, err
	}
	var id, verdict string
	var used *time.Time
	_, err = pgx.ForEachRow(rows, []any{&id, &verdict, &used}, func() error {
		switch verdict {
		case "gone":
			d.gone = true
			return nil
		case "used":
			d.used, d.usedAt = append(d.used, id), append(d.usedAt, *used)
			return nil
		case "soft", "hard":
			d.actions = append(d.actions, p.NewActionID())
		}
		d.ids = append(d.ids, id)
		return nil
	})
	return d, err
}

// sweep does what is due, and returns how many backends it has ended or asked to
// end, and how many are not due any more, these included.
func (s *Store) sweep(ctx context.Context, p port.SweepParams, d due) (handled, moved int, err error) {
	var hints []port.Hint
	var id, verdict string
	var drone int64
	rows, err := s.pool.Query(ctx, "select id, verdict, drone from plane.sweep($1::text[], $2::text[], $3::bigint, $4::bigint, $5::bigint, $6::bigint, $7::bigint, $8::boolean)",
		d.ids, d.actions, p.DroneLost.Microseconds(), p.ProxyGone.Microseconds(), p.HardAfter.Microseconds(), p.LeaseGrace.Microseconds(), wordLate.Microseconds(), p.SkipIdle)
	if err != nil {
		return 0, 0, err
	}
	_, err = pgx.ForEachRow(rows, []any{&id, &verdict, &drone}, func() error {
		moved++
		switch verdict {
		case "note":
		case "soft", "hard":
			hints = append(hints, actionHint(drone))
		default:
			hints = append(hints, backendHint(id))
		}
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	s.announcer.announce(hints...)
	return len(hints), moved, nil
}

// Cleanup implements port.Store. It looks for expired tokens in another part of
// them each time, from anywhere on: so all 8 GB of them, or less, are looked at in
// an hour of calls a minute apart, however often controllers are started anew.
func (s *Store) Cleanup(ctx context.Context, minAge time.Duration, limit int) (int, error) {
	var deleted int
	var next int64
	err := s.pool.QueryRow(ctx, "select deleted, next from plane.cleanup($1::bigint, $2::integer, $3::bigint)",
		minAge.Microseconds(), limit, s.tokensFrom.Load()).Scan(&deleted, &next)
	if err == nil {
		s.tokensFrom.Store(&next)
	}
	return deleted, failed(ctx, "clean up", err)
}
