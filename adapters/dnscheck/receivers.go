package dnscheck

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

const silentServers = "it is delegated, but no server that it is delegated to answers; is plane dns running there, with port 53 open for UDP and TCP?"

// receivers looks whether the zone is delegated, to servers that have addresses
// and answer for it.
func (c Checker) receivers(ctx context.Context) []Finding {
	f := Finding{Record: "NS " + shown(c.apex())}
	answer, err := c.resolve(ctx, c.apex(), dns.TypeNS)
	servers := nameServers(answer, c.apex())
	switch {
	case err != nil: // it has answered other questions
		f.Text = "the resolver finds no answer (" + reason(err) + "): " + silentServers
	case len(servers) > 0:
		f.OK, f.Text = true, "is delegated to "+strings.Join(servers, ", ")
	case answer.Rcode == dns.RcodeServerFailure:
		f.Text = "the resolver finds no answer (SERVFAIL): " + silentServers
	default:
		f.Text = "is not delegated: " + absence(answer) + ". Add records like these" + inZone(answer)
		f.Add = c.apex() + " 3600 IN NS " + c.suggestedServer()
	}
	findings := []Finding{f}
	for _, server := range servers {
		findings = append(findings, c.receiver(ctx, server)...)
	}
	if len(servers) == 0 && f.Add != "" {
		findings = append(findings, Finding{
			Record: "A " + shown(c.suggestedServer()), Text: "the receiver needs a name with an address, here and in its --ns-address",
			Add: c.suggestedServer() + " 3600 IN A <address of the DNS receiver>",
		})
	}
	return findings
}

// suggestedServer is what plane dns calls itself unless told otherwise; without
// a zone it has to be told.
func (c Checker) suggestedServer() string {
	if c.delegatesAlone() {
		return "acme-dns." + c.base()
	}
	return "ns." + c.apex()
}

// inZone says which zone gave the answer, so that is where a record is missing.
func inZone(answer *dns.Msg) string {
	for _, rr := range answer.Ns {
		if rr.Header().Rrtype == dns.TypeSOA {
			return " to the zone " + shown(rr.Header().Name)
		}
	}
	return ""
}

func nameServers(answer *dns.Msg, apex string) (servers []string) {
	if answer == nil {
		return nil
	}
	for _, rr := range answer.Answer {
		if ns, ok := rr.(*dns.NS); ok && strings.EqualFold(ns.Hdr.Name, apex) {
			servers = append(servers, shown(dns.CanonicalName(ns.Ns)))
		}
	}
	slices.Sort(servers)
	return servers
}

// receiver asks one server that the zone is delegated to.
func (c Checker) receiver(ctx context.Context, server string) []Finding {
	addresses, problem := c.lookup(ctx, dns.Fqdn(server))
	f := Finding{Record: "A or AAAA " + server}
	if len(addresses) == 0 {
		f.Text = "the server that the zone is delegated to has no address: " + problem
		f.Add = dns.Fqdn(server) + " 3600 IN A <address of the DNS receiver>"
		return []Finding{f}
	}
	f.OK, f.Text = true, "leads to "+strings.Join(addresses, ", ")
	findings := []Finding{f}
	for _, address := range addresses {
		for _, network := range []string{"udp", "tcp"} {
			findings = append(findings, c.speaksFor(ctx, network, address))
		}
	}
	return findings
}

// speaksFor asks a server for the zone's SOA, and then for a challenge.
func (c Checker) speaksFor(ctx context.Context, network, address string) Finding {
	server := net.JoinHostPort(address, strconv.Itoa(c.port()))
	f := Finding{Record: fmt.Sprintf("SOA %s at %s over %s", shown(c.apex()), address, strings.ToUpper(network))}
	ask := func(name string, kind uint16) (*dns.Msg, error) {
		q := new(dns.Msg).SetQuestion(name, kind)
		q.RecursionDesired = false
		return c.exchange(ctx, network, server, q)
	}
	answer, err := ask(c.apex(), dns.TypeSOA)
	switch {
	case err != nil:
		f.Text = fmt.Sprintf("%s: is plane dns running there, and %s port %d open to everybody?", reason(err), strings.ToUpper(network), c.port())
		return f
	case answer.Rcode == dns.RcodeRefused:
		f.Text = "it refuses to answer for this zone: it runs with another --zone"
		return f
	case answer.Rcode != dns.RcodeSuccess:
		f.Text = "it answers " + dns.RcodeToString[answer.Rcode]
		return f
	case !answer.Authoritative:
		f.Text = "it does not answer with authority: something else than plane dns listens there"
		return f
	case !slices.ContainsFunc(answer.Answer, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeSOA }):
		f.Text = "it answers, but not for this zone: it runs with another --zone"
		return f
	}
	if answer, err = ask(c.value(), dns.TypeTXT); err != nil {
		f.Text = "asked for a challenge: " + reason(err)
		return f
	}
	if answer.Rcode == dns.RcodeServerFailure {
		f.Text = "asked for a challenge it fails (SERVFAIL): it has no controller to ask; look at its log"
		return f
	}
	f.OK, f.Text = true, "answers with authority"
	return f
}
