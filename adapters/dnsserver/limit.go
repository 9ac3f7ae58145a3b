package dnsserver

import (
	"hash/maphash"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// verdict is what becomes of a packet.
type verdict int

const (
	pass verdict = iota
	slip         // told to come again by TCP, which nobody can do for another
	drop
)

// rateLimit holds the UDP answers to one network (of 256 IPv4 addresses, or an
// IPv6 /56) to a rate: a server that answers whoever a packet claims to be from
// is a weapon against others. Of what is beyond the rate, every second packet is
// answered with "truncated", in as many bytes as were asked: a real resolver then
// comes by TCP.
//
// The table has a fixed size; networks that share a place, by a hash that nobody
// can predict, share a rate. No lock, no allocation.
type rateLimit struct {
	interval int64 // nanoseconds between two answers; 0: no limit
	burst    int64 // nanoseconds that may be saved up
	seed     maphash.Seed
	places   []place
}

// place is a bucket, kept as the time at which it will be full again.
type place struct {
	full  atomic.Int64
	slips atomic.Uint32
}

const limitPlaces = 1 << 16

// newRateLimit allows perSecond answers to a network, and as many at once.
func newRateLimit(perSecond int) *rateLimit {
	l := &rateLimit{}
	if perSecond > 0 {
		l.interval, l.burst = int64(time.Second)/int64(perSecond), int64(time.Second)
		l.seed, l.places = maphash.MakeSeed(), make([]place, limitPlaces)
	}
	return l
}

// take decides on a packet that came at now, in nanoseconds of any clock that
// does not go back.
func (l *rateLimit) take(from netip.Addr, now int64) verdict {
	if l.interval == 0 {
		return pass
	}
	p := &l.places[maphash.Comparable(l.seed, network(from))%limitPlaces]
	for {
		full := p.full.Load()
		next := max(full, now) + l.interval
		if next-now > l.burst {
			if p.slips.Add(1)%2 == 0 {
				return slip
			}
			return drop
		}
		if p.full.CompareAndSwap(full, next) {
			return pass
		}
	}
}

// network is what one site has at least.
func network(a netip.Addr) netip.Prefix {
	bits := 56
	if a = a.Unmap(); a.Is4() {
		bits = 24
	}
	p, err := a.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// limitedListener closes connections beyond its limits at once, and can close
// those that are open. It gives each of them so long for every write: whoever asks
// and does not read holds nothing up, not even the server's end.
type limitedListener struct {
	net.Listener
	most, mostPerNetwork int
	write                time.Duration

	mu       sync.Mutex
	networks map[netip.Prefix]int
	open     map[*limitedConn]struct{}
}

func newLimitedListener(cfg Config) *limitedListener {
	return &limitedListener{
		most: cfg.MaxConnections, mostPerNetwork: cfg.MaxPerNetwork, write: cfg.ReadTimeout,
		networks: map[netip.Prefix]int{}, open: map[*limitedConn]struct{}{},
	}
}

func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		accepted, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &limitedConn{Conn: accepted, listener: l, network: network(addressOf(accepted.RemoteAddr()))}
		if l.enter(c) {
			return c, nil
		}
		_ = accepted.Close() // nothing was said yet
	}
}

func (l *limitedListener) enter(c *limitedConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.open) >= l.most || l.networks[c.network] >= l.mostPerNetwork {
		return false
	}
	l.open[c] = struct{}{}
	l.networks[c.network]++
	return true
}

// leave may be called again.
func (l *limitedListener) leave(c *limitedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, in := l.open[c]; !in {
		return
	}
	delete(l.open, c)
	if l.networks[c.network]--; l.networks[c.network] == 0 {
		delete(l.networks, c.network)
	}
}

func (l *limitedListener) size() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.open)
}

// closeAll closes the connections that are open.
func (l *limitedListener) closeAll() {
	l.mu.Lock()
	open := slices.Collect(maps.Keys(l.open))
	l.mu.Unlock()
	for _, c := range open {
		_ = c.Close() // whoever is at the other end had its time
	}
}

// limitedConn is a connection of a limitedListener. The library sets no deadline
// for what it writes.
type limitedConn struct {
	net.Conn
	listener *limitedListener
	network  netip.Prefix
}

// Write closes the connection when it fails: what came through, if anything, is
// half an answer.
func (c *limitedConn) Write(b []byte) (int, error) {
	_ = c.SetWriteDeadline(time.Now().Add(c.listener.write)) // one that is closed fails below
	n, err := c.Conn.Write(b)
	if err != nil {
		_ = c.Close() // it may be closed
	}
	return n, err
}

func (c *limitedConn) Close() error {
	defer c.listener.leave(c)
	return c.Conn.Close()
}

func addressOf(a net.Addr) netip.Addr {
	switch a := a.(type) {
	case *net.UDPAddr:
		return a.AddrPort().Addr()
	case *net.TCPAddr:
		return a.AddrPort().Addr()
	}
	return netip.Addr{}
}
