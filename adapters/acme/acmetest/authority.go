// Package acmetest runs Let's Encrypt's test authority, Pebble, inside a test.
package acmetest

import (
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/stretchr/testify/require"
)

// Options are what differs from test to test.
type Options struct {
	Resolver string // that challenges are looked up with, over TCP
	// Life is how long certificates live, in seconds; 0: 90 days. They have the
	// profile "short" where it is set, and "default" else.
	Life uint64
	// EABKeys are the key ids and keys of external accounts, one of which is then
	// needed.
	EABKeys map[string]string
	// Faults leaves the faults on that Pebble makes by default: it refuses nonces,
	// is slow to look at challenges and reuses authorizations.
	Faults bool
}

// Authority is one that runs.
type Authority struct {
	Directory  string         // URL
	RootPEM    []byte         // of its HTTPS
	Roots      *x509.CertPool // of its HTTPS
	Issuers    *x509.CertPool // the roots of the certificates that it issues
	Accounts   atomic.Int64   // that were asked for
	Orders     atomic.Int64
	Validation atomic.Int64 // challenges that it was asked to look at

	// Intercept, where not nil, answers a request in Pebble's place if it returns
	// true.
	Intercept atomic.Pointer[func(w http.ResponseWriter, r *http.Request) bool]
	handler   http.Handler
}

// Pass has Pebble answer, for one who intercepts.
func (a *Authority) Pass(w http.ResponseWriter, r *http.Request) {
	a.count(r)
	a.handler.ServeHTTP(w, r)
}

// Start runs an authority until the test ends. It sets environment variables.
func Start(t *testing.T, o Options) *Authority {
	t.Helper()
	if !o.Faults {
		t.Setenv("PEBBLE_VA_NOSLEEP", "1")
		t.Setenv("PEBBLE_WFE_NONCEREJECT", "0")
		t.Setenv("PEBBLE_AUTHZREUSE", "0")
	}
	profiles := map[string]ca.Profile{"default": {Description: "90 days"}}
	if o.Life > 0 {
		profiles = map[string]ca.Profile{"short": {Description: "short", ValidityPeriod: o.Life}}
	}
	quiet := log.New(io.Discard, "", 0)
	store := db.NewMemoryStore()
	issuer := ca.New(quiet, store, "", "ecdsa", 0, 1, profiles)
	validator := va.New(quiet, 0, 0, false, o.Resolver, store)
	for id, key := range o.EABKeys {
		require.NoError(t, store.AddExternalAccountKeyByID(id, key))
	}
	retryAfter := 0
	if o.Faults {
		retryAfter = 1
	}
	front := wfe.New(quiet, store, validator, issuer, nil, true, len(o.EABKeys) > 0, retryAfter, retryAfter)
	a := &Authority{handler: front.Handler()}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if intercept := a.Intercept.Load(); intercept != nil && (*intercept)(w, r) {
			return
		}
		a.Pass(w, r)
	}))
	server.Config.ErrorLog = quiet
	server.StartTLS()
	t.Cleanup(server.Close)
	a.Directory = server.URL + wfe.DirectoryPath
	a.Roots, a.Issuers = x509.NewCertPool(), x509.NewCertPool()
	a.Roots.AddCert(server.Certificate())
	a.RootPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	require.True(t, a.Issuers.AppendCertsFromPEM(issuer.GetRootCert(0).PEM()))
	return a
}

func (a *Authority) count(r *http.Request) {
	switch path := r.URL.Path; {
	case path == "/sign-me-up":
		a.Accounts.Add(1)
	case path == "/order-plz":
		a.Orders.Add(1)
	case len(path) > len("/chalZ/") && path[:len("/chalZ/")] == "/chalZ/":
		a.Validation.Add(1)
	}
}
