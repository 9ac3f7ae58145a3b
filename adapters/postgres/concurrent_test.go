package postgres_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"plane/adapters/postgres"
	"plane/system/porttest"
)

// TestStoreConcurrently has three controllers on one server, and cuts their
// connections: before a request has arrived, while it is served, and when its
// answer is on the way (F5).
func TestStoreConcurrently(t *testing.T) {
	d := open(t)
	cfg, err := pgx.ParseConfig(d.url)
	require.NoError(t, err)
	address := net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port)))
	c := newCutter(t, address)
	s := porttest.StoresUnderTest{Calm: d, Cut: c.cutSoon}
	for i := range 3 {
		store, err := postgres.Open(t.Context(), postgres.Config{
			URL: strings.Replace(d.url, address, c.listener.Addr().String(), 1), Name: fmt.Sprintf("cut-%d", i), MaxConnections: 2,
		})
		require.NoError(t, err)
		t.Cleanup(store.Close)
		postgres.GatherNothing(store)
		s.Stores = append(s.Stores, store)
	}
	s.Advance = func(by time.Duration) {
		for d.busy(c.ports()) {
		}
		d.advance(by)
	}
	histories := 200
	if testing.Short() {
		histories = 30
	}
	d.exec(`create sequence public.extended;
		create function public.count() returns trigger language plpgsql as $$ begin perform nextval('public.extended'); return new; end $$;
		create trigger count before update of ends on plane.term for each row execute function public.count()`)
	start := time.Now()
	porttest.StoreConcurrently(t, histories, s)
	t.Logf("%d connections cut, %v", c.cuts, time.Since(start).Round(time.Second))
	require.Greater(t, c.cuts, histories)
	extended := d.number("select last_value from public.extended")
	t.Logf("%d terms extended", extended)
	require.Greater(t, extended, histories/2)
}

// busy reports whether the server is still at work on what came from the
// controllers, by connections that are gone or that are from these ports.
func (d *database) busy(ports []int) bool {
	d.t.Helper()
	var busy bool
	err := d.conn.QueryRow(context.Background(), `
		select exists (select from pg_stat_activity where datname = current_database()
			and application_name like 'plane cut-%' and (client_port <> all($1) or state <> 'idle'))`, ports).Scan(&busy)
	require.NoError(d.t, err)
	return busy
}

// cutter is a stretch of network in front of the server that breaks now and
// then.
type cutter struct {
	listener net.Listener
	to       string

	mu   sync.Mutex
	open map[net.Conn]net.Conn // by the connection to the server, the one from the client
	left int                   // how many more messages pass; negative: any number
	cuts int
}

func newCutter(t *testing.T, to string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	c := &cutter{listener: l, to: to, open: map[net.Conn]net.Conn{}, left: -1}
	go c.serve()
	t.Cleanup(func() {
		l.Close()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.cutAll()
	})
	return c
}

// cutSoon has all connections break after so many more messages.
func (c *cutter) cutSoon(soon int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = soon
}

// cutAll breaks all connections, with a reset.
func (c *cutter) cutAll() {
	for server, client := range c.open {
		for _, conn := range []net.Conn{server, client} {
			conn.(*net.TCPConn).SetLinger(0)
			conn.Close()
		}
		c.cuts++
	}
	clear(c.open)
	c.left = -1
}

// ports are those from which the server is reached.
func (c *cutter) ports() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	ports := []int{}
	for server := range c.open {
		ports = append(ports, server.LocalAddr().(*net.TCPAddr).Port)
	}
	return ports
}

func (c *cutter) serve() {
	for {
		client, err := c.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", c.to)
		if err != nil {
			client.Close()
			continue
		}
		c.mu.Lock()
		c.open[server] = client
		c.mu.Unlock()
		end := func() {
			c.mu.Lock()
			delete(c.open, server)
			c.mu.Unlock()
			server.Close()
			client.Close()
		}
		go func() { c.pass(server, client); end() }()
		go func() { c.pass(client, server); end() }()
	}
}

// pass passes one direction on. The message at which all connections break still
// arrives, or not.
func (c *cutter) pass(to, from net.Conn) {
	for buffer := make([]byte, 64<<10); ; {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		c.mu.Lock()
		last := c.left == 0
		if c.left > 0 {
			c.left--
		}
		if last && rand.IntN(2) == 0 {
			c.cutAll()
		}
		c.mu.Unlock()
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
		if last {
			c.mu.Lock()
			c.cutAll()
			c.mu.Unlock()
		}
	}
}
