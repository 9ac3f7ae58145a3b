package dnsserver_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"plane/adapters/dnsserver"
)

const (
	soa    = "authority:acme.example. 0 IN SOA ns.acme.example. hostmaster.acme.example. 1 3600 600 86400 0"
	nodata = "NOERROR | aa | " + soa
	both   = `c1.mysite.com.acme.example. 1 IN TXT "base" | c1.mysite.com.acme.example. 1 IN TXT "wildcard"`
)

var longName = strings.Repeat(strings.Repeat("a", 60)+".", 3) + "b.acme.example"

var questions = []struct{ name, question, answer string }{
	{"right type", "c1.mysite.com.acme.example TXT", "NOERROR | aa | " + both},
	{"wrong type", "c1.mysite.com.acme.example A", nodata},
	{"odd case", "c1.MYSITE.com.Acme.exAmple TXT", `NOERROR | aa | c1.MYSITE.com.Acme.exAmple. 1 IN TXT "base" | c1.MYSITE.com.Acme.exAmple. 1 IN TXT "wildcard"`},
	{"nobody can say", "away.test.acme.example TXT", "SERVFAIL"},
	{"nobody need say", "away.test.acme.example A", nodata},
	{"EDNS", "c1.mysite.com.acme.example TXT edns=4096", "NOERROR | aa | " + both + " | edns=1232"},
	{"EDNS, with DO", "c1.mysite.com.acme.example TXT edns=1232 do", "NOERROR | aa | " + both + " | edns=1232 | do"},
	{"EDNS, less than the least", "c1.mysite.com.acme.example TXT edns=1", "NOERROR | aa | " + both + " | edns=1232"},
	{"EDNS of the future", "c1.mysite.com.acme.example TXT edns=1232 version=1", "BADVERS | edns=1232"},
	{"recursion desired", "c1.mysite.com.acme.example TXT rd", "NOERROR | aa | rd | " + both},
	{"checking disabled", "c1.mysite.com.acme.example CAA cd", "NOERROR | aa | cd | " + soa},
	{"a long name", longName + " TXT", nodata},
	{"a long name, too long for a cluster's label", "_" + longName + " TXT", "NXDOMAIN | aa | " + soa},
	{"outside the zone", "example.com TXT", "REFUSED"},
	{"the root", ". NS", "REFUSED"},
	{"ANY", "c1.mysite.com.acme.example ANY", `NOERROR | aa | c1.mysite.com.acme.example. 3600 IN HINFO "RFC8482" ""`},
	{"CAA", "c1.mysite.com.acme.example CAA", nodata},
	{"NS", "acme.example NS", "NOERROR | aa | acme.example. 3600 IN NS ns.acme.example. | additional:ns.acme.example. 3600 IN A 192.0.2.1 | additional:ns.acme.example. 3600 IN AAAA 2001:db8::1"},
	{"NS, with EDNS", "acme.example NS edns=1232", "NOERROR | aa | acme.example. 3600 IN NS ns.acme.example. | additional:ns.acme.example. 3600 IN A 192.0.2.1 | additional:ns.acme.example. 3600 IN AAAA 2001:db8::1 | edns=1232"},
	{"SOA", "acme.example SOA", "NOERROR | aa | acme.example. 3600 IN SOA ns.acme.example. hostmaster.acme.example. 1 3600 600 86400 0"},
	{"A of the name server", "ns.acme.example A", "NOERROR | aa | ns.acme.example. 3600 IN A 192.0.2.1"},
	{"AAAA of the name server", "ns.acme.example AAAA", "NOERROR | aa | ns.acme.example. 3600 IN AAAA 2001:db8::1"},
	{"an empty non-terminal", "com.acme.example A", nodata},
	{"what is not there", "_dmarc.acme.example TXT", "NXDOMAIN | aa | " + soa},
	{"a transfer", "acme.example AXFR", "REFUSED"},
	{"another class", "version.bind TXT class=CH", "REFUSED"},
	{"another operation", "acme.example SOA opcode=4", "NOTIMP"},
	{"an update", "acme.example SOA opcode=5", "NOTIMP"},
	{"values that need care", "odd.test.acme.example TXT edns=1232", `NOERROR | aa | odd.test.acme.example. 1 IN TXT "back\\slash \"quoted\" \000\255" | odd.test.acme.example. 1 IN TXT "` +
		strings.Repeat("long ", 51) + `" "` + strings.TrimSuffix(strings.Repeat("long ", 9), " ") + ` " | edns=1232`},
}

// Shortfall 13: every question has its answer, over UDP and TCP.
func TestShortfall13EveryQuestionHasItsAnswer(t *testing.T) {
	s := start(t, nil, "acme.example")
	for _, c := range questions {
		for _, network := range []string{"udp", "tcp"} {
			t.Run(c.name+" "+network, func(t *testing.T) {
				require.Equal(t, strings.Join(strings.Fields(c.answer), " "), strings.Join(strings.Fields(show(s.ask(t, network, c.question))), " "))
			})
		}
	}
}

func TestWithoutAZone(t *testing.T) {
	s := start(t, nil, "")
	require.Equal(t, `NOERROR | aa | _acme-challenge.c1.mysite.com. 1 IN TXT "base" | _acme-challenge.c1.mysite.com. 1 IN TXT "wildcard"`, show(s.ask(t, "udp", "_acme-challenge.c1.mysite.com TXT")))
	require.Equal(t, "REFUSED", show(s.ask(t, "udp", "c1.mysite.com TXT")))
}

func TestTheQuestionComesBackAsItWasSpelled(t *testing.T) {
	s := start(t, nil, "acme.example")
	m := question(t, "C1.MySite.com.ACME.example TXT")
	for _, network := range []string{"udp", "tcp"} {
		answer := s.exchange(t, network, m)
		require.Equal(t, m.Question, answer.Question)
		require.Equal(t, m.Id, answer.Id)
	}
}

func TestWhatIsTooLongForUDPComesByTCP(t *testing.T) {
	s := start(t, nil, "acme.example")
	for _, c := range []struct {
		question, answer string
		most             int
	}{
		{"many.test.acme.example TXT", "NOERROR | aa | tc", 512},
		{"many.test.acme.example TXT edns=4096", "NOERROR | aa | tc | edns=1232", 1232},
		{"huge.test.acme.example TXT edns=65535", "NOERROR | aa | tc | edns=1232", 1232},
	} {
		answer := s.ask(t, "udp", c.question)
		require.Equal(t, c.answer, show(answer))
		require.LessOrEqual(t, answer.Len(), 60, "no amplification")
		whole := s.ask(t, "tcp", c.question)
		require.False(t, whole.Truncated)
		require.GreaterOrEqual(t, len(whole.Answer), 100)
	}
}

// No UDP answer is much longer than its question.
func TestThereIsNoAmplificationWorthHaving(t *testing.T) {
	s := start(t, nil, "acme.example")
	for _, c := range questions {
		if strings.HasPrefix(c.question, "odd.") {
			continue // a test's
		}
		q := question(t, c.question)
		require.LessOrEqual(t, s.exchange(t, "udp", q).Len(), 4*q.Len()+60, c.question)
	}
}

func TestMalformedPackets(t *testing.T) {
	s := start(t, nil, "acme.example")
	good, err := question(t, "acme.example SOA").Pack()
	require.NoError(t, err)
	edns, err := question(t, "acme.example SOA edns=1232").Pack()
	require.NoError(t, err)
	change := func(packet []byte, at int, to ...byte) []byte {
		p := append([]byte(nil), packet...)
		copy(p[at:], to)
		return p
	}
	const formErr, notImp, silence = dns.RcodeFormatError, dns.RcodeNotImplemented, -1
	for name, c := range map[string]struct {
		packet []byte
		rcode  int
	}{
		"nothing":                      {nil, silence},
		"half a header":                {good[:11], silence},
		"a response":                   {change(good, 2, 0x80), silence},
		"a header without question":    {good[:12], formErr},
		"half a question":              {good[:20], formErr},
		"no question":                  {change(good[:12], 4, 0, 0), formErr},
		"two questions":                {change(good, 4, 0, 2), formErr},
		"an answer in a question":      {change(good, 6, 0, 1), formErr},
		"a name that points to itself": {change(good, 12, 0xC0, 12), formErr},
		"a label that is too long":     {change(good, 12, 0x7F), formErr},
		"two OPT":                      {append(change(edns, 10, 0, 2), edns[len(edns)-11:]...), formErr},
		"OPT at a name":                {append(change(good, 10, 0, 1), append([]byte{1, 'x'}, edns[len(edns)-11:]...)...), formErr},
		"another operation":            {change(good, 2, 0x10), notImp},
	} {
		t.Run(name, func(t *testing.T) {
			answers := s.raw(t, c.packet)
			if c.rcode == silence {
				require.Empty(t, answers)
				return
			}
			require.Len(t, answers, 1)
			var m dns.Msg
			require.NoError(t, m.Unpack(answers[0]))
			require.Equal(t, dns.RcodeToString[c.rcode], dns.RcodeToString[m.Rcode])
			require.True(t, m.Response)
			require.LessOrEqual(t, len(answers[0]), max(len(c.packet), 12))
		})
	}
	require.Equal(t, "NOERROR", dns.RcodeToString[s.ask(t, "udp", "acme.example SOA").Rcode], "it goes on")
}

func TestAConnectionBringsManyQuestions(t *testing.T) {
	s := start(t, func(c *dnsserver.Config) { c.MaxPerConnection = 3 }, "acme.example")
	c, err := net.Dial("tcp", s.address)
	require.NoError(t, err)
	defer c.Close() //nolint:errcheck // test over
	packet, err := question(t, "acme.example SOA").Pack()
	require.NoError(t, err)
	framed := append(binary.BigEndian.AppendUint16(nil, uint16(len(packet))), packet...)
	_, err = c.Write([]byte(strings.Repeat(string(framed), 5))) // all at once
	require.NoError(t, err)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(5*time.Second)))
	conn := dns.Conn{Conn: c}
	for range 3 {
		m, err := conn.ReadMsg()
		require.NoError(t, err)
		require.Equal(t, dns.RcodeSuccess, m.Rcode)
	}
	_, err = conn.ReadMsg()
	require.Error(t, err, "and not without end")
}

func TestASilentConnectionIsClosed(t *testing.T) {
	s := start(t, func(c *dnsserver.Config) { c.ReadTimeout = 50 * time.Millisecond }, "acme.example")
	for _, begin := range []string{"", "\x00", "\x00\x20abc"} {
		c, err := net.Dial("tcp", s.address)
		require.NoError(t, err)
		_, err = c.Write([]byte(begin))
		require.NoError(t, err)
		require.NoError(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
		_, err = c.Read(make([]byte, 1))
		require.True(t, errors.Is(err, io.EOF) || strings.Contains(err.Error(), "reset"), "%v", err)
		require.NoError(t, c.Close())
	}
}

func TestANetworkBeyondTheRateIsToldToComeByTCP(t *testing.T) {
	s := start(t, func(c *dnsserver.Config) { c.RateLimit = 10 }, "acme.example")
	c, err := net.Dial("udp", s.address)
	require.NoError(t, err)
	defer c.Close() //nolint:errcheck // test over
	packet, err := question(t, "c1.mysite.com.acme.example TXT edns=1232").Pack()
	require.NoError(t, err)
	for range 30 {
		_, err := c.Write(packet)
		require.NoError(t, err)
	}
	require.NoError(t, c.SetReadDeadline(time.Now().Add(300*time.Millisecond)))
	whole, truncated := 0, 0
	for b := make([]byte, 2000); ; {
		n, err := c.Read(b)
		if err != nil {
			break
		}
		var m dns.Msg
		require.NoError(t, m.Unpack(b[:n]))
		require.Equal(t, "c1.mysite.com.acme.example.", m.Question[0].Name)
		if m.Truncated {
			truncated++
			require.LessOrEqual(t, n, len(packet))
		} else {
			whole++
		}
	}
	require.GreaterOrEqual(t, whole, 10)
	require.Less(t, whole, 20)
	require.GreaterOrEqual(t, truncated, 4)
	require.LessOrEqual(t, truncated, 10, "every second of those beyond")
	require.Positive(t, s.Counts().Limited)
	require.Len(t, s.ask(t, "tcp", "c1.mysite.com.acme.example TXT").Answer, 2, "over TCP nobody can ask for another")
}

func TestConfigurationsThatAreRefused(t *testing.T) {
	for want, change := range map[string]func(*dnsserver.Config){
		"rate limit: want 0": func(c *dnsserver.Config) { c.RateLimit = -1 },
		"every limit":        func(c *dnsserver.Config) { c.MaxConnections = 0 },
		"every time":         func(c *dnsserver.Config) { c.IdleTimeout = 0 },
	} {
		cfg := dnsserver.DefaultConfig()
		change(&cfg)
		require.ErrorContains(t, cfg.Validate(), want)
	}
}
