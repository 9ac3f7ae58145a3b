package dnscheck

import (
	"context"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// permission looks whether CAA records forbid the authority to issue for the
// cluster and its wildcard. Those that count are the first ones found on the
// way up from the cluster (RFC 8659).
func (c Checker) permission(ctx context.Context) Finding {
	for at := c.base(); at != "."; at = parent(at) {
		answer, err := c.resolve(ctx, at, dns.TypeCAA)
		if err != nil {
			return Finding{Record: "CAA " + shown(at), Text: "the resolver does not answer: " + reason(err) + "; an authority would refuse to issue"}
		}
		if answer.Rcode == dns.RcodeServerFailure {
			return Finding{Record: "CAA " + shown(at), Text: "the resolver cannot find it out (SERVFAIL); an authority would refuse to issue"}
		}
		var records []*dns.CAA
		for _, rr := range answer.Answer {
			if caa, ok := rr.(*dns.CAA); ok {
				records = append(records, caa)
			}
		}
		if len(records) > 0 {
			return c.permits(at, records)
		}
	}
	return Finding{Record: "CAA " + c.Cluster.Host, OK: true, Text: "any authority may issue certificates"}
}

func parent(fqdn string) string {
	_, rest, _ := strings.Cut(fqdn, ".")
	if rest == "" {
		return "."
	}
	return rest
}

func (c Checker) permits(at string, records []*dns.CAA) Finding {
	f := Finding{Record: "CAA " + shown(at), OK: true, Text: c.Authority + " may issue certificates"}
	for _, tag := range []string{"issue", "issuewild"} {
		var of []*dns.CAA
		for _, r := range records {
			if strings.EqualFold(r.Tag, tag) {
				of = append(of, r)
			}
		}
		if len(of) == 0 || slices.ContainsFunc(of, func(r *dns.CAA) bool { return c.named(r.Value) }) {
			continue // no issuewild: then issue counts for wildcards as well
		}
		what := map[string]string{"issue": "for " + c.Cluster.Host, "issuewild": "for *." + c.Cluster.Host}[tag]
		f.OK, f.Text = false, "forbids "+c.Authority+" to issue certificates "+what+" by DNS-01"
		f.Add = at + ` 3600 IN CAA 0 ` + tag + ` "` + c.Authority + `"`
		break
	}
	return f
}

// named reports whether the value of a CAA record allows the authority to issue
// after a DNS-01 challenge.
func (c Checker) named(value string) bool {
	authority, parameters, _ := strings.Cut(value, ";")
	if !strings.EqualFold(strings.TrimSpace(authority), c.Authority) {
		return false
	}
	for parameter := range strings.SplitSeq(parameters, ";") {
		key, methods, _ := strings.Cut(strings.TrimSpace(parameter), "=")
		if strings.EqualFold(key, "validationmethods") && !slices.Contains(strings.Split(strings.ToLower(methods), ","), "dns-01") {
			return false
		}
	}
	return true
}
