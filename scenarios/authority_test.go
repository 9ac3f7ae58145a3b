package scenarios

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/tlsfiles/certtest"
)

// authority is an ACME authority, Pebble, in a process of its own. What it has
// issued and whom it knows is gone when it stops, its root too.
type authority struct {
	*process
	directory string // its URL
	rootFile  string // trusts its HTTP server
	manage    string // URL of its own interface
	trust     *x509.CertPool
}

// authorityOptions are how an authority behaves; the zero value is quick and
// friendly.
type authorityOptions struct {
	slow   bool              // take some seconds to validate
	faults bool              // refuse good nonces, be slow, forget: as it does by default
	keys   map[string]string // accounts need one of these; by their ids
	life   time.Duration     // of certificates; 0: 90 days
}

var buildPebble = sync.OnceValues(func() (string, error) {
	path := filepath.Join(filepath.Dir(portsDB), "pebble")
	cmd := exec.Command("go", "build", "-trimpath", "-o", path, "github.com/letsencrypt/pebble/v2/cmd/pebble")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build pebble: %w\n%s", err, out)
	}
	return path, nil
})

// newAuthority starts an authority that resolves names by way of the resolver.
func newAuthority(t *testing.T, dir, resolver string, o authorityOptions) *authority {
	t.Helper()
	path, err := buildPebble()
	require.NoError(t, err)
	issuer := certtest.New(t)
	a := &authority{rootFile: filepath.Join(dir, "authority-root.pem"), trust: issuer.Pool()}
	pair := issuer.Issue([]string{"localhost"})
	certificate, key := filepath.Join(dir, "authority.crt"), filepath.Join(dir, "authority.key")
	for file, content := range map[string][]byte{a.rootFile: issuer.Root(), certificate: pair.Certificate, key: pair.Key} {
		require.NoError(t, os.WriteFile(file, content, 0o600))
	}
	listen, manage := fmt.Sprintf("localhost:%d", freePort(t)), fmt.Sprintf("localhost:%d", freePort(t))
	a.directory, a.manage = "https://"+listen+"/dir", "https://"+manage
	retry := 0
	if o.faults {
		retry = 1
	}
	life := o.life
	if life == 0 {
		life = 90 * 24 * time.Hour
	}
	config := filepath.Join(dir, "pebble.json")
	b, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": listen, "managementListenAddress": manage, "certificate": certificate, "privateKey": key,
		"httpPort": 5002, "tlsPort": 5001, "keyAlgorithm": "ecdsa",
		"externalAccountBindingRequired": len(o.keys) > 0, "externalAccountMACKeys": o.keys,
		"retryAfter": map[string]int{"authz": retry, "order": retry},
		"profiles":   map[string]any{"only": map[string]any{"description": "for this test", "validityPeriod": int(life / time.Second)}},
	}})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(config, b, 0o600))
	a.process = newProcess(t, dir, "pebble", "-config", config, "-dnsserver", resolver)
	a.path = path
	if !o.faults {
		a.env = append(a.env, "PEBBLE_WFE_NONCEREJECT=0", "PEBBLE_AUTHZREUSE=0")
	}
	if !o.faults && !o.slow {
		a.env = append(a.env, "PEBBLE_VA_NOSLEEP=1")
	}
	a.start(t)
	a.await(t)
	return a
}

// await waits until it answers.
func (a *authority) await(t *testing.T) {
	t.Helper()
	eventually(t, 15*time.Second, "the authority answers", func() error {
		_, err := fetch(a.client(), a.directory)
		return err
	})
}

func (a *authority) client() *http.Client {
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: a.trust}, DisableKeepAlives: true,
	}}
}

// roots are what a user has to trust for its certificates.
func (a *authority) roots(t *testing.T) *x509.CertPool {
	t.Helper()
	resp, err := a.client().Get(a.manage + "/roots/0")
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	require.True(t, pool.AppendCertsFromPEM(text), "%s", text)
	return pool
}
