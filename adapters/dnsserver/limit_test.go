package dnsserver

import (
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"plane/system/zone"
)

func TestRateLimit(t *testing.T) {
	l := newRateLimit(10)
	a := netip.MustParseAddr("192.0.2.1")
	passed := func(from netip.Addr, at time.Duration) (n int) {
		for range 100 {
			if l.take(from, int64(at)) == pass {
				n++
			}
		}
		return n
	}
	require.Equal(t, 10, passed(a, 0), "a second's worth at once")
	require.Equal(t, 0, passed(netip.MustParseAddr("::ffff:192.0.2.200"), 0), "the same network")
	require.Equal(t, 1, passed(a, 100*time.Millisecond))
	require.Equal(t, 10, passed(a, time.Hour), "no more is saved up")
	require.Equal(t, 10, passed(netip.MustParseAddr("198.51.100.1"), 0), "another network")
	require.Equal(t, 10, passed(netip.MustParseAddr("2001:db8::1"), 0))
	require.Equal(t, 0, passed(netip.MustParseAddr("2001:db8:0:ff::1"), 0), "the same /56")
	require.Equal(t, 100, func() (n int) {
		l := newRateLimit(0)
		for range 100 {
			if l.take(a, 0) == pass {
				n++
			}
		}
		return n
	}(), "no limit")
}

func TestEverySecondPacketBeyondTheRateSlips(t *testing.T) {
	l := newRateLimit(1)
	got := map[verdict]int{}
	for range 101 {
		got[l.take(netip.Addr{}, 0)]++
	}
	require.Equal(t, map[verdict]int{pass: 1, slip: 50, drop: 50}, got)
}

// A client that asks now and then, well within every limit, has its connection for
// so long only: else a thousand of them would keep all others out.
func TestAConnectionEndsHoweverWellItBehaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := DefaultConfig()
		z, err := zone.New(zone.Config{Zone: "acme.example"})
		require.NoError(t, err)
		s, err := New(cfg, z, oneValue{}, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		near, far := net.Pipe()
		arrivals := &oneConn{conn: far, over: make(chan struct{})}
		s.listener.Listener = arrivals
		server := s.overTCP()
		server.Listener = s.listener
		ended := make(chan error, 1)
		began, answered := time.Now(), 0
		go func() { ended <- server.ActivateAndServe() }()
		for client := (dns.Conn{Conn: near}); ; answered++ {
			if client.WriteMsg(new(dns.Msg).SetQuestion("c1.acme.example.", dns.TypeA)) != nil {
				break
			}
			_, err := client.ReadMsg()
			require.NoError(t, err)
			require.Equal(t, 1, s.Counts().Connections)
			time.Sleep(cfg.IdleTimeout - time.Second) //nolint:forbidigo // the time of the bubble
		}
		require.Equal(t, 4, answered, "at 0, 9, 18 and 27 s")
		require.Equal(t, 4*(cfg.IdleTimeout-time.Second), time.Since(began))
		require.Zero(t, s.Counts().Connections)
		require.NoError(t, arrivals.Close())
		require.ErrorIs(t, <-ended, io.EOF)
	})
}

// exhausted is a listener for which no file descriptor is left.
type exhausted struct{ net.Listener }

func (exhausted) Accept() (net.Conn, error) {
	return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
}

func TestALackOfFileDescriptorsIsWaitedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimitedListener(DefaultConfig())
		l.Listener = exhausted{}
		began := time.Now()
		for range 10 {
			_, err := l.Accept()
			require.ErrorIs(t, err, syscall.EMFILE)
		}
		require.Equal(t, 10*afterFailure, time.Since(began), "the library asks again at once")
	})
}
