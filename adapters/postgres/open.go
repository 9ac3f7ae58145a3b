// Package postgres keeps Plane's state in PostgreSQL, and carries hints between
// controllers with its LISTEN and NOTIFY.
//
// A Store and its Listener may be used by any number of tasks at once, and any
// number of processes may share a database, directly or through a pooler in
// transaction mode (the Listener alone needs a connection of its own). No state
// is kept in sessions.
//
// When a connection dies, or the database is restarted or fails over, calls that
// are under way fail unclearly: they may have been committed, or may be yet. Some
// four seconds after they began the server ends what has not come to its commit
// by then; a commit that waits for a synchronous standby waits for as long as it
// takes, and is not seen by anybody before. Later calls find the server that can
// be written to by themselves, among the hosts of the URL, and no connection to
// another one is used again.
package postgres

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"plane/migrations"
	"plane/system/recent"
)

// Store implements port.Store on a PostgreSQL database. Make one with Open.
type Store struct {
	cfg        Config
	pool       *pgxpool.Pool
	announcer  *announcer
	follow     *failover
	quiet      time.Duration         // see Listener
	deaf       bool                  // what listens does so through a pooler
	held       *recent.Table[bool]   // by key: whether it could be joined lately
	drones     *drones               // where backends may go
	tokensFrom atomic.Pointer[int64] // the page of tokens where the next cleanup begins; nil: anywhere
	seats      *recent.Table[seat]   // by backend: where it shares a lease
	combiners
}

// Migrate brings the database's schema up to date; see migrations.Apply. Its
// errors are those of Open.
func Migrate(ctx context.Context, cfg Config) error {
	return cfg.once(ctx, func(conn *pgx.Conn) error { return migrations.Apply(ctx, conn) })
}

// Open connects to a database that Migrate has brought up to date. Errors that
// wrap ErrConfig, migrations.ErrNewer, ErrOlder or ErrAltered need a person;
// after any other (the database does not answer) it may be tried again.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if err := cfg.warnUnverified(cfg.URL); err != nil {
		return nil, err
	}
	if cfg.listenURL() != cfg.URL {
		if err := cfg.warnUnverified(cfg.listenURL()); err != nil {
			return nil, fmt.Errorf("the listener's: %w", err)
		}
	}
	var behindPooler bool
	err := cfg.once(ctx, func(conn *pgx.Conn) (err error) {
		if err = migrations.Check(ctx, conn); err == nil {
			behindPooler, err = cfg.meetsPooler(ctx, conn)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	p, err := cfg.parse(cfg.URL)
	if err != nil {
		return nil, err
	}
	if behindPooler {
		pooled(p.ConnConfig)
	} else {
		direct(p.ConnConfig)
	}
	follow := newFailover()
	follow.watch(p)
	p.BeforeConnect = func(_ context.Context, cc *pgx.ConnConfig) error {
		follow.order(cc)
		neverCancel(cc)
		return cfg.setPassword(cc)
	}
	pool, err := pgxpool.NewWithConfig(context.WithoutCancel(ctx), p)
	if err != nil {
		return nil, fmt.Errorf("connect to the database: %w", discreet(err, p.ConnConfig))
	}
	follow.resets(pool.Reset)
	s := &Store{
		cfg: cfg, pool: pool, announcer: newAnnouncer(pool, cfg.log()), follow: follow, quiet: quietTime,
		deaf: behindPooler && cfg.listenURL() == cfg.URL, held: recent.New[bool](mostHeld, heldAge), drones: newDrones(),
		seats: recent.New[seat](mostSeats, seatAge),
	}
	s.combine()
	return s, nil
}

// Close sends the hints that are still to be sent and closes all connections,
// once the calls under way are over. Listeners are closed by their own Close.
func (s *Store) Close() {
	s.announcer.close()
	s.pool.Close()
}

// once does something on a connection of its own. That asks nothing of the
// session, so it does not matter whether there is a pooler in between.
func (c Config) once(ctx context.Context, do func(conn *pgx.Conn) error) error {
	p, err := c.parse(c.URL)
	if err != nil {
		return err
	}
	pooled(p.ConnConfig)
	conn, err := pgx.ConnectConfig(ctx, p.ConnConfig)
	if err != nil {
		return fmt.Errorf("connect to the database: %w", discreet(err, p.ConnConfig))
	}
	defer conn.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing depends on how it ends
	return do(conn)
}

// meetsPooler finds out whether a pooler is in between: it makes up the process
// numbers that it tells its clients, while the server knows its own. Where it is,
// the limits that would be set for each session have to be set in the database.
func (c Config) meetsPooler(ctx context.Context, conn *pgx.Conn) (bool, error) {
	var pid uint32
	var unlimited bool
	err := conn.QueryRow(ctx, "select pg_backend_pid(), current_setting('statement_timeout') = '0'").Scan(&pid, &unlimited)
	if err != nil {
		return false, fmt.Errorf("connect to the database: %w", err)
	}
	behind := pid != conn.PgConn().PID()
	if behind && unlimited {
		c.log().Warn("there is a pooler in front of the database, through which no time-outs can be set for a session; set them for the user: alter role NAME set statement_timeout = '4s'; alter role NAME set lock_timeout = '3s'; alter role NAME set idle_in_transaction_session_timeout = '5s'")
	}
	return behind, nil
}
