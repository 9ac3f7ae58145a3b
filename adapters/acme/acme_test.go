package acme_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/acme"
	"plane/adapters/acme/acmetest"
	"plane/adapters/certstore"
	"plane/system/port"
)

const cluster = "c1.example.test"

var names = []string{cluster, "*." + cluster}

// bench is an authority, the challenges that it finds, and an issuer with files.
type bench struct {
	*testing.T
	*acmetest.Authority
	zone *zone
	log  bytes.Buffer
	path string
	keys []string // private keys, and what else must be nowhere
}

func newBench(t *testing.T, o acmetest.Options) *bench {
	t.Helper()
	b := &bench{T: t, zone: newZone(t), path: filepath.Join(t.TempDir(), "cert.json")}
	o.Resolver = b.zone.address
	b.Authority = acmetest.Start(t, o)
	t.Cleanup(b.lookForSecrets)
	return b
}

// issuer makes an issuer whose account is in the bench's files.
func (b *bench) issuer(change func(*acme.Config)) (*acme.Issuer, *certstore.Store) {
	b.Helper()
	cfg := acme.Config{
		Directory: b.Directory, Email: "admin@example.test", KeyType: acme.P256, Roots: b.Roots, UserAgent: "plane-test",
		Log: slog.New(slog.NewTextHandler(&b.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&cfg)
	}
	store, err := certstore.Open(b.path)
	require.NoError(b, err)
	b.Cleanup(func() { _ = store.Close() }) // some tests close it themselves
	i, err := acme.New(cfg, store)
	require.NoError(b, err)
	return i, store
}

func (b *bench) order(i *acme.Issuer, proxy port.NodeID, replaces *port.Certificate) port.Certificate {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 2*time.Minute)
	defer cancel()
	c, err := i.Order(ctx, port.Order{Names: names, Replaces: replaces}, b.zone.challenges(proxy))
	require.NoError(b, err)
	b.keys = append(b.keys, middle(c.Key))
	return c
}

// middle is a line of a PEM block that nothing else has.
func middle(pem []byte) string { return string(bytes.Split(pem, []byte("\n"))[1][20:]) }

// good requires a certificate that a browser would take.
func (b *bench) good(c port.Certificate) tls.Certificate {
	b.Helper()
	pair, err := tls.X509KeyPair(c.Chain, c.Key)
	require.NoError(b, err)
	intermediates := x509.NewCertPool()
	intermediates.AppendCertsFromPEM(c.Chain)
	for _, name := range []string{cluster, "x." + cluster} {
		_, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: b.Issuers, Intermediates: intermediates})
		require.NoError(b, err)
	}
	require.ElementsMatch(b, names, c.Names)
	require.Equal(b, pair.Leaf.NotAfter, c.NotAfter)
	return pair
}

// Shortfall 18, G14: what a resolver keeps of other proxies' challenges spoils none.
func TestAnOrderWaitsUntilItsChallengesAreSeen(t *testing.T) {
	b := newBench(t, acmetest.Options{})
	b.zone.keep = 300 * time.Millisecond
	i, _ := b.issuer(func(c *acme.Config) { c.Settle = 2 * b.zone.keep })
	b.good(b.order(i, 1, nil))
}

// lookForSecrets is for G15: files are closed to others, and no key is in a log.
func (b *bench) lookForSecrets() {
	entries, err := os.ReadDir(filepath.Dir(b.path))
	require.NoError(b, err)
	for _, e := range entries {
		info, err := e.Info()
		require.NoError(b, err)
		require.Equal(b, os.FileMode(0o600), info.Mode().Perm(), e.Name())
	}
	for _, key := range b.keys {
		require.NotContains(b, b.log.String(), key)
	}
	require.NotContains(b, b.log.String(), "PRIVATE KEY")
}

func TestBaseNameAndWildcardInOneOrder(t *testing.T) {
	for name, c := range map[string]struct {
		keyType    acme.KeyType
		oneAtATime bool
	}{
		"ECDSA":               {acme.P256, false},
		"RSA":                 {acme.RSA2048, false},
		"one value at a time": {acme.P256, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, acmetest.Options{})
			b.zone.oneAtATime = c.oneAtATime
			i, _ := b.issuer(func(cfg *acme.Config) { cfg.KeyType = c.keyType })
			pair := b.good(b.order(i, 1, nil))
			if c.keyType == acme.RSA2048 {
				require.Equal(t, 2048, pair.PrivateKey.(*rsa.PrivateKey).N.BitLen())
			} else {
				require.Equal(t, "P-256", pair.PrivateKey.(*ecdsa.PrivateKey).Params().Name)
			}
			require.Equal(t, int64(1), b.Orders.Load())
			b.zone.empty(t)
		})
	}
}

// G14.
func TestProxiesOfOneClusterOrderAtOnceEachWithItsOwnKey(t *testing.T) {
	b := newBench(t, acmetest.Options{})
	type result struct {
		c   port.Certificate
		err error
	}
	results := make(chan result)
	for proxy := range 3 {
		i, err := acme.New(acme.Config{
			Directory: b.Directory, KeyType: acme.P256, Roots: b.Roots, Log: slog.New(slog.DiscardHandler),
		}, &certstore.Memory{})
		require.NoError(t, err)
		go func() {
			c, err := i.Order(t.Context(), port.Order{Names: names}, b.zone.challenges(port.NodeID(proxy+1)))
			results <- result{c, err}
		}()
	}
	keys := map[string]bool{}
	for range 3 {
		r := <-results
		require.NoError(t, r.err)
		b.good(r.c)
		keys[string(r.c.Key)] = true
	}
	require.Len(t, keys, 3)
	b.zone.empty(t)
}

func TestTheAccountIsMadeOnceAndKept(t *testing.T) {
	b := newBench(t, acmetest.Options{})
	i, store := b.issuer(nil)
	first := b.order(i, 1, nil)
	b.order(i, 1, &first)
	require.NoError(t, store.Close())
	i, store = b.issuer(nil)
	b.order(i, 1, nil)
	require.Equal(t, int64(1), b.Accounts.Load())
	require.Equal(t, int64(3), b.Orders.Load())
	kept, err := store.Account(t.Context())
	require.NoError(t, err)
	require.NotContains(t, b.log.String(), string(kept[len(kept)/2:len(kept)/2+30]))

	t.Run("broken, it is made anew", func(t *testing.T) {
		require.NoError(t, store.SaveAccount(t.Context(), port.Secret("{")))
		require.NoError(t, store.Close())
		i, _ = b.issuer(nil)
		b.order(i, 1, nil)
		require.Equal(t, int64(2), b.Accounts.Load())
		require.Contains(t, b.log.String(), "cannot be used")
	})
}

// fullDisk is a store that cannot keep an account so many times.
type fullDisk struct {
	port.CertStore
	left int
}

func (d *fullDisk) SaveAccount(ctx context.Context, account port.Secret) error {
	if d.left--; d.left >= 0 {
		return errors.New("no space left on device")
	}
	return d.CertStore.SaveAccount(ctx, account)
}

func TestAnAccountThatCannotBeKeptIsKeptLater(t *testing.T) {
	b := newBench(t, acmetest.Options{})
	for name, fails := range map[string]int{"at the end of the order": 2, "with the next question": 3} {
		t.Run(name, func(t *testing.T) {
			disk := &fullDisk{&certstore.Memory{}, fails}
			issuer := func() *acme.Issuer {
				i, err := acme.New(acme.Config{Directory: b.Directory, KeyType: acme.P256, Roots: b.Roots, Log: slog.New(slog.DiscardHandler)}, disk)
				require.NoError(t, err)
				return i
			}
			i := issuer()
			c := b.order(i, 1, nil)
			if fails == 3 {
				_, err := disk.Account(t.Context())
				require.ErrorIs(t, err, port.ErrNotFound)
				_, err = i.Suggest(t.Context(), c)
				require.NoError(t, err)
			}
			accounts := b.Accounts.Load()
			b.order(issuer(), 1, nil)
			require.Equal(t, accounts, b.Accounts.Load(), "it is known after a restart")
		})
	}
}

func TestAnAccountThatTheAuthorityHasForgottenIsMadeAnew(t *testing.T) {
	b := newBench(t, acmetest.Options{})
	i, _ := b.issuer(nil)
	b.order(i, 1, nil)
	other := acmetest.Start(t, acmetest.Options{Resolver: b.zone.address})
	b.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/order-plz" {
			return false
		}
		problem(w, http.StatusBadRequest, "accountDoesNotExist", "unknown")
		return true
	})
	_, err := i.Order(t.Context(), port.Order{Names: names}, b.zone.challenges(1))
	require.ErrorIs(t, err, port.ErrRefused)
	b.Intercept.Store(nil)
	b.order(i, 1, nil)
	require.Equal(t, int64(2), b.Accounts.Load(), "asked with the same key")
	require.NotEqual(t, other.Directory, b.Directory)
}

func TestExternalAccountBinding(t *testing.T) {
	const key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
	b := newBench(t, acmetest.Options{EABKeys: map[string]string{"kid-1": key}})
	b.keys = append(b.keys, key)
	for name, c := range map[string]struct{ id, key, want string }{
		"none":          {"", "", "only with an external account binding"},
		"an unknown id": {"kid-9", key, "make an account"},
		"a wrong key":   {"kid-1", strings.Repeat("A", 64), "make an account"},
	} {
		t.Run(name, func(t *testing.T) {
			i, err := acme.New(acme.Config{
				Directory: b.Directory, KeyType: acme.P256, Roots: b.Roots, EABKeyID: c.id, EABKey: port.Secret(c.key), Log: slog.New(slog.DiscardHandler),
			}, &certstore.Memory{})
			require.NoError(t, err)
			_, err = i.Order(t.Context(), port.Order{Names: names}, b.zone.challenges(1))
			require.ErrorIs(t, err, port.ErrRefused)
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), key)
		})
	}
	i, _ := b.issuer(func(cfg *acme.Config) { cfg.EABKeyID, cfg.EABKey = "kid-1", port.Secret(key) })
	b.good(b.order(i, 1, nil))
}

func TestWithTheFaultsThatPebbleMakes(t *testing.T) {
	b := newBench(t, acmetest.Options{Faults: true})
	t.Setenv("PEBBLE_VA_SLEEPTIME", "1")
	i, _ := b.issuer(nil)
	c := b.order(i, 1, nil)
	b.good(c)
	b.good(b.order(i, 1, &c))
	b.zone.empty(t)
}

func TestProfiles(t *testing.T) {
	b := newBench(t, acmetest.Options{Life: 60})
	i, _ := b.issuer(func(cfg *acme.Config) { cfg.Profile = "tiny" })
	_, err := i.Order(t.Context(), port.Order{Names: names}, b.zone.challenges(1))
	require.ErrorIs(t, err, port.ErrRefused)
	require.ErrorContains(t, err, `no profile "tiny"; it has short`)

	i, err = acme.New(acme.Config{Directory: b.Directory, KeyType: acme.P256, Roots: b.Roots, Profile: "short", Log: slog.New(slog.DiscardHandler)}, &certstore.Memory{})
	require.NoError(t, err)
	c := b.order(i, 2, nil)
	require.InDelta(t, 60, c.Span().Seconds(), 2)
	s, err := i.Suggest(t.Context(), c)
	require.NoError(t, err)
	require.False(t, s.Start.Before(c.NotBefore), "%v", s)
	require.True(t, s.End.After(s.Start))
}

// F7: as with orders.
func TestFailuresToSuggestAreToldApart(t *testing.T) {
	b := newBench(t, acmetest.Options{})
	i, _ := b.issuer(nil)
	c := b.order(i, 1, nil)
	status := 0
	b.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, "/dir") {
			return false
		}
		w.Header().Set("Retry-After", "7200")
		w.WriteHeader(status)
		return true
	})
	var limited *port.RateLimitError
	for _, status = range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
		_, err := i.Suggest(t.Context(), c)
		require.ErrorAs(t, err, &limited)
		require.Equal(t, 2*time.Hour, limited.RetryAfter)
	}
	status = http.StatusInternalServerError
	_, err := i.Suggest(t.Context(), c)
	require.ErrorIs(t, err, port.ErrAuthorityAway)
}

func TestAChallengeThatCannotBeSeenIsARefusal(t *testing.T) {
	b := newBench(t, acmetest.Options{})
	b.zone.blind.Store(true)
	i, _ := b.issuer(nil)
	_, err := i.Order(t.Context(), port.Order{Names: names}, b.zone.challenges(1))
	require.ErrorIs(t, err, port.ErrRefused)
	require.ErrorContains(t, err, "the challenge for")
	b.zone.empty(t)
	b.zone.blind.Store(false)
	b.good(b.order(i, 1, nil))
}

// What the authority was asked to look at comes to an end by itself. Pebble takes
// a lock for good when that is given up meanwhile, and hangs with the next order.
func TestOnlyWhatIsNotLookedAtIsGivenUp(t *testing.T) {
	for _, oneAtATime := range []bool{false, true} {
		b := newBench(t, acmetest.Options{})
		b.zone.oneAtATime = oneAtATime
		b.zone.blind.Store(true)
		var givenUp atomic.Int64
		b.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
			body, err := io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(body))
			var signed struct{ Payload string }
			if err == nil && json.Unmarshal(body, &signed) == nil {
				payload, _ := base64.RawURLEncoding.DecodeString(signed.Payload)
				if strings.Contains(string(payload), `"deactivated"`) {
					givenUp.Add(1)
				}
			}
			return false
		})
		i, _ := b.issuer(nil)
		for range 3 {
			givenUp.Store(0)
			_, err := i.Order(t.Context(), port.Order{Names: names}, b.zone.challenges(1))
			require.ErrorIs(t, err, port.ErrRefused)
			if oneAtATime {
				require.EqualValues(t, 1, givenUp.Load(), "the second name's, whose turn never came")
			} else {
				require.Zero(t, givenUp.Load())
			}
		}
	}
}

// A certificate of another authority, or one that the authority has lost, is
// renewed all the same: TestRenewalUnderLoad has met a Pebble that loses one in
// some hundreds.
func TestAnAuthorityThatDoesNotKnowWhatIsReplaced(t *testing.T) {
	b := newBench(t, acmetest.Options{})
	i, _ := b.issuer(nil)
	own := b.order(i, 1, nil)
	foreign := newBench(t, acmetest.Options{})
	theirs, _ := foreign.issuer(nil)
	other := foreign.order(theirs, 1, nil)

	b.good(b.order(i, 1, &other))
	require.Contains(t, b.log.String(), "refuses an order that says what it replaces")
	orders := b.Orders.Load()
	b.good(b.order(i, 1, &own))
	require.Equal(t, orders+1, b.Orders.Load(), "its own certificate is named, and taken")

	b.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/order-plz" {
			return false
		}
		b.Orders.Add(1)
		problem(w, http.StatusTooManyRequests, "rateLimited", "too many")
		return true
	})
	orders = b.Orders.Load()
	_, err := i.Order(t.Context(), port.Order{Names: names, Replaces: &own}, b.zone.challenges(1))
	var limited *port.RateLimitError
	require.ErrorAs(t, err, &limited)
	require.Equal(t, orders+1, b.Orders.Load(), "how often is heeded")
}

func (b *bench) intercept(f func(w http.ResponseWriter, r *http.Request) bool) { b.Intercept.Store(&f) }

func problem(w http.ResponseWriter, status int, kind, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Replay-Nonce", "bm9uY2U")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"type":"urn:ietf:params:acme:error:%s","detail":%q,"status":%d}`, kind, detail, status)
}

// F7: what kind of failure it was decides how long to wait.
func TestFailuresAreToldApart(t *testing.T) {
	b := newBench(t, acmetest.Options{})
	i, _ := b.issuer(nil)
	b.order(i, 1, nil)
	limited := func(want time.Duration) func(t *testing.T, err error) {
		return func(t *testing.T, err error) {
			var limit *port.RateLimitError
			require.ErrorAs(t, err, &limit)
			require.InDelta(t, want.Seconds(), limit.RetryAfter.Seconds(), 2)
		}
	}
	is := func(want error) func(t *testing.T, err error) {
		return func(t *testing.T, err error) { require.ErrorIs(t, err, want) }
	}
	for name, c := range map[string]struct {
		path  string
		serve func(w http.ResponseWriter)
		want  func(t *testing.T, err error)
	}{
		"too many, for so long": {"/order-plz", func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "12345")
			problem(w, http.StatusTooManyRequests, "rateLimited", "too many certificates")
		}, limited(12345 * time.Second)},
		"too many, until then": {"/order-plz", func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", time.Now().Add(2*time.Hour).UTC().Format(http.TimeFormat))
			problem(w, http.StatusTooManyRequests, "rateLimited", "too many certificates")
		}, limited(2 * time.Hour)},
		"too many, without a word": {"/dir", func(w http.ResponseWriter) { w.WriteHeader(http.StatusTooManyRequests) }, limited(0)},
		"busy, for so long": {"/dir", func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "60")
			w.WriteHeader(http.StatusServiceUnavailable)
		}, limited(time.Minute)},
		"an error of its own": {"/order-plz", func(w http.ResponseWriter) {
			problem(w, http.StatusInternalServerError, "serverInternal", "oops")
		}, is(port.ErrAuthorityAway)},
		"a page of a proxy before it": {"/dir", func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusBadGateway)
			fmt.Fprint(w, strings.Repeat("<html>", 1000))
		}, func(t *testing.T, err error) {
			require.ErrorIs(t, err, port.ErrAuthorityAway)
			require.Less(t, len(err.Error()), 1000)
		}},
		"no":        {"/order-plz", func(w http.ResponseWriter) { problem(w, http.StatusForbidden, "rejectedIdentifier", "not that name") }, is(port.ErrRefused)},
		"not found": {"/dir", func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) }, is(port.ErrRefused)},
		"nonces that are never good": {"/order-plz", func(w http.ResponseWriter) {
			problem(w, http.StatusBadRequest, "badNonce", "again")
		}, is(context.DeadlineExceeded)},
		"a connection that breaks": {"/order-plz", func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, is(port.ErrAuthorityAway)},
	} {
		t.Run(name, func(t *testing.T) {
			b.intercept(func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path == c.path {
					c.serve(w)
				}
				return r.URL.Path == c.path
			})
			defer b.Intercept.Store(nil)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			_, err := i.Order(ctx, port.Order{Names: names}, b.zone.challenges(1))
			c.want(t, err)
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		i, err := acme.New(acme.Config{Directory: "https://127.0.0.1:1/dir", KeyType: acme.P256, Log: slog.New(slog.DiscardHandler)}, &certstore.Memory{})
		require.NoError(t, err)
		_, err = i.Order(t.Context(), port.Order{Names: names}, b.zone.challenges(1))
		require.ErrorIs(t, err, port.ErrAuthorityAway)
	})
	t.Run("somebody else there", func(t *testing.T) {
		i, err := acme.New(acme.Config{Directory: b.Directory, KeyType: acme.P256, Log: slog.New(slog.DiscardHandler)}, &certstore.Memory{})
		require.NoError(t, err)
		_, err = i.Order(t.Context(), port.Order{Names: names}, b.zone.challenges(1))
		require.ErrorContains(t, err, "certificate")
	})
	b.good(b.order(i, 1, nil))
}

func TestAnOrderEndsWithItsContextWhereverItHangs(t *testing.T) {
	b := newBench(t, acmetest.Options{})
	i, _ := b.issuer(nil)
	b.order(i, 1, nil)
	for _, path := range []string{"/dir", "/nonce-plz", "/order-plz", "/authZ/", "/chalZ/", "/finalize-order/", "/certZ/"} {
		t.Run(path, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			over := make(chan struct{})
			defer close(over)
			b.intercept(func(_ http.ResponseWriter, r *http.Request) bool {
				if !strings.HasPrefix(r.URL.Path, path) {
					return false
				}
				cancel()
				<-over
				return true
			})
			defer b.Intercept.Store(nil)
			_, err := i.Order(ctx, port.Order{Names: names}, b.zone.challenges(1))
			require.ErrorIs(t, err, context.Canceled)
			b.zone.empty(t)
		})
	}
	t.Run("at the controller", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := i.Order(ctx, port.Order{Names: names}, away{})
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

// away is a controller that never comes.
type away struct{ port.Challenges }

func (away) OneAtATime(ctx context.Context) (bool, error) {
	<-ctx.Done()
	return false, context.Cause(ctx)
}

func TestConfigurationsThatCannotWork(t *testing.T) {
	ok := acme.Config{Directory: acme.LetsEncrypt, KeyType: acme.P256}
	require.NoError(t, ok.Validate())
	for name, c := range map[string]struct {
		change func(*acme.Config)
		want   string
	}{
		"not https":      {func(c *acme.Config) { c.Directory = "http://ca.example/dir" }, "https"},
		"no URL":         {func(c *acme.Config) { c.Directory = "ca" }, "https"},
		"half a binding": {func(c *acme.Config) { c.EABKeyID = "x" }, "belong together"},
		"another half":   {func(c *acme.Config) { c.EABKey = port.Secret("eA") }, "belong together"},
		"a broken key":   {func(c *acme.Config) { c.EABKeyID, c.EABKey = "x", port.Secret("!!secret!!") }, "not base64url"},
		"a strange key":  {func(c *acme.Config) { c.KeyType = "dsa" }, `"dsa"`},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := ok
			c.change(&cfg)
			err := cfg.Validate()
			require.ErrorContains(t, err, c.want)
			require.NotContains(t, err.Error(), "!!secret!!")
		})
	}
}

func TestTheKeyIsPKCS8(t *testing.T) {
	b := newBench(t, acmetest.Options{})
	i, _ := b.issuer(nil)
	block, rest := pem.Decode(b.order(i, 1, nil).Key)
	require.Equal(t, "PRIVATE KEY", block.Type)
	require.Empty(t, rest)
}
