package postgres

import (
	"context"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"plane/system/watch"
)

// failover keeps a pool from using connections to a server that is no longer the
// one to write to, and from trying servers first that did not answer.
//
// Connections belong to generations. The first sign on a connection of the
// present one that the server has changed (it shuts down, became read-only, or
// does not answer) begins the next, and closes all connections of those before.
type failover struct {
	mu         sync.Mutex
	reset      func()               // closes all connections of the pool, the busy ones once they are free
	followers  watch.Roster[func()] // told of each new generation
	generation int
	suspect    bool              // a call went unanswered: look before each use
	names      map[string]string // by IP address, the host it was found for
	good       string            // where the last connection leads: ip:port
	bad        string            // where one led that broke since
}

func newFailover() *failover { return &failover{names: map[string]string{}} }

// resets says how to close all connections of the pool.
func (f *failover) resets(reset func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reset = reset
}

const generationKey = "plane generation"

// SQLSTATEs which tell that a server is not, or is about not to be, the one to
// write to.
var departing = []string{
	"25006", // read-only
	"57P01", // shut down by an administrator
	"57P02", // crashed
	"57P03", // starting up or shutting down
}

// watch makes a pool notice.
func (f *failover) watch(p *pgxpool.Config) {
	cc := &p.ConnConfig.Config
	f.remember(cc)
	onError := cc.OnPgError
	cc.OnPgError = func(conn *pgconn.PgConn, e *pgconn.PgError) bool {
		if slices.Contains(departing, e.Code) {
			f.broken(conn)
			return false
		}
		return onError(conn, e)
	}
	p.ShouldPing = f.shouldPing
	p.BeforeClose = func(conn *pgx.Conn) {
		if conn.IsClosed() { // not by the pool: it died, or a call on it was given up
			f.doubt(true)
		}
	}
}

// doubt has connections looked at before they are used again, whether or not
// they were idle; or not, once one has answered.
func (f *failover) doubt(doubt bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.suspect = doubt
}

func (f *failover) doubted() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.suspect
}

// remember notes where connections lead.
func (f *failover) remember(cc *pgconn.Config) {
	lookup := cc.LookupFunc
	cc.LookupFunc = func(ctx context.Context, host string) ([]string, error) {
		ips, err := lookup(ctx, host)
		f.learn(host, ips)
		return ips, err
	}
	cc.AfterConnect = func(_ context.Context, conn *pgconn.PgConn) error {
		f.connected(conn)
		return nil
	}
}

// restTime is for how long an idle connection is taken to live without a look.
const restTime = time.Second

// shouldPing looks whether a connection that was idle, or is doubted, answers. If not,
// those that were made with it are not worth a look each.
func (f *failover) shouldPing(ctx context.Context, p pgxpool.ShouldPingParams) bool {
	if p.IdleDuration < restTime && !f.doubted() {
		return false
	}
	pinging, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	err := p.Conn.Ping(pinging)
	switch {
	case err == nil:
		f.doubt(false)
	case ctx.Err() == nil:
		f.broken(p.Conn.PgConn())
	}
	return err != nil // the pool's own ping fails at once then, and it takes another
}

// learn notes which host an address is of.
func (f *failover) learn(host string, ips []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.names) > 1000 {
		clear(f.names)
	}
	for _, ip := range ips {
		f.names[ip] = host
	}
}

func (f *failover) connected(conn *pgconn.PgConn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	conn.CustomData()[generationKey] = f.generation
	f.good = conn.Conn().RemoteAddr().String()
	if f.bad == f.good {
		f.bad = ""
	}
}

// broken begins the next generation, unless one has begun since the connection
// was made.
func (f *failover) broken(conn *pgconn.PgConn) {
	f.mu.Lock()
	of, made := conn.CustomData()[generationKey].(int)
	first := made && of == f.generation && f.reset != nil
	reset := f.reset
	if first {
		f.generation++
		f.bad = conn.Conn().RemoteAddr().String()
		if f.good == f.bad {
			f.good = ""
		}
	}
	f.mu.Unlock()
	if first {
		reset()
		for _, tell := range f.followers.Members() {
			tell()
		}
	}
}

// order has the host tried first to which the last connection was made, and last
// the one where connections broke since: a server that hangs costs seconds each
// time.
func (f *failover) order(cc *pgx.ConnConfig) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(cc.Fallbacks) == 0 || f.good == "" && f.bad == "" {
		return
	}
	all := append([]*pgconn.FallbackConfig{{Host: cc.Host, Port: cc.Port, TLSConfig: cc.TLSConfig}}, cc.Fallbacks...)
	slices.SortStableFunc(all, func(a, b *pgconn.FallbackConfig) int { return f.rank(a) - f.rank(b) })
	cc.Host, cc.Port, cc.TLSConfig = all[0].Host, all[0].Port, all[0].TLSConfig
	cc.Fallbacks = all[1:]
}

func (f *failover) rank(c *pgconn.FallbackConfig) int {
	switch {
	case f.leads(c, f.good):
		return 0
	case f.leads(c, f.bad):
		return 2
	}
	return 1
}

// leads reports whether a connection to this host was one to address.
func (f *failover) leads(c *pgconn.FallbackConfig, address string) bool {
	ip, port, err := net.SplitHostPort(address)
	return err == nil && port == strconv.Itoa(int(c.Port)) && (c.Host == ip || c.Host == f.names[ip])
}
