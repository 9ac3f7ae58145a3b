package acme_test

import (
	"context"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"plane/adapters/clock"
	"plane/adapters/memory"
	"plane/system/port"
)

// zone is a name server that answers every TXT question with the cluster's
// challenges, as a resolver does that has followed the CNAME to the DNS receiver.
type zone struct {
	store      port.ChallengeStore
	address    string
	oneAtATime bool        // it knows one value, as 0.5.x
	blind      atomic.Bool // and at times none
	// keep is for how long it tells what it has told before, as resolvers do.
	keep time.Duration
	mu   sync.Mutex
	kept []string
	till time.Time
}

// look returns the challenges, or what they were a moment ago.
func (z *zone) look(ctx context.Context) ([]string, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if time.Now().Before(z.till) {
		return z.kept, nil
	}
	values, err := z.store.Challenges(ctx, []string{cluster})
	z.kept, z.till = slices.Concat(values...), time.Now().Add(z.keep)
	return z.kept, err
}

func newZone(t *testing.T) *zone {
	t.Helper()
	z := &zone{store: memory.New(clock.New())}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	z.address = listener.Addr().String()
	server := &dns.Server{Listener: listener, Handler: z}
	go server.ActivateAndServe()
	t.Cleanup(func() { _ = server.Shutdown() }) // it may not have begun
	return z
}

// ServeDNS implements dns.Handler.
func (z *zone) ServeDNS(w dns.ResponseWriter, question *dns.Msg) {
	answer := new(dns.Msg).SetReply(question)
	q := question.Question[0]
	if q.Qtype == dns.TypeTXT && q.Name == "_acme-challenge."+cluster+"." && !z.blind.Load() {
		values, err := z.look(context.Background())
		if err != nil {
			answer.Rcode = dns.RcodeServerFailure
		}
		if z.oneAtATime && len(values) > 1 {
			values = values[:1]
		}
		for _, v := range values {
			answer.Answer = append(answer.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: q.Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: 1}, Txt: []string{v}})
		}
	}
	_ = w.WriteMsg(answer)
}

func (z *zone) empty(t *testing.T) {
	t.Helper()
	values, err := z.store.Challenges(t.Context(), []string{cluster})
	require.NoError(t, err)
	require.Empty(t, slices.Concat(values...))
}

// challenges is one proxy's way to the zone.
func (z *zone) challenges(proxy port.NodeID) port.Challenges {
	return &challenges{z: z, proxy: proxy}
}

type challenges struct {
	z     *zone
	proxy port.NodeID
	shown atomic.Int32
}

func (c *challenges) OneAtATime(context.Context) (bool, error) { return c.z.oneAtATime, nil }

func (c *challenges) Present(ctx context.Context, value string) error {
	c.shown.Add(1)
	if _, err := c.z.look(ctx); err != nil { // somebody asks for another proxy's just now
		return err
	}
	return c.z.store.AddChallenge(ctx, cluster, c.proxy, value, 10*time.Minute)
}

func (c *challenges) Withdraw(string) {
	if c.shown.Add(-1) == 0 {
		_ = c.z.store.ReleaseCertificate(context.Background(), cluster, c.proxy)
	}
}
