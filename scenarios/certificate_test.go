package scenarios

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/postgres/pgtest"
)

// ordering is a cluster whose proxies get certificates from an authority, by way
// of the receiver.
type ordering struct {
	*delegated
	authority *authority
	accounts  []string // flags that say how to make an account
}

type orderingOptions struct {
	authorityOptions
	overTCP  bool   // between the resolver and the receiver
	database string // of the controller; empty: it has none
}

func startOrdering(t *testing.T, o orderingOptions) *ordering {
	t.Helper()
	s := &ordering{delegated: startDelegated(t, o.overTCP, o.database)}
	s.authority = newAuthority(t, s.dir, s.internet.address, o.authorityOptions)
	for id, key := range o.keys {
		s.accounts = []string{"--acme-eab-kid", id, "--acme-eab-hmac-key", key}
	}
	return s
}

// orderer is a proxy that gets its certificates itself.
type orderer struct {
	*secureProxy
	kept string // file of its certificate and key
}

func (s *ordering) addProxy(t *testing.T, suffix string) *orderer {
	t.Helper()
	p := &orderer{kept: filepath.Join(s.dir, "certificate-"+suffix+".json")}
	p.secureProxy = s.addSecureProxy(t, suffix, append([]string{
		"--cert-path", p.kept, "--acme-endpoint", s.authority.directory, "--acme-email", "me@" + userDomain, "--acme-ca-file", s.authority.rootFile,
	}, s.accounts...)...)
	return p
}

// issued is how many certificates the authority has given out.
func (s *ordering) issued() int { return strings.Count(s.authority.log(), "Issued certificate serial") }

// TestCertificatesFromAnAuthority: three proxies of a cluster get a certificate
// each, at the same time, from an authority that validates by way of a strict
// resolver, the CNAME and the delegation that docs/tls.md asks for.
func TestCertificatesFromAnAuthority(t *testing.T) {
	t.Parallel()
	key := make([]byte, 32)
	rand.Read(key)
	bound := map[string]string{"kid-1": base64.RawURLEncoding.EncodeToString(key)}
	for name, o := range map[string]orderingOptions{
		"over UDP":                     {},
		"over TCP":                     {overTCP: true},
		"with external accounts":       {authorityOptions: authorityOptions{keys: bound}},
		"from one that injects faults": {authorityOptions: authorityOptions{faults: true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startOrdering(t, o)
			s.addDrone(t, "one")
			var proxies []*orderer
			for _, suffix := range []string{"one", "two", "three"} {
				proxies = append(proxies, s.addProxy(t, suffix))
			}
			for _, p := range proxies {
				p.awaitReady(t, 2*time.Minute)
			}
			roots := s.authority.roots(t)
			s.serves(t, proxies, roots)
			s.keepsSecrets(t, proxies)
			if name == "over UDP" {
				s.restartsOrderNothing(t, proxies, roots)
			}
		})
	}
}

// serves requires that each proxy serves base and wildcard with a key of its
// own, and takes requests and WebSockets to a backend.
func (s *ordering) serves(t *testing.T, proxies []*orderer, roots *x509.CertPool) {
	t.Helper()
	resp, keys := s.ready(t, "k"), map[string]bool{}
	for _, p := range proxies {
		leaf := p.presented(t, roots, secureHost)
		require.True(t, leaf.Equal(p.presented(t, roots, "room."+secureHost)))
		require.ElementsMatch(t, []string{secureHost, "*." + secureHost}, leaf.DNSNames)
		keys[string(leaf.RawSubjectPublicKeyInfo)] = true
		body, err := fetch(p.client(roots), resp.URL)
		require.NoError(t, err)
		require.Equal(t, "ok\n", body)
		openSocketBy(t, p.client(roots), resp.URL).lives(t)
	}
	require.Len(t, keys, len(proxies), "each proxy has a key of its own")
}

// keepsSecrets requires that what must be hidden is: keys of certificates and
// accounts are in files of their owner only, and in no log.
func (s *ordering) keepsSecrets(t *testing.T, proxies []*orderer) {
	t.Helper()
	var secrets []string
	for _, p := range proxies {
		for _, file := range []string{p.kept, p.kept + ".account"} {
			info, err := os.Stat(file)
			require.NoError(t, err)
			require.Equal(t, os.FileMode(0o600), info.Mode(), file)
			content, err := os.ReadFile(file)
			require.NoError(t, err)
			var kept struct{ Key string }
			require.NoError(t, json.Unmarshal(content, &kept))
			require.Contains(t, kept.Key, "PRIVATE KEY", file)
			secrets = append(secrets, strings.Split(kept.Key, "\n")[1])
		}
	}
	if len(s.accounts) > 0 {
		secrets = append(secrets, s.accounts[3]) // the account's HMAC key
	}
	s.hidden(t, secrets)
}

// restartsOrderNothing requires that proxies which start again serve what they
// have.
func (s *ordering) restartsOrderNothing(t *testing.T, proxies []*orderer, roots *x509.CertPool) {
	t.Helper()
	require.Equal(t, len(proxies), s.issued())
	for _, p := range proxies {
		before := p.presented(t, roots, secureHost)
		p.kill9()
		p.start(t)
		p.awaitReady(t, 15*time.Second)
		require.True(t, before.Equal(p.presented(t, roots, secureHost)))
	}
	require.Equal(t, len(proxies), s.issued(), "a restart has ordered a certificate")
}

// TestRenewalUnderLoad: while certificates of a very short life are renewed
// again and again, no WebSocket closes, and every new connection meets a
// certificate that is valid (G14).
func TestRenewalUnderLoad(t *testing.T) {
	t.Parallel()
	const renewals = 5
	// A third of the life is left for a renewal, which takes 2.5 s on a quiet machine.
	s := startOrdering(t, orderingOptions{authorityOptions: authorityOptions{life: 18 * time.Second}})
	s.addDrone(t, "one")
	p := s.addProxy(t, "one")
	p.awaitReady(t, time.Minute)
	roots := s.authority.roots(t)
	resp := s.ready(t, "k")
	var sockets []*socket
	for range 50 {
		sockets = append(sockets, openSocketBy(t, p.client(roots), resp.URL))
	}

	load := newLoad(p, roots, resp.URL)
	eventually(t, 150*time.Second, "five renewals are seen", func() error {
		if seen := load.seen(); seen < 1+renewals {
			return fmt.Errorf("%d certificates so far, %d connections", seen, load.count())
		}
		return nil
	})
	require.NoError(t, load.end())
	require.Greater(t, load.count(), 100)
	for _, ws := range sockets {
		ws.lives(t)
		ws.close()
	}

	// The last one is new, so a restart has nothing to order.
	before, issued := p.presented(t, roots, secureHost), s.issued()
	p.end(t, syscall.SIGTERM, 15*time.Second)
	p.start(t)
	p.awaitReady(t, 5*time.Second)
	require.True(t, before.Equal(p.presented(t, roots, secureHost)))
	require.Equal(t, issued, s.issued())
}

// load is a steady stream of new connections.
type load struct {
	stop chan struct{}
	done sync.WaitGroup

	mu           sync.Mutex
	connections  int
	certificates map[string]bool
	err          error // the first
}

func newLoad(p *orderer, roots *x509.CertPool, url string) *load {
	l := &load{stop: make(chan struct{}), certificates: map[string]bool{}}
	for range 4 {
		l.done.Go(func() {
			for {
				l.connect(p.client(roots), url)
				select {
				case <-l.stop:
					return
				case <-time.After(50 * time.Millisecond):
				}
			}
		})
	}
	return l
}

func (l *load) connect(client *http.Client, url string) {
	resp, err := client.Get(url)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.connections++
	if err != nil {
		l.err = errors.Join(l.err, fmt.Errorf("connection %d: %w", l.connections, err))
		return
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		l.err = errors.Join(l.err, fmt.Errorf("connection %d: answered %s", l.connections, resp.Status))
	}
	l.certificates[resp.TLS.PeerCertificates[0].SerialNumber.String()] = true
}

func (l *load) seen() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.certificates)
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.connections
}

// end stops it, and returns everything that went wrong.
func (l *load) end() error {
	close(l.stop)
	l.done.Wait()
	return l.err
}

// TestIssuanceSurvivesItsParts: whoever is killed in the middle of an order, and
// stays away until that has failed, it completes once they are back, and within
// the authority's limits.
func TestIssuanceSurvivesItsParts(t *testing.T) {
	t.Parallel()
	for name, victim := range map[string]func(*ordering) *process{
		"controller":   func(s *ordering) *process { return s.controller },
		"DNS receiver": func(s *ordering) *process { return s.receiver },
		"authority":    func(s *ordering) *process { return s.authority.process },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := startOrdering(t, orderingOptions{authorityOptions: authorityOptions{slow: true}})
			p := s.addProxy(t, "one")
			s.underWay(t)
			victim(s).kill9()
			if victim(s) == s.authority.process {
				time.Sleep(10 * time.Second) // it has forgotten the order when it comes back
			} else {
				s.fails(t)
			}
			victim(s).start(t)
			s.completes(t, p)
		})
	}
}

// TestIssuanceSurvivesWithADatabase: the same, where the controller keeps the
// challenges in PostgreSQL: either of them may be killed. What the controller has
// accepted is there again when it comes back.
func TestIssuanceSurvivesWithADatabase(t *testing.T) {
	t.Parallel()
	for name, restart := range map[string]func(t *testing.T, s *ordering, pg *pgtest.Instance){
		"PostgreSQL": func(t *testing.T, s *ordering, pg *pgtest.Instance) {
			pg.Kill(t)
			s.fails(t)
			pg.Start(t)
		},
		"controller": func(t *testing.T, s *ordering, _ *pgtest.Instance) {
			s.controller.kill9()
			s.fails(t)
			s.controller.start(t)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			pg := pgtest.Server(t, pgtest.Options{Durable: true})
			s := startOrdering(t, orderingOptions{authorityOptions: authorityOptions{slow: true}, database: pg.Database(t)})
			p := s.addProxy(t, "one")
			s.underWay(t)
			restart(t, s, pg)
			s.completes(t, p)
		})
	}
}

// underWay waits until an order is under way: its challenge is shown, and nothing
// is issued.
func (s *ordering) underWay(t *testing.T) {
	t.Helper()
	eventually(t, 30*time.Second, "a challenge is there", func() error {
		n, err := s.challenges()
		if err == nil && n == 0 {
			err = errors.New("none yet")
		}
		return err
	})
	require.Zero(t, s.issued(), "the order is under way")
}

// fails waits until the authority has looked for a challenge and not found it.
func (s *ordering) fails(t *testing.T) {
	t.Helper()
	eventually(t, 2*time.Minute, "the authority gives the order up", func() error {
		if !strings.Contains(s.authority.log(), "set INVALID by completed challenge") {
			return errors.New("not yet")
		}
		return nil
	})
}

// mostOrders is how many orders one outage may take: Let's Encrypt allows five
// validations to fail in an hour.
const mostOrders = 4

// completes requires that the proxy gets its certificate by itself.
func (s *ordering) completes(t *testing.T, p *orderer) {
	t.Helper()
	p.awaitReady(t, 2*time.Minute)
	p.presented(t, s.authority.roots(t), "room."+secureHost)
	orders := strings.Count(s.authority.log(), "Added order ")
	t.Logf("%d orders", orders)
	require.GreaterOrEqual(t, orders, 2, "the first one was spoiled")
	require.LessOrEqual(t, orders, mostOrders)
	require.Equal(t, 1, s.issued())
}
