// Package zone holds the rules by which the DNS receiver answers: pure
// functions of the zone, the question, and the challenge values of the moment.
//
// The receiver is authoritative for one zone, and in it for the TXT records of
// `{cluster}.{zone}`; without a zone, for `_acme-challenge.{cluster}` of every
// cluster, each of which then is a zone of its own.
//
// Nobody can say which clusters there will be, and a resolver that was told that
// a name does not exist may believe it of everything below (RFC 8020). So the
// name of anything that is a cluster's, or could be above one, exists: labels of
// letters, digits and hyphens. It may have no records (NOERROR with the SOA, as
// for empty non-terminals), which is also what resolvers need that ask for a
// name label by label (RFC 9156). What can be neither is NXDOMAIN.
//
// No answer may hide a value that is set later, such as that of another proxy of
// the cluster: resolvers may keep TXT records for a second, for which whoever adds
// one waits before it has its authority look, and, by the SOA, the word that there
// are none not at all.
package zone

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"plane/system/name"
)

// Type is a DNS record type, by its number.
type Type uint16

// The types that the rules know.
const (
	A     Type = 1
	NS    Type = 2
	SOA   Type = 6
	HINFO Type = 13
	TXT   Type = 16
	AAAA  Type = 28
	OPT   Type = 41
	TKEY  Type = 249
	TSIG  Type = 250
	IXFR  Type = 251
	AXFR  Type = 252
	MAILB Type = 253
	MAILA Type = 254
	ANY   Type = 255
)

// RCode is the outcome of a question, by its number.
type RCode int

// The outcomes that the rules know.
const (
	NoError  RCode = 0
	FormErr  RCode = 1
	ServFail RCode = 2
	NXDomain RCode = 3
	NotImp   RCode = 4
	Refused  RCode = 5
)

// The times to live, in seconds.
const (
	// ChallengeTTL is how long a resolver may keep challenges. Whoever adds one
	// waits for longer before an authority is asked to look: proxies of a cluster
	// share the name.
	ChallengeTTL = 1
	// NoneTTL is how long it may keep that there are none.
	NoneTTL = 0
	// FixedTTL is that of what changes with the configuration only.
	FixedTTL = 3600
)

// MaxValues is how many bytes of challenge values, and the records around them,
// go into one answer; those beyond are left out. A message has 64 KiB.
const MaxValues = 48 << 10

// recordOverhead is what is around a value, in bytes.
const recordOverhead = 16

// maxApex is the greatest length of a zone's name: names under it have to fit
// into 255 bytes.
const maxApex = 240

const classIN = 1

const challengeLabel = "_acme-challenge"

// Config is what a receiver is told of its zone.
type Config struct {
	// Zone is the zone's name; empty: there is none, and _acme-challenge.{cluster}
	// is answered itself.
	Zone string
	// Names are the name servers of the zone, as in its delegation. Default: ns
	// under the zone.
	Names []string
	// Addresses are those of the names that lie in the zone.
	Addresses []netip.Addr
	// Contact is the mail address of whoever looks after the zone. Default:
	// hostmaster at the zone.
	Contact string
}

// Zone is a zone that can be asked. It is immutable.
type Zone struct {
	apex      []string // labels in lower case; empty: there is no zone
	names     [][]string
	addresses []netip.Addr
	contact   string
}

// New checks a configuration.
func New(c Config) (*Zone, error) {
	z := &Zone{addresses: c.Addresses}
	var err error
	if c.Zone != "" {
		if z.apex, err = host(c.Zone); err != nil {
			return nil, fmt.Errorf("zone: %w", err)
		}
		if len(join(z.apex)) > maxApex {
			return nil, fmt.Errorf("zone: the name has %d characters, more than %d", len(join(z.apex)), maxApex)
		}
	}
	for _, n := range c.Names {
		labels, err := host(n)
		if err != nil {
			return nil, fmt.Errorf("name server: %w", err)
		}
		z.names = append(z.names, labels)
	}
	for _, a := range c.Addresses {
		if a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" {
			return nil, fmt.Errorf("address of a name server: %s is none that resolvers could ask", a)
		}
	}
	if c.Contact != "" {
		if z.contact, err = mailbox(c.Contact); err != nil {
			return nil, fmt.Errorf("contact: %w", err)
		}
	}
	return z, nil
}

func host(s string) ([]string, error) {
	c, err := name.ParseCluster(strings.TrimSuffix(s, "."))
	if err != nil {
		return nil, fmt.Errorf("%q is no DNS name: %w", s, err)
	}
	labels := strings.Split(c.Host, ".")
	if _, err := netip.ParseAddr(c.Host); err == nil || c.Host != strings.ToLower(strings.TrimSuffix(s, ".")) || strings.HasPrefix(c.Host, "[") {
		return nil, fmt.Errorf("%q is no DNS name", s)
	}
	return labels, nil
}

// mailbox turns a mail address into the form that a SOA has for it: the first
// dot is the @, and dots before it are escaped.
func mailbox(address string) (string, error) {
	local, domain, ok := strings.Cut(address, "@")
	if !ok || local == "" || len(local) > 63 || strings.ContainsFunc(local, func(r rune) bool {
		return r <= ' ' || r > '~' || r == '\\' || r == '"' || r == '@' || r == '(' || r == ')' || r == ';'
	}) {
		return "", fmt.Errorf("%q is no mail address", address)
	}
	labels, err := host(domain)
	if err != nil {
		return "", fmt.Errorf("%q is no mail address: %w", address, err)
	}
	return strings.ReplaceAll(local, ".", `\.`) + "." + join(labels), nil
}

func join(labels []string) string { return strings.Join(labels, ".") + "." }

// Question is what a resolver asks. Labels are those of the name as it was
// spelled, without the root's.
type Question struct {
	Labels []string
	Type   Type
	Class  uint16
}

// Record is one record of an answer; of the fields below TTL those are set that
// its type has. Names end with a dot.
type Record struct {
	Name  string // with the spelling of the question
	Type  Type
	TTL   uint32
	Value string     // TXT: one value, in pieces of 255 bytes at most on the wire; HINFO: the first word
	Host  string     // NS, and the SOA's primary
	Mail  string     // of the SOA
	Addr  netip.Addr // A, AAAA
}

// Answer is what is told.
type Answer struct {
	RCode         RCode
	Authoritative bool
	Records       []Record // the answer section
	Authority     []Record
	Additional    []Record
}

// Pending is an answer that lacks a cluster's challenge values.
type Pending struct {
	// Cluster is the cluster whose values are needed, in lower case; empty: none
	// are, and With may be given none.
	Cluster string

	zone  *Zone
	ask   Question
	apex  int // where in the labels the zone begins
	ready Answer
}

// Ask says what can be said to a question without knowing any values.
func (z *Zone) Ask(q Question) Pending {
	p := Pending{zone: z, ask: q}
	below, inside := z.within(q.Labels)
	switch {
	case q.Type == OPT || q.Type == TKEY || q.Type == TSIG:
		p.ready = Answer{RCode: FormErr}
	case q.Type == MAILA || q.Type == MAILB:
		p.ready = Answer{RCode: NotImp}
	case q.Class != classIN || !inside || q.Type == AXFR || q.Type == IXFR:
		p.ready = Answer{RCode: Refused}
	default:
		p.apex = below
		p.inside()
	}
	return p
}

// within says how many labels of a name are below its zone.
func (z *Zone) within(labels []string) (below int, inside bool) {
	if len(z.apex) > 0 {
		below = len(labels) - len(z.apex)
		return below, below >= 0 && same(labels[max(below, 0):], z.apex)
	}
	for i := len(labels) - 1; i >= 0; i-- {
		if strings.EqualFold(labels[i], challengeLabel) {
			return i, possible(labels[i+1:]) && len(join(labels[i:])) <= maxApex
		}
	}
	return 0, false
}

// possible reports whether the labels are those of a cluster, or could be the
// end of one's.
func possible(labels []string) bool {
	return len(labels) > 0 && !slices.ContainsFunc(labels, func(l string) bool { return name.ValidateSubdomain(l) != nil })
}

// same compares labels without case.
func same(a, b []string) bool { return slices.EqualFunc(a, b, strings.EqualFold) }

// inside answers for a name in the zone.
func (p *Pending) inside() {
	q, z := p.ask, p.zone
	p.ready = Answer{Authoritative: true}
	below := q.Labels[:p.apex]
	isServer := slices.ContainsFunc(p.servers(), func(n []string) bool { return same(n, q.Labels) })
	atApex := len(below) == 0
	switch {
	case !atApex && !isServer && (len(z.apex) == 0 || !possible(below)):
		p.ready.RCode = NXDomain
	case atApex && q.Type == SOA:
		p.ready.Records = []Record{p.soa(FixedTTL)}
	case atApex && q.Type == NS:
		p.ready.Records, p.ready.Additional = p.nameServers()
	case isServer && (q.Type == A || q.Type == AAAA):
		p.ready.Records = p.glue(p.spelled(), q.Type)
	case q.Type == ANY:
		p.ready.Records = []Record{{Name: p.spelled(), Type: HINFO, TTL: FixedTTL, Value: "RFC8482"}}
	case q.Type == TXT:
		p.Cluster = p.cluster()
	}
	if p.Cluster == "" && len(p.ready.Records) == 0 {
		p.ready.Authority = []Record{p.soa(NoneTTL)}
	}
}

// cluster is whose values the name stands for; empty: nobody's.
func (p *Pending) cluster() string {
	labels := p.ask.Labels[:p.apex]
	if len(p.zone.apex) == 0 {
		if labels = p.ask.Labels[1:]; p.apex > 0 {
			return ""
		}
	}
	return strings.ToLower(strings.Join(labels, "."))
}

// With completes the answer.
func (p Pending) With(values []string) Answer {
	if p.Cluster == "" {
		return p.ready
	}
	a, room := p.ready, MaxValues
	for _, text := range values {
		if room -= len(text) + len(text)/255 + recordOverhead; room < 0 {
			break
		}
		a.Records = append(a.Records, Record{Name: p.spelled(), Type: TXT, TTL: ChallengeTTL, Value: text})
	}
	if len(a.Records) == 0 {
		a.Authority = []Record{p.soa(NoneTTL)}
	}
	return a
}

// Unavailable is the answer when the values cannot be had.
func (p Pending) Unavailable() Answer { return Answer{RCode: ServFail} }

// spelled is the name as it was asked for.
func (p *Pending) spelled() string { return join(p.ask.Labels) }

// top is the zone's name, spelled as in the question.
func (p *Pending) top() []string { return p.ask.Labels[p.apex:] }

func (p *Pending) soa(ttl uint32) Record {
	mail := p.zone.contact
	if mail == "" {
		mail = "hostmaster." + join(p.top())
	}
	return Record{Name: join(p.top()), Type: SOA, TTL: ttl, Host: join(p.servers()[0]), Mail: mail}
}

// servers are the zone's name servers.
func (p *Pending) servers() [][]string {
	if len(p.zone.names) > 0 {
		return p.zone.names
	}
	return [][]string{append([]string{"ns"}, p.top()...)}
}

func (p *Pending) nameServers() (names, glue []Record) {
	for _, n := range p.servers() {
		names = append(names, Record{Name: p.spelled(), Type: NS, TTL: FixedTTL, Host: join(n)})
		if below, inside := p.zone.within(n); inside && same(n[below:], p.top()) {
			glue = append(glue, p.glue(join(n), A)...)
			glue = append(glue, p.glue(join(n), AAAA)...)
		}
	}
	return names, glue
}

// glue is the receiver's addresses of one kind, under a name.
func (p *Pending) glue(owner string, t Type) (records []Record) {
	for _, a := range p.zone.addresses {
		if a = a.Unmap(); a.Is4() == (t == A) {
			records = append(records, Record{Name: owner, Type: t, TTL: FixedTTL, Addr: a})
		}
	}
	return records
}

// ParseAddresses reads the addresses of name servers.
func ParseAddresses(texts []string) ([]netip.Addr, error) {
	var all []netip.Addr
	var errs []error
	for _, text := range texts {
		a, err := netip.ParseAddr(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("%q is no IP address", text))
		}
		all = append(all, a)
	}
	return all, errors.Join(errs...)
}
