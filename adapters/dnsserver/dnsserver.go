// Package dnsserver puts the DNS receiver on the network, over UDP and TCP: it
// reads packets, asks package zone what to say and a port.ChallengeReader for what
// only a controller knows, and writes the answer. It is made for the open
// internet.
//
// It promises: no packet, however made, ends the process or is answered with more
// than 1232 bytes over UDP (less if the client takes less, and 512 where it does
// not say): what is longer is answered "truncated", and whole over TCP. Over UDP
// each network gets a limited number of answers a second. Connections are limited,
// in all and for each network, and in how old they may grow, how long be silent or
// leave answers unread, and how much they may ask: nobody keeps others out by holding
// them, nor holds up the server's end. What is under way at once is limited; beyond,
// and when no controller answers, SERVFAIL is told at once.
//
// Questions are answered as RFC 1035 and its successors want: responses and what
// has no whole header are not answered, malformed messages are FORMERR, other
// operations NOTIMP; EDNS version 0 (RFC 6891), other versions BADVERS.
package dnsserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"plane/system/port"
	"plane/system/zone"
)

// Config is how a server behaves.
type Config struct {
	// RateLimit is how many answers a second one network (an IPv4 /24, an IPv6
	// /56) gets over UDP; 0: any number.
	RateLimit int
	// MaxConnections and MaxPerNetwork are how many TCP connections may be open; for
	// one beyond MaxConnections the oldest is closed.
	MaxConnections, MaxPerNetwork int
	// MaxPerConnection is how many questions one connection may bring, and MaxAge
	// for how long.
	MaxPerConnection int
	MaxAge           time.Duration
	// ReadTimeout is how long the first question on a connection may take, and
	// every answer until the client has room for it; IdleTimeout is for each later
	// question.
	ReadTimeout, IdleTimeout time.Duration
	// MaxAtOnce is how many questions may wait for a controller: more than the
	// ChallengeReader lets wait, which knows better whom to give up.
	MaxAtOnce int
	// Grace is how long questions may take that are under way when the server is
	// to end.
	Grace time.Duration
}

// DefaultConfig is generous to resolvers, of which a network seldom has many.
func DefaultConfig() Config {
	return Config{
		RateLimit: 200, MaxConnections: 1000, MaxPerNetwork: 100, MaxPerConnection: 1000,
		ReadTimeout: 3 * time.Second, IdleTimeout: 10 * time.Second, MaxAge: 30 * time.Second,
		MaxAtOnce: 4096, Grace: 3 * time.Second,
	}
}

// Validate refuses a configuration that could not work.
func (c Config) Validate() error {
	if c.RateLimit < 0 || c.RateLimit > 1_000_000 {
		return fmt.Errorf("rate limit: want 0 (none) to 1,000,000 answers a second, not %d", c.RateLimit)
	}
	if min(c.MaxConnections, c.MaxPerNetwork, c.MaxPerConnection, c.MaxAtOnce) < 1 || min(c.ReadTimeout, c.IdleTimeout, c.MaxAge, c.Grace) <= 0 {
		return errors.New("dnsserver: every limit and every time must be positive")
	}
	return nil
}

// maxUDP is the longest packet that passes every network in one piece.
const maxUDP = 1232

// Counts is what a server has done so far.
type Counts struct {
	Questions   uint64 // that were understood
	Limited     uint64 // packets beyond the rate
	Unavailable uint64 // questions that no controller answered in time
	Connections int    // open now
}

// Sockets are the two that a server needs, on one port.
type Sockets struct {
	udp *net.UDPConn
	tcp net.Listener
}

// Listen opens the sockets. Port 0 is a free one.
func Listen(ctx context.Context, host string, portNumber uint16) (*Sockets, error) {
	var lc net.ListenConfig
	for try := 0; ; try++ {
		tcp, err := lc.Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(portNumber))))
		if err != nil {
			return nil, err
		}
		chosen := tcp.Addr().(*net.TCPAddr).Port
		udp, err := lc.ListenPacket(ctx, "udp", net.JoinHostPort(host, strconv.Itoa(chosen)))
		if err == nil {
			_ = udp.(*net.UDPConn).SetReadBuffer(4 << 20) // as much of it as the system allows
			return &Sockets{udp.(*net.UDPConn), tcp}, nil
		}
		_ = tcp.Close() // nobody knows of it
		if portNumber != 0 || try == 10 {
			return nil, err
		}
	}
}

// Addr is where the sockets listen.
func (s *Sockets) Addr() netip.AddrPort { return s.udp.LocalAddr().(*net.UDPAddr).AddrPort() }

// Close gives sockets back that no server has served.
func (s *Sockets) Close() error { return errors.Join(s.udp.Close(), s.tcp.Close()) }

// Server answers questions.
type Server struct {
	cfg        Config
	zone       *zone.Zone
	challenges port.ChallengeReader
	log        *slog.Logger
	limit      *rateLimit
	listener   *limitedListener
	began      time.Time
	busy       chan struct{}
	life       context.Context // of Serve

	questions, limited, unavailable atomic.Uint64
}

// New makes a server.
func New(cfg Config, z *zone.Zone, challenges port.ChallengeReader, log *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Server{
		cfg: cfg, zone: z, challenges: challenges, log: log, limit: newRateLimit(cfg.RateLimit), began: time.Now(),
		busy: make(chan struct{}, cfg.MaxAtOnce), listener: newLimitedListener(cfg),
	}, nil
}

// Counts may be called at any time.
func (s *Server) Counts() Counts {
	return Counts{
		Questions: s.questions.Load(), Limited: s.limited.Load(), Unavailable: s.unavailable.Load(), Connections: s.listener.size(),
	}
}

// Serve answers until the context ends, and returns its cause; it closes the
// sockets. It is called once.
func (s *Server) Serve(ctx context.Context, sockets *Sockets) error {
	s.listener.Listener = sockets.tcp
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	s.life = life
	udp, tcp := s.overUDP(sockets.udp), s.overTCP()
	tcp.Listener = s.listener

	g, ctx := errgroup.WithContext(ctx)
	for _, serve := range []func() error{udp.serve, tcp.ActivateAndServe} {
		g.Go(func() error {
			err := serve()
			if err != nil && ctx.Err() == nil {
				return fmt.Errorf("serve DNS: %w", err)
			}
			return context.Cause(ctx)
		})
	}
	g.Go(func() error {
		<-ctx.Done()
		grace, cancel := context.WithTimeout(life, s.cfg.Grace)
		defer cancel()
		udp.stop(grace) // what is not done by then is given up,
		_ = tcp.ShutdownContext(grace)
		_ = sockets.Close() // and a server that had not yet begun does not begin
		end()
		s.listener.closeAll()
		return context.Cause(ctx)
	})
	return g.Wait()
}

func (s *Server) overTCP() *dns.Server {
	return &dns.Server{
		Handler: dns.HandlerFunc(s.serve), MsgAcceptFunc: accept, MaxTCPQueries: s.cfg.MaxPerConnection,
		ReadTimeout: s.cfg.ReadTimeout, IdleTimeout: func() time.Duration { return s.cfg.IdleTimeout },
	}
}

// accept looks at a header, before anything else of a message is read.
func accept(h dns.Header) dns.MsgAcceptAction {
	const response, opcodes = 1 << 15, 0xF << 11
	switch {
	case h.Bits&response != 0:
		return dns.MsgIgnore // or two servers would talk to each other for ever
	case h.Bits&opcodes != 0:
		return dns.MsgRejectNotImplemented
	case h.Qdcount != 1 || h.Ancount != 0 || h.Nscount > 1 || h.Arcount > 3:
		return dns.MsgReject // a zone transfer has one authority record; OPT, TSIG and SIG(0) come as additional ones
	}
	return dns.MsgAccept
}

const headerLen = 12

// truncated makes of a question the answer that there is more over TCP; nil when
// it is none. It is no longer than the question.
func truncated(packet []byte) []byte {
	if len(packet) < headerLen || packet[2]&0x80 != 0 {
		return nil
	}
	end := headerLen
	for end < len(packet) && packet[end] != 0 && packet[end] < 64 {
		end += 1 + int(packet[end])
	}
	if end += 1 + 4; end > len(packet) || packet[end-5] != 0 || packet[4] != 0 || packet[5] != 1 {
		return nil
	}
	again := append([]byte(nil), packet[:end]...)
	again[2] = again[2]&0x79 | 0x82 // QR and TC; the operation and RD as they came
	again[3] = 0
	copy(again[6:headerLen], make([]byte, 6)) // no other section
	return again
}
