// Package dnscheck looks whether the DNS records are there that a cluster needs
// to be served over HTTPS with certificates of an ACME authority, and says in
// words which are not, and what to add.
//
// It asks a recursive resolver, as everybody else will, and then each DNS
// receiver directly, over UDP and TCP, as the authority's resolvers will. It
// changes nothing and keeps nothing. A Checker may be used by several at once;
// an answer that does not come in time is a finding and not an error.
package dnscheck

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"plane/system/name"
)

// Checker is what to look at.
type Checker struct {
	Cluster name.Cluster
	// Zone is the receiver's; empty: it answers _acme-challenge.CLUSTER itself.
	Zone string
	// Resolver is the address of a recursive resolver, host:port.
	Resolver string
	// Authority is how the certificate authority calls itself in CAA records.
	Authority string
	// Port is where receivers listen; 0: 53.
	Port int
	// Patience is the time for one answer; 0: 5 s.
	Patience time.Duration
}

// Finding is what was found of one record.
type Finding struct {
	Record string `json:"record"` // type and name
	OK     bool   `json:"ok"`
	Text   string `json:"text"`          // what there is, or what is wrong
	Add    string `json:"add,omitempty"` // the record to add, as in a zone file; of what is in <> there is no knowing
}

// SystemResolver is the resolver that this machine uses.
func SystemResolver() (string, error) {
	config, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil {
		return "", fmt.Errorf("find out this machine's resolver: %w", err)
	}
	if len(config.Servers) == 0 {
		return "", errors.New("find out this machine's resolver: /etc/resolv.conf names none")
	}
	return net.JoinHostPort(config.Servers[0], config.Port), nil
}

// Run looks at everything. An error means that the resolver does not answer at
// all.
func (c Checker) Run(ctx context.Context) ([]Finding, error) {
	if _, err := c.resolve(ctx, ".", dns.TypeNS); err != nil {
		return nil, fmt.Errorf("the resolver %s does not answer: %w", c.Resolver, err)
	}
	var findings []Finding
	add := func(more ...Finding) { findings = append(findings, more...) }
	add(c.addresses(ctx)...)
	add(c.challenge(ctx)...)
	add(c.receivers(ctx)...)
	add(c.throughEverything(ctx))
	add(c.permission(ctx))
	return findings, nil
}

// The names that matter, fully qualified.
func (c Checker) base() string         { return dns.Fqdn(c.Cluster.Host) }
func (c Checker) challengeAt() string  { return "_acme-challenge." + c.base() }
func (c Checker) zone() string         { return dns.CanonicalName(strings.TrimSuffix(c.Zone, ".")) }
func (c Checker) delegatesAlone() bool { return c.Zone == "" }

// apex is the name that has to be delegated to the receiver, and value the one
// at which it answers with challenges.
func (c Checker) apex() string {
	if c.delegatesAlone() {
		return c.challengeAt()
	}
	return c.zone()
}

func (c Checker) value() string {
	if c.delegatesAlone() {
		return c.challengeAt()
	}
	return c.base() + c.zone()
}

func (c Checker) port() int {
	if c.Port == 0 {
		return 53
	}
	return c.Port
}

// shown is a name as people write it.
func shown(fqdn string) string { return strings.TrimSuffix(fqdn, ".") }

// addresses looks whether the base name and those below it lead somewhere, and
// to the same place.
func (c Checker) addresses(ctx context.Context) []Finding {
	base, problem := c.lookup(ctx, c.base())
	first := Finding{Record: "A or AAAA " + c.Cluster.Host}
	if len(base) == 0 {
		first.Text = "no address: " + problem + ". It has to lead to your proxy, or to the balancer in front of your proxies"
		first.Add = c.base() + " 300 IN A <address of the proxy or balancer>"
	} else {
		first.OK, first.Text = true, "leads to "+strings.Join(base, ", ")
	}
	below, problem := c.lookup(ctx, "plane-check-"+strings.ToLower(rand.Text())[:10]+"."+c.base())
	second := Finding{Record: "A or AAAA *." + c.Cluster.Host, Add: "*." + c.base() + " 300 IN CNAME " + c.base()}
	switch {
	case len(below) == 0:
		second.Text = "no address: " + problem + ". Backends with a subdomain have names below the cluster's"
	case len(base) > 0 && strings.Join(below, ", ") != strings.Join(base, ", "):
		second.Text = "leads to " + strings.Join(below, ", ") + ", which is not where " + c.Cluster.Host + " leads"
	default:
		second.OK, second.Text, second.Add = true, "leads to "+strings.Join(below, ", "), ""
	}
	return []Finding{first, second}
}

// challenge looks whether challenges are answered by the receiver.
func (c Checker) challenge(ctx context.Context) []Finding {
	if c.delegatesAlone() {
		return nil // the delegation leads there
	}
	f := Finding{Record: "CNAME " + shown(c.challengeAt()), Add: c.challengeAt() + " 300 IN CNAME " + c.value()}
	chain, problem := c.follow(ctx, c.challengeAt())
	switch {
	case len(chain) == 0 && problem != "":
		f.Text = problem
	case len(chain) == 0:
		f.Text = "there is no CNAME record"
		if answer, err := c.resolve(ctx, c.challengeAt(), dns.TypeTXT); err == nil && len(answer.Answer) > 0 {
			f.Text += ", but a TXT record; take that away"
		}
	case chain[len(chain)-1] == c.value():
		f.OK, f.Add = true, ""
		f.Text = "leads to " + shown(c.value())
		if len(chain) > 1 {
			f.Text += fmt.Sprintf(" over %d names in between", len(chain)-1)
		}
	case chain[0] == c.base():
		f.Text = "leads to " + c.Cluster.Host + ": that is the wildcard's answer, it has no record of its own"
	default:
		f.Text = "leads to " + shown(chain[len(chain)-1]) + ", and not to " + shown(c.value())
	}
	return []Finding{f}
}

// throughEverything asks for the challenge as the authority will.
func (c Checker) throughEverything(ctx context.Context) Finding {
	f := Finding{Record: "TXT " + shown(c.challengeAt())}
	answer, err := c.resolve(ctx, c.challengeAt(), dns.TypeTXT)
	switch {
	case err != nil:
		f.Text = "the resolver finds no answer (" + reason(err) + "): the receiver cannot be reached from there"
	case answer.Rcode == dns.RcodeServerFailure:
		f.Text = "the resolver finds no answer (SERVFAIL): the receiver cannot be reached from there, or has no controller"
	case answer.Rcode == dns.RcodeNameError:
		f.Text = "there is no such name (NXDOMAIN), so the authority would find no challenge"
	case answer.Rcode != dns.RcodeSuccess:
		f.Text = "the resolver answers " + dns.RcodeToString[answer.Rcode]
	default:
		values := 0
		for _, rr := range answer.Answer {
			if rr.Header().Rrtype == dns.TypeTXT {
				values++
			}
		}
		f.OK, f.Text = true, "the resolver gets an answer; values now: "+strconv.Itoa(values)
	}
	return f
}
