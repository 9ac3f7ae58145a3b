package dnsserver_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"plane/adapters/dnsserver"
	"plane/system/zone"
)

// serve runs a server of a zone, on any address, until the test is over.
func serve(t *testing.T, host string, challenges interface {
	Challenges(ctx context.Context, cluster string) ([]string, error)
	Remembered(cluster string) ([]string, bool)
}, configure func(*dnsserver.Config),
) (port int, end func() error) {
	t.Helper()
	cfg := dnsserver.DefaultConfig()
	cfg.RateLimit = 0
	configure(&cfg)
	z, err := zone.New(zone.Config{Zone: "acme.example"})
	require.NoError(t, err)
	s, err := dnsserver.New(cfg, z, challenges, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	sockets, err := dnsserver.Listen(t.Context(), host, 0)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, sockets) }()
	t.Cleanup(cancel)
	return int(sockets.Addr().Port()), func() error { cancel(); return <-ended }
}

// On every address of a machine, an answer comes from the one that was asked: a
// connected socket takes it from no other.
func TestAnAnswerComesFromTheAddressThatWasAsked(t *testing.T) {
	port, end := serve(t, "", values, func(*dnsserver.Config) {})
	for _, host := range []string{"127.0.0.1", "127.0.0.2", "127.3.4.5"} {
		for _, name := range []string{"c1.mysite.com.acme.example.", "many.test.acme.example."} { // at once, and later
			client := dns.Client{Timeout: 5 * time.Second}
			m := new(dns.Msg).SetQuestion(name, dns.TypeTXT)
			_, _, err := client.Exchange(m, (&net.UDPAddr{IP: net.ParseIP(host), Port: port}).String())
			require.NoError(t, err, "%s %s", host, name)
		}
	}
	require.ErrorIs(t, end(), context.Canceled)
}

// slow is a port.ChallengeReader whose controller answers when told to.
type slow struct {
	asked  chan struct{}
	answer chan struct{}
	gone   atomic.Bool
}

func (s *slow) Challenges(ctx context.Context, _ string) ([]string, error) {
	s.asked <- struct{}{}
	select {
	case <-s.answer:
		return []string{"late"}, nil
	case <-ctx.Done():
		s.gone.Store(true)
		return nil, errors.New("given up")
	}
}

func (*slow) Remembered(string) ([]string, bool) { return nil, false }

// Who waits for a controller keeps nobody else waiting, is limited in number, and
// is answered also when the server is about to end.
func TestQuestionsThatWait(t *testing.T) {
	controller := &slow{asked: make(chan struct{}, 1), answer: make(chan struct{})}
	port, end := serve(t, "127.0.0.1", controller, func(c *dnsserver.Config) { c.MaxAtOnce = 1 })
	dial := func() *dns.Conn {
		c, err := dns.Dial("udp", (&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}).String())
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() }) // test over
		require.NoError(t, c.SetDeadline(time.Now().Add(5*time.Second)))
		return c
	}
	ask := func(c *dns.Conn, kind uint16) {
		require.NoError(t, c.WriteMsg(new(dns.Msg).SetQuestion("c1.test.acme.example.", kind)))
	}
	first, second := dial(), dial()
	ask(first, dns.TypeTXT)
	<-controller.asked
	for kind, rcode := range map[uint16]int{dns.TypeTXT: dns.RcodeServerFailure, dns.TypeA: dns.RcodeSuccess} {
		ask(second, kind)
		m, err := second.ReadMsg()
		require.NoError(t, err)
		require.Equal(t, rcode, m.Rcode)
	}
	ended := make(chan error, 1)
	go func() { ended <- end() }()
	close(controller.answer)
	m, err := first.ReadMsg()
	require.NoError(t, err)
	require.Len(t, m.Answer, 1)
	require.ErrorIs(t, <-ended, context.Canceled)
	require.False(t, controller.gone.Load())
}
