package dnsserver

import (
	"container/list"
	"errors"
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

// limitedListener keeps connections within its limits. Of those of one network it
// closes what is beyond at once; where all are too many, the oldest gives way, which
// hardly is one that has just come to ask. None grows older than age, however well it
// behaves, and each write has so long: whoever asks and does not read holds nothing
// up, not even the server's end.
type limitedListener struct {
	net.Listener
	most, mostPerNetwork int
	age, write           time.Duration

	mu       sync.Mutex
	networks map[netip.Prefix]int
	open     list.List // of *limitedConn, the oldest first
}

func newLimitedListener(cfg Config) *limitedListener {
	return &limitedListener{
		most: cfg.MaxConnections, mostPerNetwork: cfg.MaxPerNetwork, age: cfg.MaxAge, write: cfg.ReadTimeout,
		networks: map[netip.Prefix]int{},
	}
}

// afterFailure is how long nothing is accepted after that has failed. The library
// tries again at once, and what is missing, file descriptors as a rule, is not back
// so soon.
const afterFailure = 50 * time.Millisecond

func (l *limitedListener) Accept() (net.Conn, error) {
	for {
		accepted, err := l.Listener.Accept()
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				<-time.After(afterFailure)
			}
			return nil, err
		}
		c := &limitedConn{
			Conn: accepted, listener: l, network: network(addressOf(accepted.RemoteAddr())), until: time.Now().Add(l.age),
		}
		in, oldest := l.enter(c)
		if oldest != nil {
			_ = oldest.Close() // it may be closed
		}
		if in {
			return c, nil
		}
		_ = accepted.Close() // nothing was said yet
	}
}

// enter takes a connection in, if its network has not too many; oldest, where not
// nil, is the one that gives way to it.
func (l *limitedListener) enter(c *limitedConn) (in bool, oldest *limitedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.networks[c.network] >= l.mostPerNetwork {
		return false, nil
	}
	if l.open.Len() >= l.most {
		oldest = l.open.Front().Value.(*limitedConn)
		l.remove(oldest)
	}
	c.place = l.open.PushBack(c)
	l.networks[c.network]++
	return true, oldest
}

// remove may be called again. Needs the lock.
func (l *limitedListener) remove(c *limitedConn) {
	if c.place == nil {
		return
	}
	l.open.Remove(c.place)
	c.place = nil
	if l.networks[c.network]--; l.networks[c.network] == 0 {
		delete(l.networks, c.network)
	}
}

func (l *limitedListener) size() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open.Len()
}

// closeAll closes the connections that are open.
func (l *limitedListener) closeAll() {
	for {
		l.mu.Lock()
		first := l.open.Front()
		l.mu.Unlock()
		if first == nil {
			return
		}
		_ = first.Value.(*limitedConn).Close() // whoever is at the other end had its time
	}
}

// limitedConn is a connection of a limitedListener. The library sets no deadline
// for what it writes, and gives each question a new one.
type limitedConn struct {
	net.Conn
	listener *limitedListener
	network  netip.Prefix
	until    time.Time
	place    *list.Element // among those that are open; nil: it is not. Under the listener's lock.
}

// SetReadDeadline sets none that is later than the connection's end. A question
// that came before is answered.
func (c *limitedConn) SetReadDeadline(t time.Time) error {
	if t.IsZero() || t.After(c.until) {
		t = c.until
	}
	return c.Conn.SetReadDeadline(t)
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
	c.listener.mu.Lock()
	c.listener.remove(c)
	c.listener.mu.Unlock()
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
