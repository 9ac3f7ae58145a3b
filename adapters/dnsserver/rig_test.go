package dnsserver_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"plane/adapters/dnsserver"
	"plane/system/port"
	"plane/system/zone"
)

// book is a port.ChallengeReader that knows all there is.
type book map[string][]string

func (b book) Challenges(_ context.Context, cluster string) ([]string, error) {
	if cluster == "away.test" {
		return nil, port.ErrUnavailable
	}
	return b[cluster], nil
}

// Remembered knows those of mysite.com without asking.
func (b book) Remembered(cluster string) ([]string, bool) {
	return b[cluster], strings.HasSuffix(cluster, "mysite.com")
}

var values = book{
	"c1.mysite.com": {"base", "wildcard"},
	"odd.test":      {`back\slash "quoted" ` + "\x00\xff", strings.Repeat("long ", 60)},
	"many.test":     numbered(100),
	"huge.test":     numbered(5000),
}

func numbered(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf("%043d", i))
	}
	return all
}

// server is one that runs on this machine.
type server struct {
	*dnsserver.Server
	address string
}

func start(t testing.TB, configure func(*dnsserver.Config), zoneName string) server {
	t.Helper()
	cfg := dnsserver.DefaultConfig()
	cfg.RateLimit = 0
	if configure != nil {
		configure(&cfg)
	}
	z, err := zone.New(zone.Config{Zone: zoneName, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}})
	require.NoError(t, err)
	s, err := dnsserver.New(cfg, z, values, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	sockets, err := dnsserver.Listen(t.Context(), "127.0.0.1", 0)
	require.NoError(t, err)
	ctx, cancel := context.WithCancelCause(context.Background())
	over, ended := errors.New("test over"), make(chan error, 1)
	go func() { ended <- s.Serve(ctx, sockets) }()
	t.Cleanup(func() {
		cancel(over)
		require.ErrorIs(t, <-ended, over)
	})
	return server{s, sockets.Addr().String()}
}

// question is what dig asks: a name, a type and perhaps more of
// class=CH edns=SIZE version=N do rd cd opcode=N.
func question(t testing.TB, text string) *dns.Msg {
	t.Helper()
	words := strings.Fields(text)
	kind, ok := dns.StringToType[words[1]]
	require.True(t, ok, words[1])
	m := new(dns.Msg).SetQuestion(dns.Fqdn(words[0]), kind)
	m.RecursionDesired = false
	for _, word := range words[2:] {
		option, text, _ := strings.Cut(word, "=")
		n, err := strconv.Atoi(text)
		switch option {
		case "class":
			m.Question[0].Qclass, err = dns.StringToClass[text], nil
		case "edns":
			m.SetEdns0(uint16(n), false)
		case "version":
			m.IsEdns0().SetVersion(uint8(n))
		case "opcode":
			m.Opcode = n
		case "do":
			m.IsEdns0().SetDo()
			err = nil
		case "rd":
			m.RecursionDesired, err = true, nil
		case "cd":
			m.CheckingDisabled, err = true, nil
		default:
			t.Fatalf("no such word: %s", word)
		}
		require.NoError(t, err)
	}
	return m
}

func (s server) ask(t testing.TB, network, text string) *dns.Msg {
	t.Helper()
	return s.exchange(t, network, question(t, text))
}

func (s server) exchange(t testing.TB, network string, m *dns.Msg) *dns.Msg {
	t.Helper()
	client := dns.Client{Net: network, Timeout: 5 * time.Second, UDPSize: dns.MaxMsgSize}
	answer, _, err := client.Exchange(m, s.address)
	require.NoError(t, err)
	return answer
}

// show is an answer in one line, as short as it can be.
func show(m *dns.Msg) string {
	words := []string{dns.RcodeToString[m.Rcode]}
	if m.Rcode == dns.RcodeBadVers {
		words[0] = "BADVERS" // the library has another name for the number, from TSIG
	}
	for flag, set := range map[string]bool{"aa": m.Authoritative, "tc": m.Truncated, "rd": m.RecursionDesired, "ra": m.RecursionAvailable, "cd": m.CheckingDisabled, "ad": m.AuthenticatedData, "z": m.Zero} {
		if set {
			words = append(words, flag)
		}
	}
	slices.Sort(words[1:])
	for _, s := range []struct {
		mark string
		rrs  []dns.RR
	}{{"", m.Answer}, {"authority:", m.Ns}, {"additional:", m.Extra}} {
		for _, rr := range s.rrs {
			if opt, ok := rr.(*dns.OPT); ok {
				words = append(words, fmt.Sprintf("edns=%d", opt.UDPSize()))
				if opt.Do() {
					words = append(words, "do")
				}
				continue
			}
			words = append(words, s.mark+strings.Join(strings.Fields(rr.String()), " "))
		}
	}
	return strings.Join(words, " | ")
}

// raw sends bytes over UDP and returns what comes in a short while.
func (s server) raw(t testing.TB, packet []byte) [][]byte {
	t.Helper()
	c, err := net.Dial("udp", s.address)
	require.NoError(t, err)
	defer c.Close() //nolint:errcheck // only a test's
	_, err = c.Write(packet)
	require.NoError(t, err)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
	var all [][]byte
	for {
		b := make([]byte, 65536)
		n, err := c.Read(b)
		if err != nil {
			return all
		}
		all = append(all, b[:n])
	}
}
