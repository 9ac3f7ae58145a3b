package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/jackc/pgx/v5"
)

// statesEach is how many states a backend leaves behind that went through all.
const statesEach = 8

// The past: backends that have ended in the last thirty days, of fifty thousand
// keys that come again and again, on the drones there are, with every state. Names
// are spread as made-up ones are. Of tokens there is no past: every controller
// deletes those that have expired. $1 to $2 are the backends' numbers, $3 is how
// many there will be.
const (
	pastBackends = `
		INSERT INTO plane.ended (id, namespace, name, tag, cluster, drone, made_at, ended, history)
		SELECT substr(md5('backend ' || n), 1, 14), 'bench', 'room-' || n % 50000, '', 'bench.example.com', 1 + n % 10, t.at, t.at + interval '40 minutes', array[
			row(10, t.at, '', 0, '', '', null, false, '')::plane.step,
			row(20, t.at + interval '1 second', '', 0, '', '', null, false, '')::plane.step,
			row(30, t.at + interval '3 seconds', '', 0, '', '', null, false, '')::plane.step,
			row(40, t.at + interval '4 seconds', '10.0.0.5:49153', 0, '', '', null, false, '')::plane.step,
			row(50, t.at + interval '5 seconds', '10.0.0.5:49153', 0, '', '', null, false, '')::plane.step,
			row(60, t.at + interval '38 minutes', '10.0.0.5:49153', 50, 'soft', 'swept', null, false, '')::plane.step,
			row(65, t.at + interval '39 minutes', '10.0.0.5:49153', 50, 'hard', 'swept', null, false, '')::plane.step,
			row(70, t.at + interval '40 minutes', '', 50, 'hard', 'swept', 137, false, '')::plane.step]
		FROM generate_series($1::bigint, $2) n,
			LATERAL (SELECT plane.now() - interval '30 days' + n * interval '29 days' / $3::bigint AS at) t`
	pastBatch = 50_000
)

// withHistory measures our connects with a long past against ours without one.
func (b *benchmark) withHistory(ctx context.Context) (err error) {
	empty, err := openOurs(ctx, b.server, b.load, "without history", "present")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, empty.close()) }()
	long, err := openOurs(ctx, b.server, b.load, "with history", "past")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, long.close()) }()
	if err := b.fillPast(ctx, long); err != nil {
		return fmt.Errorf("fill in the past: %w", err)
	}
	if err := b.ready(ctx, map[string]contender{"present": empty, "past": long}); err != nil {
		return err
	}
	if err := b.server.exec(ctx, "postgres", "CHECKPOINT"); err != nil {
		return err
	}
	medians, err := b.takeTurns(ctx, long, empty)
	if err != nil {
		return err
	}
	fmt.Printf("\nWith %d terminated backends and their %d old states in the tables, and without; medians of %d rounds of %v each, in turn on one server.\n",
		b.history, b.history*statesEach, b.load.rounds, b.load.cell)
	pasts(os.Stdout, medians[long.name()], medians[empty.name()])
	return nil
}

func (b *benchmark) fillPast(ctx context.Context, o *ours) error {
	say("history: filling in %d backends", b.history)
	conn, err := pgx.Connect(ctx, o.url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for from := 1; from <= b.history; from += pastBatch {
		to := min(from+pastBatch-1, b.history)
		if _, err := conn.Exec(ctx, pastBackends, from, to, b.history); err != nil {
			return err
		}
	}
	return nil
}
