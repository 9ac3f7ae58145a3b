package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"plane/adapters/clock"
	"plane/system/name"
)

// peer does what 0.5.x does per connect: each statement a round trip of its own,
// a transaction for a new key, event rows, and notifications that carry what has
// happened. Statements are prepared once per connection, as its driver does.
type peer struct {
	pool *pgxpool.Pool
	load load
	stop context.CancelFunc
	done chan error
}

// poolSize is how many connections each contender has.
const poolSize = 20

func openPeer(ctx context.Context, s *server, l load) (*peer, error) {
	url, err := s.create(ctx, "peer")
	if err != nil {
		return nil, err
	}
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	cfg.MaxConns, cfg.MinConns = poolSize, poolSize
	p := &peer{load: l, done: make(chan error, 1)}
	schema := peerSchema
	if !l.lean {
		schema = slices.Concat(schema, peerConstraints)
	}
	if err := s.exec(ctx, "peer", schema...); err != nil {
		return nil, err
	}
	if p.pool, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		return nil, err
	}
	background, stop := context.WithCancel(ctx)
	p.stop = stop
	go func() { p.done <- p.background(background) }()
	return p, p.populate(ctx)
}

func (p *peer) name() string { return "0.5.x" }

func (p *peer) close() error {
	p.stop()
	err := <-p.done
	p.pool.Close()
	return err
}

// populate makes the drones, and backends that hold the held keys.
func (p *peer) populate(ctx context.Context) error {
	_, err := p.pool.Exec(ctx, `
		INSERT INTO drone (name, cluster, ready, draining, last_heartbeat, last_local_time)
		SELECT 'dr-' || n, $1, true, false, now(), now() FROM generate_series(1, $2) n`, cluster, drones)
	if err != nil {
		return err
	}
	for i := range p.load.keys {
		if err := p.connect(ctx, heldKey(i)); err != nil {
			return err
		}
	}
	return p.settle(ctx)
}

// settle lets every backend be ready and its actions acknowledged.
func (p *peer) settle(ctx context.Context) error {
	for _, statement := range []string{
		`UPDATE backend SET last_status = 'ready', state = '{"status":"ready","address":"10.0.0.5:49153"}' WHERE last_status = 'scheduled'`,
		`UPDATE backend_action SET acked_at = now() WHERE acked_at IS NULL`,
	} {
		if _, err := p.pool.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// background is what goes on beside the connects: a controller listens, drones
// give signs of life, leases are renewed so that held keys stay held.
func (p *peer) background(ctx context.Context) error {
	listener, err := pgx.ConnectConfig(ctx, p.pool.Config().ConnConfig.Copy())
	if err != nil {
		return err
	}
	defer listener.Close(context.WithoutCancel(ctx))
	if _, err := listener.Exec(ctx, "LISTEN plane_events"); err != nil {
		return err
	}
	next := time.Now()
	for {
		if time.Now().After(next) {
			if err := p.signsOfLife(ctx); err != nil && ctx.Err() == nil {
				return err
			}
			next = time.Now().Add(signsOfLifeEvery)
		}
		waiting, cancel := context.WithDeadline(ctx, next)
		_, err := listener.WaitForNotification(waiting)
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !errors.Is(err, context.DeadlineExceeded):
			return err
		}
	}
}

func (p *peer) signsOfLife(ctx context.Context) error {
	for _, statement := range []string{
		`UPDATE drone SET last_heartbeat = now(), last_local_time = now()`,
		`UPDATE backend_key k SET expires_at = now() + interval '60 s' FROM backend b WHERE b.id = k.id AND b.last_status = 'ready'`,
	} {
		if _, err := p.pool.Exec(ctx, statement); err != nil {
			return fmt.Errorf("signs of life: %w", err)
		}
	}
	return nil
}

func (p *peer) held(ctx context.Context, i int) error { return p.connect(ctx, heldKey(i)) }
func (p *peer) fresh(ctx context.Context) error       { return p.connect(ctx, freshKey()) }

func (p *peer) connect(ctx context.Context, key string) error {
	var id, tag, status, holderCluster string
	var subdomain, static *string
	var expired bool
	var drone int64
	err := p.pool.QueryRow(ctx, peerFindKey, "", key).Scan(&id, &tag, &expired, &status, &holderCluster, &subdomain, &static, &drone)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		if id, err = p.spawn(ctx, key); err != nil {
			return err
		}
	case err != nil:
		return fmt.Errorf("find the key: %w", err)
	case expired:
		return fmt.Errorf("the lease of %s has expired", key)
	}
	_, err = p.pool.Exec(ctx, peerInsertToken, newToken(), id, tokenLife, (*string)(nil), nil, newToken())
	if err != nil {
		return fmt.Errorf("insert the token: %w", err)
	}
	return nil
}

func (p *peer) spawn(ctx context.Context, key string) (string, error) {
	drone, err := p.pickDrone(ctx)
	if err != nil {
		return "", err
	}
	id := name.New(name.Backend, clock.Rand{})
	tx, err := p.pool.Begin(ctx)
	if err != nil {
		return "", fmt.Errorf("begin: %w", err)
	}
	if err := p.insert(ctx, tx, id, key, drone); err != nil {
		return "", errors.Join(err, tx.Rollback(ctx))
	}
	if err := tx.Commit(ctx); err != nil {
		return "", fmt.Errorf("commit: %w", err)
	}
	return id, nil
}

// pickDrone returns the emptiest of a few drawn at random.
func (p *peer) pickDrone(ctx context.Context) (int64, error) {
	rows, err := p.pool.Query(ctx, peerPickDrones, cluster, "", healthy, bestOf)
	if err != nil {
		return 0, fmt.Errorf("pick a drone: %w", err)
	}
	type candidate struct {
		ID       int64
		Time     time.Time
		Backends int64
	}
	candidates, err := pgx.CollectRows(rows, pgx.RowToStructByPos[candidate])
	if err != nil {
		return 0, fmt.Errorf("pick a drone: %w", err)
	}
	if len(candidates) == 0 {
		return 0, errors.New("pick a drone: there is none")
	}
	best := candidates[0]
	for _, c := range candidates {
		if c.Backends < best.Backends {
			best = c
		}
	}
	return best.ID, nil
}

func (p *peer) insert(ctx context.Context, tx pgx.Tx, id, key string, drone int64) error {
	const scheduled = `{"status":"scheduled"}`
	var fencing int64
	err := tx.QueryRow(ctx, peerInsertBackend, id, cluster, drone, scheduled, lifetime, int(maxIdle.Seconds()), "", key, "", leaseLife).Scan(&fencing)
	if err != nil {
		return fmt.Errorf("insert the backend: %w", err)
	}
	action, actionID, err := p.spawnAction(id, key, drone, fencing)
	if err != nil {
		return err
	}
	for _, statement := range []struct {
		sql  string
		args []any
	}{
		{peerInsertState, []any{id, scheduled}},
		{peerInsertEvent, []any{"backend_state", id, scheduled}},
		{peerInsertEvent, []any{"backend_action", fmt.Sprint(drone), action}},
		{peerInsertAction, []any{actionID, id, drone, action}},
	} {
		if _, err := tx.Exec(ctx, statement.sql, statement.args...); err != nil {
			return fmt.Errorf("%s: %w", statement.sql, err)
		}
	}
	return nil
}

// spawnAction is the whole of what the drone is told.
func (p *peer) spawnAction(id, key string, drone, fencing int64) (action, actionID string, err error) {
	actionID = name.New(name.Action, clock.Rand{})
	b, err := json.Marshal(map[string]any{
		"action_id": actionID, "backend_id": id, "drone_id": drone,
		"action": map[string]any{"Spawn": map[string]any{
			"executable": executable, "static_token": nil,
			"key": map[string]any{"key": map[string]string{"name": key, "namespace": "", "tag": ""}, "token": fencing},
		}},
	})
	return string(b), actionID, err
}

// endFresh ends the backends that fresh has made.
func (p *peer) endFresh(ctx context.Context) error {
	for _, statement := range []string{
		`DELETE FROM backend_key k USING backend b WHERE b.id = k.id AND b.last_status = 'scheduled'`,
		`UPDATE backend_action SET acked_at = now() WHERE acked_at IS NULL`,
		`UPDATE backend SET last_status = 'terminated', state = '{"status":"terminated"}' WHERE last_status = 'scheduled'`,
	} {
		if _, err := p.pool.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}
