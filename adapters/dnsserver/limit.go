package dnsserver

import (
	"hash/maphash"
	"net"
	"net/netip"
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

// limitedListener closes connections beyond its limits at once: those that are
// open are served, and end soon by their idle time.
type limitedListener struct {
	net.Listener
	most, mostPerNetwork int

	mu   sync.Mutex
	open map[netip.Prefix]int
	all  int
}

func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		n := network(addressOf(c.RemoteAddr()))
		if l.enter(n) {
			return &limitedConn{Conn: c, leave: sync.OnceFunc(func() { l.leave(n) })}, nil
		}
		_ = c.Close() // nothing was said yet
	}
}

func (l *limitedListener) enter(n netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.all >= l.most || l.open[n] >= l.mostPerNetwork {
		return false
	}
	l.all++
	l.open[n]++
	return true
}

func (l *limitedListener) leave(n netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all--
	if l.open[n]--; l.open[n] == 0 {
		delete(l.open, n)
	}
}

func (l *limitedListener) size() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all
}

type limitedConn struct {
	net.Conn
	leave func()
}

func (c *limitedConn) Close() error {
	defer c.leave()
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
