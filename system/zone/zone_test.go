package zone_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"plane/system/zone"
)

var types = map[string]zone.Type{
	"A": zone.A, "AAAA": zone.AAAA, "NS": zone.NS, "SOA": zone.SOA, "TXT": zone.TXT, "ANY": zone.ANY, "HINFO": zone.HINFO,
	"AXFR": zone.AXFR, "IXFR": zone.IXFR, "OPT": zone.OPT, "TSIG": zone.TSIG, "MAILB": zone.MAILB,
	"CNAME": 5, "MX": 15, "DS": 43, "CAA": 257, "HTTPS": 65, "TYPE65280": 65280,
}

// values are what the clusters of the tests have.
var values = map[string][]string{
	"c1.mysite.com": {"base", "wildcard"},
	"single":        {"one"},
}

// ask answers a question "name type", as dig has it, in one line.
func ask(t *testing.T, z *zone.Zone, question string) string {
	t.Helper()
	owner, kind, _ := strings.Cut(question, " ")
	kind, class, _ := strings.Cut(kind, " ")
	q := zone.Question{Type: types[kind], Class: 1}
	require.NotZero(t, q.Type, kind)
	if class != "" {
		q.Class = map[string]uint16{"CH": 3, "ANY": 255}[class]
	}
	if owner != "." {
		q.Labels = strings.Split(owner, ".")
	}
	p := z.Ask(q)
	return show(p.With(values[p.Cluster]))
}

func show(a zone.Answer) string {
	codes := map[zone.RCode]string{0: "NOERROR", 1: "FORMERR", 2: "SERVFAIL", 3: "NXDOMAIN", 4: "NOTIMP", 5: "REFUSED"}
	out := codes[a.RCode]
	if a.Authoritative {
		out += " aa"
	}
	for _, section := range []struct {
		mark    string
		records []zone.Record
	}{{"", a.Records}, {"authority:", a.Authority}, {"additional:", a.Additional}} {
		for _, r := range section.records {
			out += " | " + section.mark + record(r)
		}
	}
	return out
}

func record(r zone.Record) string {
	data := map[zone.Type]string{zone.TXT: r.Value, zone.HINFO: r.Value, zone.NS: r.Host, zone.SOA: r.Host + " " + r.Mail, zone.A: r.Addr.String(), zone.AAAA: r.Addr.String()}[r.Type]
	for name, n := range types {
		if n == r.Type {
			return fmt.Sprintf("%s %d %s %s", r.Name, r.TTL, name, data)
		}
	}
	return "unknown type"
}

const (
	soa     = "acme.example. 0 SOA ns.acme.example. hostmaster.acme.example."
	nodata  = "NOERROR aa | authority:" + soa
	missing = "NXDOMAIN aa | authority:" + soa
)

var withZone = []struct{ name, question, answer string }{
	{"a challenge", "c1.mysite.com.acme.example TXT", "NOERROR aa | c1.mysite.com.acme.example. 1 TXT base | c1.mysite.com.acme.example. 1 TXT wildcard"},
	{"a cluster of one label", "single.acme.example TXT", "NOERROR aa | single.acme.example. 1 TXT one"},
	{"odd case, told as asked", "C1.mySite.COM.aCmE.eXaMpLe TXT", "NOERROR aa | C1.mySite.COM.aCmE.eXaMpLe. 1 TXT base | C1.mySite.COM.aCmE.eXaMpLe. 1 TXT wildcard"},
	{"odd case, nothing there", "nobody.ACME.Example TXT", "NOERROR aa | authority:ACME.Example. 0 SOA ns.ACME.Example. hostmaster.ACME.Example."},
	{"a cluster without challenges", "c2.mysite.com.acme.example TXT", nodata},
	{"another type at a challenge", "c1.mysite.com.acme.example A", nodata},
	{"CAA is no data", "c1.mysite.com.acme.example CAA", nodata},
	{"CAA at the apex", "acme.example CAA", nodata},
	{"CNAME", "c1.mysite.com.acme.example CNAME", nodata},
	{"a type that nobody knows", "c1.mysite.com.acme.example TYPE65280", nodata},
	{"an empty non-terminal", "mysite.com.acme.example A", nodata},
	{"an empty non-terminal, asked for TXT", "com.acme.example TXT", nodata},
	{"an empty non-terminal, asked for NS", "com.acme.example NS", nodata},
	{"SOA below the apex", "com.acme.example SOA", nodata},
	{"below a challenge", "deeper.c1.mysite.com.acme.example TXT", nodata},
	{"what no cluster is called", "_dmarc.acme.example TXT", missing},
	{"below what no cluster is called", "c1._dmarc.acme.example TXT", missing},
	{"a wildcard is no cluster", "*.mysite.com.acme.example TXT", missing},
	{"a label that begins with a hyphen", "-c.acme.example A", missing},
	{"SOA", "acme.example SOA", "NOERROR aa | acme.example. 3600 SOA ns.acme.example. hostmaster.acme.example."},
	{"NS", "acme.example NS", "NOERROR aa | acme.example. 3600 NS ns.acme.example. | additional:ns.acme.example. 3600 A 192.0.2.1 | additional:ns.acme.example. 3600 AAAA 2001:db8::1"},
	{"the address of the name server", "ns.acme.example A", "NOERROR aa | ns.acme.example. 3600 A 192.0.2.1"},
	{"its other address", "NS.acme.example AAAA", "NOERROR aa | NS.acme.example. 3600 AAAA 2001:db8::1"},
	{"TXT at the name server", "ns.acme.example TXT", nodata},
	{"A at the apex", "acme.example A", nodata},
	{"TXT at the apex", "acme.example TXT", nodata},
	{"DS is the parent's", "acme.example DS", nodata},
	{"ANY at the apex", "acme.example ANY", "NOERROR aa | acme.example. 3600 HINFO RFC8482"},
	{"ANY at a challenge", "c1.mysite.com.acme.example ANY", "NOERROR aa | c1.mysite.com.acme.example. 3600 HINFO RFC8482"},
	{"ANY where nothing is", "_x.acme.example ANY", missing},
	{"outside the zone", "example TXT", "REFUSED"},
	{"a zone with the same end", "notacme.example TXT", "REFUSED"},
	{"the root", ". NS", "REFUSED"},
	{"_acme-challenge itself, while there is a zone", "_acme-challenge.c1.mysite.com TXT", "REFUSED"},
	{"a transfer", "acme.example AXFR", "REFUSED"},
	{"an incremental transfer", "acme.example IXFR", "REFUSED"},
	{"another class", "version.bind TXT CH", "REFUSED"},
	{"any class", "acme.example SOA ANY", "REFUSED"},
	{"OPT is no question", "acme.example OPT", "FORMERR"},
	{"TSIG is no question", "acme.example TSIG", "FORMERR"},
	{"MAILB", "acme.example MAILB", "NOTIMP"},
}

// Shortfall 13: every type has its answer, and case makes no difference.
func TestShortfall13AnswersOfAZone(t *testing.T) {
	z, err := zone.New(zone.Config{Zone: "Acme.Example.", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}})
	require.NoError(t, err)
	for _, c := range withZone {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.answer, ask(t, z, c.question)) })
	}
}

func TestAnswersWithoutAZone(t *testing.T) {
	z, err := zone.New(zone.Config{Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}})
	require.NoError(t, err)
	const (
		top = "_acme-challenge.c1.mysite.com"
		soa = "authority:" + top + ". 0 SOA ns." + top + ". hostmaster." + top + "."
	)
	for _, c := range []struct{ name, question, answer string }{
		{"a challenge", top + " TXT", "NOERROR aa | " + top + ". 1 TXT base | " + top + ". 1 TXT wildcard"},
		{"odd case", "_ACME-challenge.c1.mysite.COM TXT", "NOERROR aa | _ACME-challenge.c1.mysite.COM. 1 TXT base | _ACME-challenge.c1.mysite.COM. 1 TXT wildcard"},
		{"no challenge", "_acme-challenge.c2.mysite.com TXT", "NOERROR aa | authority:_acme-challenge.c2.mysite.com. 0 SOA ns._acme-challenge.c2.mysite.com. hostmaster._acme-challenge.c2.mysite.com."},
		{"another type", top + " CAA", "NOERROR aa | " + soa},
		{"SOA", top + " SOA", "NOERROR aa | " + top + ". 3600 SOA ns." + top + ". hostmaster." + top + "."},
		{"NS", top + " NS", "NOERROR aa | " + top + ". 3600 NS ns." + top + ". | additional:ns." + top + ". 3600 A 192.0.2.1"},
		{"the name server", "ns." + top + " A", "NOERROR aa | ns." + top + ". 3600 A 192.0.2.1"},
		{"below it", "x." + top + " TXT", "NXDOMAIN aa | " + soa},
		{"the cluster itself", "c1.mysite.com TXT", "REFUSED"},
		{"no cluster", "_acme-challenge TXT", "REFUSED"},
		{"what no cluster is called", "_acme-challenge._tcp.mysite.com TXT", "REFUSED"},
		{"a name under which there is no room", "_acme-challenge." + strings.Repeat("a23456789.", 22) + "mysite.com TXT", "REFUSED"},
		{"the root", ". SOA", "REFUSED"},
	} {
		t.Run(c.name, func(t *testing.T) { require.Equal(t, c.answer, ask(t, z, c.question)) })
	}
}

// A resolver that minimises asks for each name on the way. One that is told that
// a name does not exist does not ask for what is below (RFC 8020).
func TestNothingOnTheWayToAChallengeIsSaidNotToExist(t *testing.T) {
	z, err := zone.New(zone.Config{Zone: "acme.example"})
	require.NoError(t, err)
	for _, cluster := range []string{"c1.mysite.com", "single", "a.b.c.d.e.f.example.co.uk", "xn--bcher-kva.example", "1.2.3"} {
		labels := strings.Split(cluster, ".")
		for i := range labels {
			for kind := range types {
				if kind == "OPT" || kind == "TSIG" || kind == "MAILB" || strings.HasSuffix(kind, "XFR") {
					continue
				}
				question := strings.Join(labels[i:], ".") + ".acme.example " + kind
				require.True(t, strings.HasPrefix(ask(t, z, question), "NOERROR aa"), question)
			}
		}
	}
}

func TestNameServersAndContact(t *testing.T) {
	z, err := zone.New(zone.Config{
		Zone: "acme.example", Names: []string{"ns1.acme.example.", "Dns.Other.Net"}, Contact: "dns.admin@mysite.com",
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")},
	})
	require.NoError(t, err)
	require.Equal(t, "NOERROR aa | acme.example. 3600 SOA ns1.acme.example. dns\\.admin.mysite.com.", ask(t, z, "acme.example SOA"))
	require.Equal(t, "NOERROR aa | acme.example. 3600 NS ns1.acme.example. | acme.example. 3600 NS dns.other.net. | additional:ns1.acme.example. 3600 A 192.0.2.1", ask(t, z, "acme.example NS"))
	require.Equal(t, "NOERROR aa | ns1.acme.example. 3600 A 192.0.2.1", ask(t, z, "ns1.acme.example A"))
	require.Equal(t, "REFUSED", ask(t, z, "dns.other.net A"), "a name server outside the zone is none of ours")
}

func TestConfigurationsThatAreRefused(t *testing.T) {
	for want, c := range map[string]zone.Config{
		`zone: "a..b" is no DNS name`:                  {Zone: "a..b"},
		`zone: "acme.example:53" is no DNS name`:       {Zone: "acme.example:53"},
		`zone: "192.0.2.1" is no DNS name`:             {Zone: "192.0.2.1"},
		`zone: "[::1]" is no DNS name`:                 {Zone: "[::1]"},
		`the name has 245 characters`:                  {Zone: strings.Repeat("a23456789.", 23) + "mysite.example"},
		`name server: "_ns.x" is no DNS name`:          {Zone: "a", Names: []string{"_ns.x"}},
		`contact: "nobody" is no mail address`:         {Contact: "nobody"},
		`contact: "a b@c.d" is no mail address`:        {Contact: "a b@c.d"},
		`contact: "a@" is no mail address`:             {Contact: "a@"},
		`0.0.0.0 is none that resolvers could ask`:     {Addresses: []netip.Addr{netip.MustParseAddr("0.0.0.0")}},
		`fe80::1%eth0 is none that resolvers could as`: {Addresses: []netip.Addr{netip.MustParseAddr("fe80::1%eth0")}},
	} {
		_, err := zone.New(c)
		require.ErrorContains(t, err, want)
	}
	_, err := zone.ParseAddresses([]string{"192.0.2.1", "ns.example"})
	require.ErrorContains(t, err, `"ns.example" is no IP address`)
}

func TestWhoCannotBeAskedIsNoReasonForSilence(t *testing.T) {
	z, err := zone.New(zone.Config{Zone: "acme.example"})
	require.NoError(t, err)
	p := z.Ask(zone.Question{Labels: []string{"C1", "acme", "example"}, Type: zone.TXT, Class: 1})
	require.Equal(t, "c1", p.Cluster)
	require.Equal(t, "SERVFAIL", show(p.Unavailable()))
}

func TestMoreValuesThanAMessageHoldsAreLeftOut(t *testing.T) {
	z, err := zone.New(zone.Config{Zone: "acme.example"})
	require.NoError(t, err)
	p := z.Ask(zone.Question{Labels: []string{"c1", "acme", "example"}, Type: zone.TXT, Class: 1})
	a := p.With([]string{strings.Repeat("a", zone.MaxValues*99/100-100), "b", "c", strings.Repeat("d", 1000)})
	require.Len(t, a.Records, 3)
}
