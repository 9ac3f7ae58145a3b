package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sys/unix"
)

// Config says where the database is and how to use it.
type Config struct {
	// URL is a PostgreSQL URL, or a connection string of keywords and values.
	// It may name several hosts; the one that can be written to is used.
	URL string
	// ListenURL is the same for the one connection that listens for hints, where
	// that has to be another: past a pooler in transaction mode. Empty: URL.
	ListenURL string
	// PasswordFile holds the password in its first line, for both URLs. It is
	// read anew for each connection. Empty: the password is in the URL, in
	// PGPASSWORD or PGPASSFILE, or not needed.
	PasswordFile string
	// MaxConnections is the most that this process has open at a time, the
	// listening one not counted. 0: DefaultMaxConnections.
	MaxConnections int
	// Name is what the server's views call this process, a controller's name.
	Name string
	// Log gets warnings; nil: none.
	Log *slog.Logger
}

// DefaultMaxConnections is how many connections a process has open at most.
const DefaultMaxConnections = 20

// ErrConfig is wrapped by errors that trying again will not cure.
var ErrConfig = errors.New("bad database settings")

// Times of connections. A connection does not live for ever, so that load evens
// out between servers behind one name, and changes of the network are followed.
const (
	connectTimeout = 3 * time.Second // for each host tried
	pingTimeout    = time.Second     // for an idle connection to show that it lives
	lifetime       = 30 * time.Minute
	lifetimeJitter = 10 * time.Minute
	idleTime       = 5 * time.Minute
	healthPeriod   = 30 * time.Second
	// userTimeout is for how long what was sent may stay unacknowledged before
	// the connection counts as dead.
	userTimeout = 5 * time.Second
)

// limits are set for each session, as the server is the only one who can end a
// statement for certain. What has not come to its commit within them never will:
// a renewal read the time, and has its lease's row, at most that long before. The
// commit itself may wait for a synchronous standby, which none of them ends;
// docs/operations.md says why that is safe.
var limits = map[string]string{
	"statement_timeout":                   "4s",
	"lock_timeout":                        "3s",
	"idle_in_transaction_session_timeout": "5s",
}

func (c Config) log() *slog.Logger {
	if c.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Log
}

// listenURL is where hints are listened for.
func (c Config) listenURL() string {
	if c.ListenURL != "" {
		return c.ListenURL
	}
	return c.URL
}

// parse makes what a pool, or a single connection, is made from.
func (c Config) parse(url string) (*pgxpool.Config, error) {
	p, err := pgxpool.ParseConfig(url)
	if err != nil {
		// Not the error itself: it has the URL in it, and what could not be
		// parsed cannot be relied on to be blotted out well.
		return nil, fmt.Errorf("%w: the database's address is not understood: want a URL like postgres://USER@HOST:5432/DATABASE?sslmode=verify-full (characters like @ / ? # %% in a password have to be percent-encoded), and any file that it names has to be readable", ErrConfig)
	}
	p.MaxConns = int32(c.MaxConnections)
	if c.MaxConnections == 0 {
		p.MaxConns = DefaultMaxConnections
	}
	if c.MaxConnections < 0 || c.MaxConnections > 10_000 {
		return nil, fmt.Errorf("%w: want 1 to 10000 connections, not %d", ErrConfig, c.MaxConnections)
	}
	p.MaxConnLifetime, p.MaxConnLifetimeJitter = lifetime, lifetimeJitter
	p.MaxConnIdleTime, p.HealthCheckPeriod, p.PingTimeout = idleTime, healthPeriod, pingTimeout

	cc := p.ConnConfig
	if cc.ConnectTimeout == 0 || cc.ConnectTimeout > connectTimeout {
		cc.ConnectTimeout = connectTimeout
	}
	cc.DialFunc = dial
	if cc.ValidateConnect == nil {
		cc.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	if cc.RuntimeParams["application_name"] == "" {
		cc.RuntimeParams["application_name"] = strings.TrimSpace("plane " + c.Name)
	}
	return p, c.setPassword(cc)
}

// warnUnverified says which servers need not prove who they are.
func (c Config) warnUnverified(url string) error {
	p, err := c.parse(url)
	if err != nil {
		return err
	}
	if hosts := unverifiedHosts(&p.ConnConfig.Config); len(hosts) > 0 {
		c.log().Warn("the database server's certificate is not checked: whoever is on the way can read and change everything; use sslmode=verify-full", "hosts", hosts)
	}
	return nil
}

// plans are set for each session, so that statements are planned once, for
// tables as large as they may become, as the database's functions are.
var plans = map[string]string{
	"plan_cache_mode": "force_generic_plan",
	"enable_seqscan":  "off",
	"jit":             "off",
}

// direct has the server hold the session to limits and plans, unless the URL says
// otherwise. A pooler would refuse them.
func direct(cc *pgx.ConnConfig) {
	for _, settings := range []map[string]string{limits, plans} {
		for name, value := range settings {
			if cc.RuntimeParams[name] == "" {
				cc.RuntimeParams[name] = value
			}
		}
	}
}

// pooled keeps nothing in a session: with a pooler the next statement may come
// to another one. Statements are not prepared there, but their descriptions are
// kept here, so each still takes one round trip.
func pooled(cc *pgx.ConnConfig) {
	if cc.DefaultQueryExecMode == pgx.QueryExecModeCacheStatement {
		cc.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	}
}

// unverifiedHosts are those on other machines that are talked to without a
// check of who they are.
func unverifiedHosts(cc *pgconn.Config) []string {
	var hosts []string
	add := func(host string, port uint16, verified bool) {
		if address := net.JoinHostPort(host, strconv.Itoa(int(port))); !verified && !isLocal(host) && (len(hosts) == 0 || hosts[len(hosts)-1] != address) {
			hosts = append(hosts, address)
		}
	}
	add(cc.Host, cc.Port, verifies(cc.TLSConfig))
	for _, f := range cc.Fallbacks {
		add(f.Host, f.Port, verifies(f.TLSConfig))
	}
	return hosts
}

func isLocal(host string) bool {
	ip := net.ParseIP(host)
	return strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") || host == "localhost" || ip != nil && ip.IsLoopback()
}

var errNoCancel = errors.New("no statement is cancelled")

// neverCancel keeps pgx from asking the server to cancel a statement whose caller
// has given up, for which it would dial once more. PostgreSQL obeys even where the
// statement is a commit that waits for a synchronous standby: that then counts,
// for all to see, and a fail-over to that standby would take it back. A spawn
// could be handed out whose key is free on the new primary (G1).
func neverCancel(cc *pgx.ConnConfig) {
	dial, after := cc.DialFunc, cc.AfterConnect
	var made atomic.Bool
	cc.AfterConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
		made.Store(true)
		return after(ctx, conn)
	}
	cc.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		if made.Load() {
			return nil, errNoCancel
		}
		return dial(ctx, network, address)
	}
}

// dial opens a connection whose death is noticed: it is probed while it is idle,
// and what was sent must be acknowledged in time.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: userTimeout, Interval: 2 * time.Second, Count: 3},
		Control: func(network, _ string, raw syscall.RawConn) error {
			if !strings.HasPrefix(network, "tcp") {
				return nil
			}
			var set error
			err := raw.Control(func(fd uintptr) {
				set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(userTimeout.Milliseconds()))
			})
			return errors.Join(err, set)
		},
	}
	return d.DialContext(ctx, network, address)
}
