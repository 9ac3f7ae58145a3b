package dnscheck_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"plane/adapters/dnscheck"
	"plane/system/name"
)

// records is what is right: the user's zone mysite.com, and the delegation in
// it.
const records = `
mysite.com. 300 IN SOA ns.host.example. me.mysite.com. 1 2 3 4 5
c1.mysite.com. 300 IN A 203.0.113.5
c1.mysite.com. 300 IN AAAA 2001:db8::5
*.c1.mysite.com. 300 IN CNAME c1.mysite.com.
_acme-challenge.c1.mysite.com. 300 IN CNAME c1.mysite.com.acme.mysite.com.
ns-acme.mysite.com. 300 IN A 127.0.0.53
acme.mysite.com. 300 IN NS ns-acme.mysite.com.
`

const receiverAddress = "127.0.0.53"

// world is a resolver that knows records, and a receiver for acme.mysite.com.
type world struct {
	t        *testing.T
	records  string
	silent   map[string]bool // networks over which the receiver does not answer
	receiver func(q dns.Question, m *dns.Msg)
	port     int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return &world{t: t, records: records, silent: map[string]bool{}, receiver: receiver}
}

// receiver answers as plane dns does.
func receiver(q dns.Question, m *dns.Msg) {
	m.Authoritative = true
	soa, _ := dns.NewRR("acme.mysite.com. 1 IN SOA ns-acme.mysite.com. root.mysite.com. 1 2 3 4 1")
	switch q.Qtype {
	case dns.TypeSOA:
		m.Answer = append(m.Answer, soa)
	case dns.TypeNS:
		rr, _ := dns.NewRR("acme.mysite.com. 1 IN NS ns-acme.mysite.com.")
		m.Answer = append(m.Answer, rr)
	case dns.TypeTXT:
		rr, _ := dns.NewRR(q.Name + ` 1 IN TXT "value"`)
		m.Answer = append(m.Answer, rr)
	default:
		m.Ns = append(m.Ns, soa)
	}
}

// start listens on one port of two addresses, over UDP and TCP.
func (w *world) start() {
	w.t.Helper()
	for range 100 {
		if w.bind() {
			return
		}
	}
	w.t.Fatal("no port is free")
}

func (w *world) bind() bool {
	w.t.Helper()
	var servers []*dns.Server
	port := "0"
	for _, address := range []string{"127.0.0.1", receiverAddress} {
		handler := dns.HandlerFunc(w.resolve)
		if address == receiverAddress {
			handler = w.receive
		}
		packets, err := net.ListenPacket("udp", net.JoinHostPort(address, port))
		if err != nil {
			return false
		}
		w.t.Cleanup(func() { packets.Close() })
		port = strconv.Itoa(packets.LocalAddr().(*net.UDPAddr).Port)
		stream, err := net.Listen("tcp", net.JoinHostPort(address, port))
		if err != nil {
			return false
		}
		w.t.Cleanup(func() { stream.Close() })
		servers = append(servers, &dns.Server{PacketConn: packets, Handler: handler}, &dns.Server{Listener: stream, Handler: handler})
	}
	for _, s := range servers {
		go s.ActivateAndServe()
	}
	w.port, _ = strconv.Atoi(port)
	return true
}

// receive answers for the receiver.
func (w *world) receive(out dns.ResponseWriter, q *dns.Msg) {
	if w.silent[out.RemoteAddr().Network()] {
		return
	}
	m := new(dns.Msg).SetReply(q)
	w.receiver(q.Question[0], m)
	out.WriteMsg(m)
}

// resolve answers for the resolver: from the records, and below acme.mysite.com,
// when that is delegated, as the receiver does.
func (w *world) resolve(out dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg).SetReply(q)
	m.RecursionAvailable = true
	w.find(q.Question[0], m, 0)
	out.WriteMsg(m)
}

func (w *world) find(q dns.Question, m *dns.Msg, depth int) {
	if q.Name == "." || depth > 10 {
		return
	}
	if dns.IsSubDomain("acme.mysite.com.", q.Name) && strings.Contains(w.records, "\nacme.mysite.com. 300 IN NS") {
		if w.silent["udp"] && w.silent["tcp"] {
			m.Rcode = dns.RcodeServerFailure
			return
		}
		w.receiver(q, m)
		m.Authoritative = false
		return
	}
	var exists bool
	owners := []string{q.Name, "*." + parent(q.Name)}
	for _, owner := range owners {
		for _, rr := range w.parsed() {
			if !strings.EqualFold(rr.Header().Name, owner) {
				continue
			}
			exists = true
			rr.Header().Name = q.Name
			if cname, ok := rr.(*dns.CNAME); ok && q.Qtype != dns.TypeCNAME {
				m.Answer = append(m.Answer, rr)
				w.find(dns.Question{Name: cname.Target, Qtype: q.Qtype, Qclass: q.Qclass}, m, depth+1)
				return
			}
			if rr.Header().Rrtype == q.Qtype {
				m.Answer = append(m.Answer, rr)
			}
		}
		if exists {
			break
		}
	}
	inBetween := func(rr dns.RR) bool { return dns.IsSubDomain(q.Name, rr.Header().Name) }
	if !exists && !slices.ContainsFunc(w.parsed(), inBetween) {
		m.Rcode = dns.RcodeNameError
	}
	if len(m.Answer) == 0 {
		m.Ns = append(m.Ns, w.parsed()[0])
	}
}

func parent(fqdn string) string { _, rest, _ := strings.Cut(fqdn, "."); return rest }

func (w *world) parsed() (all []dns.RR) {
	zone := dns.NewZoneParser(strings.NewReader(w.records), ".", "")
	for rr, ok := zone.Next(); ok; rr, ok = zone.Next() {
		all = append(all, rr)
	}
	if zone.Err() != nil {
		panic(zone.Err())
	}
	return all
}

func (w *world) checker() dnscheck.Checker {
	return dnscheck.Checker{
		Cluster: name.Cluster{Host: "c1.mysite.com", Port: 443}, Zone: "acme.mysite.com", Authority: "letsencrypt.org",
		Resolver: net.JoinHostPort("127.0.0.1", strconv.Itoa(w.port)), Port: w.port, Patience: 1500 * time.Millisecond,
	}
}

// findings are in lines, those that are wrong marked with a !.
func (w *world) findings() string {
	w.t.Helper()
	w.start()
	all, err := w.checker().Run(w.t.Context())
	require.NoError(w.t, err)
	var text strings.Builder
	for _, f := range all {
		mark := "!"
		if f.OK {
			mark = "="
			require.Empty(w.t, f.Add, "nothing is to be added")
		}
		fmt.Fprintf(&text, "%s %s: %s | %s\n", mark, f.Record, f.Text, f.Add)
	}
	return text.String()
}

func TestEverythingIsThere(t *testing.T) {
	require.Equal(t, `= A or AAAA c1.mysite.com: leads to 2001:db8::5, 203.0.113.5 | 
= A or AAAA *.c1.mysite.com: leads to 2001:db8::5, 203.0.113.5 | 
= CNAME _acme-challenge.c1.mysite.com: leads to c1.mysite.com.acme.mysite.com | 
= NS acme.mysite.com: is delegated to ns-acme.mysite.com | 
= A or AAAA ns-acme.mysite.com: leads to 127.0.0.53 | 
= SOA acme.mysite.com at 127.0.0.53 over UDP: answers with authority | 
= SOA acme.mysite.com at 127.0.0.53 over TCP: answers with authority | 
= TXT _acme-challenge.c1.mysite.com: the resolver gets an answer; values now: 1 | 
= CAA c1.mysite.com: any authority may issue certificates | 
`, newWorld(t).findings())
}

// without takes the record out that a line begins with, put puts others in.
func without(line string) func(*world) {
	return func(w *world) {
		for l := range strings.Lines(w.records) {
			if strings.HasPrefix(l, line) {
				w.records = strings.Replace(w.records, "\n"+l, "\n", 1)
				return
			}
		}
		panic("no such line: " + line)
	}
}

func put(line string) func(*world) {
	return func(w *world) { w.records += line + "\n" }
}

func answering(change func(q dns.Question, m *dns.Msg)) func(*world) {
	return func(w *world) {
		w.receiver = func(q dns.Question, m *dns.Msg) {
			receiver(q, m)
			change(q, m)
		}
	}
}

func TestWhatIsWrongIsSaid(t *testing.T) {
	noTCP := func(w *world) { w.silent["tcp"] = true }
	noUDP := func(w *world) { w.silent["udp"] = true }
	for _, c := range []struct {
		name string
		with []func(*world)
		want []string // lines that are wrong
	}{
		{
			"no address", []func(*world){without("c1.mysite.com. 300 IN A"), without("c1.mysite.com. 300 IN AAAA"), without("*.c1")},
			[]string{
				"! A or AAAA c1.mysite.com: no address: the name has no such record. It has to lead to your proxy, or to the balancer in front of your proxies | c1.mysite.com. 300 IN A <address of the proxy or balancer>",
				"! A or AAAA *.c1.mysite.com: no address: there is no such name. Backends with a subdomain have names below the cluster's | *.c1.mysite.com. 300 IN CNAME c1.mysite.com.",
			},
		},
		{
			"no wildcard", []func(*world){without("*.c1")},
			[]string{"! A or AAAA *.c1.mysite.com: no address: there is no such name. Backends with a subdomain have names below the cluster's | *.c1.mysite.com. 300 IN CNAME c1.mysite.com."},
		},
		{
			"a wildcard that leads elsewhere", []func(*world){without("*.c1"), put("*.c1.mysite.com. 300 IN A 203.0.113.9")},
			[]string{"! A or AAAA *.c1.mysite.com: leads to 203.0.113.9, which is not where c1.mysite.com leads | *.c1.mysite.com. 300 IN CNAME c1.mysite.com."},
		},
		{
			"no CNAME, and the wildcard answers", []func(*world){without("_acme")},
			[]string{"! CNAME _acme-challenge.c1.mysite.com: leads to c1.mysite.com: that is the wildcard's answer, it has no record of its own | _acme-challenge.c1.mysite.com. 300 IN CNAME c1.mysite.com.acme.mysite.com."},
		},
		{
			"a CNAME that leads elsewhere", []func(*world){without("_acme"), put("_acme-challenge.c1.mysite.com. 300 IN CNAME c2.mysite.com.acme.mysite.com.")},
			[]string{"! CNAME _acme-challenge.c1.mysite.com: leads to c2.mysite.com.acme.mysite.com, and not to c1.mysite.com.acme.mysite.com | _acme-challenge.c1.mysite.com. 300 IN CNAME c1.mysite.com.acme.mysite.com."},
		},
		{
			"a TXT record in place of the CNAME", []func(*world){without("_acme"), put(`_acme-challenge.c1.mysite.com. 300 IN TXT "old"`)},
			[]string{"! CNAME _acme-challenge.c1.mysite.com: there is no CNAME record, but a TXT record; take that away | _acme-challenge.c1.mysite.com. 300 IN CNAME c1.mysite.com.acme.mysite.com."},
		},
		{
			"no delegation", []func(*world){without("acme.mysite.com")},
			[]string{
				"! NS acme.mysite.com: is not delegated: there is no such name. Add records like these to the zone mysite.com | acme.mysite.com. 3600 IN NS ns.acme.mysite.com.",
				"! A ns.acme.mysite.com: the receiver needs a name with an address, here and in its --ns-address | ns.acme.mysite.com. 3600 IN A <address of the DNS receiver>",
				"! TXT _acme-challenge.c1.mysite.com: there is no such name (NXDOMAIN), so the authority would find no challenge | ",
			},
		},
		{
			"a name server without an address", []func(*world){without("ns-acme")},
			[]string{"! A or AAAA ns-acme.mysite.com: the server that the zone is delegated to has no address: there is no such name | ns-acme.mysite.com. 3600 IN A <address of the DNS receiver>"},
		},
		{
			"TCP is closed", []func(*world){noTCP},
			[]string{"! SOA acme.mysite.com at 127.0.0.53 over TCP: no answer in time: is plane dns running there, and TCP port PORT open to everybody? | "},
		},
		{
			"UDP is closed", []func(*world){noUDP},
			[]string{"! SOA acme.mysite.com at 127.0.0.53 over UDP: no answer in time: is plane dns running there, and UDP port PORT open to everybody? | "},
		},
		{
			"the receiver is down", []func(*world){noTCP, noUDP},
			[]string{
				"! NS acme.mysite.com: the resolver finds no answer (SERVFAIL): it is delegated, but no server that it is delegated to answers; is plane dns running there, with port 53 open for UDP and TCP? | ",
				"! TXT _acme-challenge.c1.mysite.com: the resolver finds no answer (SERVFAIL): the receiver cannot be reached from there, or has no controller | ",
			},
		},
		{
			"the receiver has no controller", []func(*world){answering(func(q dns.Question, m *dns.Msg) {
				if q.Qtype == dns.TypeTXT {
					m.Rcode, m.Answer = dns.RcodeServerFailure, nil
				}
			})},
			[]string{
				"! SOA acme.mysite.com at 127.0.0.53 over UDP: asked for a challenge it fails (SERVFAIL): it has no controller to ask; look at its log | ",
				"! SOA acme.mysite.com at 127.0.0.53 over TCP: asked for a challenge it fails (SERVFAIL): it has no controller to ask; look at its log | ",
				"! TXT _acme-challenge.c1.mysite.com: the resolver finds no answer (SERVFAIL): the receiver cannot be reached from there, or has no controller | ",
			},
		},
		{
			"the receiver has another zone", []func(*world){answering(func(q dns.Question, m *dns.Msg) {
				if q.Qtype == dns.TypeSOA {
					m.Rcode, m.Answer = dns.RcodeRefused, nil
				}
			})},
			[]string{
				"! SOA acme.mysite.com at 127.0.0.53 over UDP: it refuses to answer for this zone: it runs with another --zone | ",
				"! SOA acme.mysite.com at 127.0.0.53 over TCP: it refuses to answer for this zone: it runs with another --zone | ",
			},
		},
		{
			"something else listens there", []func(*world){answering(func(_ dns.Question, m *dns.Msg) { m.Authoritative = false })},
			[]string{
				"! SOA acme.mysite.com at 127.0.0.53 over UDP: it does not answer with authority: something else than plane dns listens there | ",
				"! SOA acme.mysite.com at 127.0.0.53 over TCP: it does not answer with authority: something else than plane dns listens there | ",
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			for _, change := range c.with {
				change(w)
			}
			var wrong []string
			for line := range strings.Lines(w.findings()) {
				if strings.HasPrefix(line, "!") {
					wrong = append(wrong, strings.ReplaceAll(strings.TrimSuffix(line, "\n"), "port "+strconv.Itoa(w.port), "port PORT"))
				}
			}
			require.Equal(t, c.want, wrong)
		})
	}
}

func TestAChainOfCNAMEsIsFine(t *testing.T) {
	w := newWorld(t)
	without("_acme")(w)
	put("_acme-challenge.c1.mysite.com. 300 IN CNAME between.mysite.com.")(w)
	put("between.mysite.com. 300 IN CNAME C1.mysite.com.Acme.mysite.com.")(w)
	require.Contains(t, w.findings(), "= CNAME _acme-challenge.c1.mysite.com: leads to c1.mysite.com.acme.mysite.com over 1 names in between")
}

func TestCAA(t *testing.T) {
	for _, c := range []struct {
		name    string
		records []string
		want    string
	}{
		{"allowed at the parent", []string{`mysite.com. 300 IN CAA 0 issue "letsencrypt.org"`}, "= CAA mysite.com: letsencrypt.org may issue certificates | "},
		{"another authority", []string{`mysite.com. 300 IN CAA 0 issue "other.example"`}, `! CAA mysite.com: forbids letsencrypt.org to issue certificates for c1.mysite.com by DNS-01 | mysite.com. 3600 IN CAA 0 issue "letsencrypt.org"`},
		{"nobody", []string{`c1.mysite.com. 300 IN CAA 0 issue ";"`}, `! CAA c1.mysite.com: forbids letsencrypt.org to issue certificates for c1.mysite.com by DNS-01 | c1.mysite.com. 3600 IN CAA 0 issue "letsencrypt.org"`},
		{"no wildcards", []string{`mysite.com. 300 IN CAA 0 issue "letsencrypt.org"`, `mysite.com. 300 IN CAA 0 issuewild ";"`}, `! CAA mysite.com: forbids letsencrypt.org to issue certificates for *.c1.mysite.com by DNS-01 | mysite.com. 3600 IN CAA 0 issuewild "letsencrypt.org"`},
		{"the nearest counts", []string{`mysite.com. 300 IN CAA 0 issue "other.example"`, `c1.mysite.com. 300 IN CAA 0 issue "LetsEncrypt.org"`}, "= CAA c1.mysite.com: letsencrypt.org may issue certificates | "},
		{"one of several", []string{`mysite.com. 300 IN CAA 0 issue "other.example"`, `mysite.com. 300 IN CAA 0 issue "letsencrypt.org; validationmethods=dns-01"`}, "= CAA mysite.com: letsencrypt.org may issue certificates | "},
		{"by another challenge only", []string{`mysite.com. 300 IN CAA 0 issue "letsencrypt.org; validationmethods=http-01"`}, `! CAA mysite.com: forbids letsencrypt.org to issue certificates for c1.mysite.com by DNS-01 | mysite.com. 3600 IN CAA 0 issue "letsencrypt.org"`},
		{"something else", []string{`mysite.com. 300 IN CAA 0 iodef "mailto:me@mysite.com"`}, "= CAA mysite.com: letsencrypt.org may issue certificates | "},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			for _, r := range c.records {
				put(r)(w)
			}
			require.Contains(t, w.findings(), c.want+"\n")
		})
	}
}

// A receiver without a zone is delegated the one name.
func TestWithoutAZone(t *testing.T) {
	w := newWorld(t)
	without("_acme")(w)
	w.start()
	c := w.checker()
	c.Zone = ""
	findings, err := c.Run(t.Context())
	require.NoError(t, err)
	var add []string
	for _, f := range findings {
		require.NotContains(t, f.Record, "CNAME")
		if f.Add != "" {
			add = append(add, f.Add)
		}
	}
	require.Equal(t, []string{
		"_acme-challenge.c1.mysite.com. 3600 IN NS acme-dns.c1.mysite.com.",
		"acme-dns.c1.mysite.com. 3600 IN A <address of the DNS receiver>",
	}, add)
}

func TestAResolverThatDoesNotAnswerIsAnError(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	require.NoError(t, err)
	defer silent.Close()
	c := newWorld(t).checker()
	c.Resolver, c.Patience = silent.LocalAddr().String(), 30*time.Millisecond
	_, err = c.Run(context.Background())
	require.ErrorContains(t, err, "the resolver "+c.Resolver+" does not answer")
}
