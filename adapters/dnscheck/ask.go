package dnscheck

import (
	"cmp"
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

// maxChain is how many CNAME records are followed.
const maxChain = 8

// resolve asks the resolver; over TCP when the answer does not fit in a packet.
func (c Checker) resolve(ctx context.Context, fqdn string, kind uint16) (*dns.Msg, error) {
	q := new(dns.Msg).SetQuestion(fqdn, kind)
	q.SetEdns0(1232, false)
	answer, err := c.exchange(ctx, "udp", c.Resolver, q)
	if err == nil && answer.Truncated {
		return c.exchange(ctx, "tcp", c.Resolver, q)
	}
	return answer, err
}

// exchange asks up to three times by UDP, which may lose packets, and once by
// TCP.
func (c Checker) exchange(ctx context.Context, network, server string, q *dns.Msg) (answer *dns.Msg, err error) {
	tries := map[string]int{"udp": 3, "tcp": 1}[network]
	client := &dns.Client{Net: network, Timeout: cmp.Or(c.Patience, 5*time.Second) / time.Duration(tries)}
	for range tries {
		answer, _, err = client.ExchangeContext(ctx, q, server)
		var timeout net.Error
		if err == nil || ctx.Err() != nil || !errors.As(err, &timeout) || !timeout.Timeout() {
			return answer, err
		}
	}
	return nil, err
}

// reason is an error of exchange in few words.
func reason(err error) string {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return "no answer in time"
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return "nothing listens there"
	}
	return err.Error()
}

// lookup returns the addresses of a name, sorted, or says why it has none.
func (c Checker) lookup(ctx context.Context, fqdn string) (addresses []string, problem string) {
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		answer, err := c.resolve(ctx, fqdn, kind)
		if err != nil {
			problem = reason(err)
			continue
		}
		for _, rr := range answer.Answer {
			switch rr := rr.(type) {
			case *dns.A:
				addresses = append(addresses, rr.A.String())
			case *dns.AAAA:
				addresses = append(addresses, rr.AAAA.String())
			}
		}
		if len(addresses) == 0 {
			problem = absence(answer)
		}
	}
	slices.Sort(addresses)
	return addresses, problem
}

// absence says what an answer without records means.
func absence(answer *dns.Msg) string {
	switch answer.Rcode {
	case dns.RcodeNameError:
		return "there is no such name"
	case dns.RcodeSuccess:
		return "the name has no such record"
	case dns.RcodeServerFailure:
		return "the resolver cannot find it out (SERVFAIL)"
	}
	return "the resolver answers " + dns.RcodeToString[answer.Rcode]
}

// follow returns the names that CNAME records lead to, one after the other.
func (c Checker) follow(ctx context.Context, fqdn string) (chain []string, problem string) {
	for range maxChain {
		answer, err := c.resolve(ctx, fqdn, dns.TypeCNAME)
		if err != nil {
			return chain, reason(err)
		}
		i := slices.IndexFunc(answer.Answer, func(rr dns.RR) bool {
			return rr.Header().Rrtype == dns.TypeCNAME && strings.EqualFold(rr.Header().Name, fqdn)
		})
		if i < 0 {
			if answer.Rcode != dns.RcodeSuccess {
				problem = absence(answer)
			}
			return chain, problem
		}
		fqdn = dns.CanonicalName(answer.Answer[i].(*dns.CNAME).Target)
		chain = append(chain, fqdn)
	}
	return chain, "CNAME records lead in circles"
}
