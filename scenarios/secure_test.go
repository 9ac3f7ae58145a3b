package scenarios

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// secureProxy is a proxy that serves HTTPS.
type secureProxy struct {
	*process
	http, https string // its addresses
}

// addSecureProxy starts a proxy of a cluster that is served over HTTPS, on ports
// of its own. It need not be ready.
func (c *cluster) addSecureProxy(t *testing.T, suffix string, flags ...string) *secureProxy {
	t.Helper()
	plain, encrypted := strconv.Itoa(freePort(t)), strconv.Itoa(freePort(t))
	node := "px-" + c.id + "-" + suffix
	p := &secureProxy{http: "127.0.0.1:" + plain, https: "127.0.0.1:" + encrypted}
	p.process = c.newRole(t, node, slices.Concat([]string{"proxy", "--name", node, "--controller-url", "http://" + c.proxyLine.address(),
		"--cluster", c.name, "--https", "--http-port", plain, "--https-port", encrypted}, flags)...)
	p.start(t)
	return p
}

// awaitReady waits until the proxy says that it is ready. It says so on its
// plain port; the last reason why it was not is in the failure.
func (p *secureProxy) awaitReady(t *testing.T, within time.Duration) {
	t.Helper()
	eventually(t, within, p.name+" is ready", func() error {
		require.True(t, p.running(), "%s has ended: %v", p.name, p.err)
		resp, err := http.Get("http://" + p.http + "/ready")
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != http.StatusOK {
			err = errors.New(string(body))
		}
		return err
	})
}

// client trusts the roots and takes whatever it asks for to this proxy, each
// request over a connection of its own.
func (p *secureProxy) client(roots *x509.CertPool) *http.Client {
	return &http.Client{
		Timeout: 30 * time.Second,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", p.https)
			},
			TLSClientConfig:   &tls.Config{RootCAs: roots},
			DisableKeepAlives: true,
			ForceAttemptHTTP2: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// fetch asks, and returns the answer's body, which has to be a good one.
func fetch(client *http.Client, url string) (string, error) {
	resp, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("answered %s: %s", resp.Status, body)
	}
	return string(body), err
}

// presented is the certificate that the proxy shows to whoever trusts the roots
// and asks for the host.
func (p *secureProxy) presented(t *testing.T, roots *x509.CertPool, host string) *x509.Certificate {
	t.Helper()
	conn, err := tls.Dial("tcp", p.https, &tls.Config{RootCAs: roots, ServerName: host})
	require.NoError(t, err, "%s, asked for %s", p.name, host)
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0]
}
