package scenarios

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/tlsfiles/certtest"
)

// TestCertificateOfOnesOwn: a proxy serves a cluster with a certificate that it
// is given, takes up a new one without disturbing anybody, refuses a bad one,
// and tells backends who their clients are, also behind a balancer.
func TestCertificateOfOnesOwn(t *testing.T) {
	t.Parallel()
	const host = "c1.plane.test"
	c := startController(t, processes, host, "PLANE_LOG_LEVEL=debug")
	c.addDrone(t, "one")
	authority := certtest.New(t)
	certificate, key := filepath.Join(c.dir, "tls.crt"), filepath.Join(c.dir, "tls.key")
	install := func(p certtest.Pair) {
		require.NoError(t, os.WriteFile(key, p.Key, 0o600))
		require.NoError(t, os.WriteFile(certificate, p.Certificate, 0o600))
	}
	first := authority.Issue([]string{host, "*." + host})
	install(first)
	p := c.addSecureProxy(t, "one", "--tls-cert", certificate, "--tls-key", key, "--hsts-seconds", "60")
	p.awaitReady(t, 15*time.Second)
	client := p.client(authority.Pool())

	resp := c.ready(t, "k")
	require.Equal(t, "https://"+host+"/"+resp.Token+"/", resp.URL)
	body, err := fetch(client, resp.URL+"headers")
	require.NoError(t, err)
	require.Contains(t, body, `"X-Forwarded-Proto":["https"]`)
	ws := openSocketBy(t, client, resp.URL)
	ws.lives(t)

	_, metrics := get(t, "http://"+p.metrics+"/metrics")
	require.Contains(t, metrics, fmt.Sprintf("plane_proxy_certificate_expiry_timestamp_seconds %g", float64(authority.TLS(first).Leaf.NotAfter.Unix())))

	redirected, err := http.DefaultTransport.RoundTrip(plainRequest(t, "http://"+p.http+"/"+resp.Token+"/x?y", host))
	require.NoError(t, err)
	redirected.Body.Close()
	require.Equal(t, http.StatusMovedPermanently, redirected.StatusCode)
	require.Equal(t, resp.URL+"x?y", redirected.Header.Get("Location"))

	t.Run("a new one is taken up", func(t *testing.T) {
		before := p.presented(t, authority.Pool(), host).SerialNumber
		install(authority.Issue([]string{host, "*." + host}))
		p.signal(t, syscall.SIGHUP)
		eventually(t, 5*time.Second, "the new certificate is served", func() error {
			if p.presented(t, authority.Pool(), "room."+host).SerialNumber.Cmp(before) == 0 {
				return fmt.Errorf("it is still %v", before)
			}
			return nil
		})
		ws.lives(t)
	})
	t.Run("a bad one is refused", func(t *testing.T) {
		before := p.presented(t, authority.Pool(), host).SerialNumber
		install(authority.Issue([]string{"else.test"}))
		p.signal(t, syscall.SIGHUP)
		eventually(t, 10*time.Second, "the log has the reason", func() error {
			if !strings.Contains(p.log(), "the certificate is not for "+host+"; it is for else.test") {
				return fmt.Errorf("the log ends with: %s", tail(p.log(), 3))
			}
			return nil
		})
		require.Equal(t, before, p.presented(t, authority.Pool(), host).SerialNumber)
		ws.lives(t)
		other := newProcess(t, c.dir, "other", append(p.args, "--http-port", "0", "--https-port", "0")...)
		other.start(t)
		<-other.gone
		require.Equal(t, 2, other.cmd.ProcessState.ExitCode())
		require.Contains(t, other.log(), "--tls-cert and --tls-key: "+certificate+": the certificate is not for "+host)
		install(first)
	})
	t.Run("behind a balancer", func(t *testing.T) {
		b := c.addSecureProxy(t, "two", "--tls-cert", certificate, "--tls-key", key, "--proxy-protocol", "127.0.0.1")
		eventually(t, 15*time.Second, "a client is told from the balancer", func() error { return announced(b.https, authority, resp.URL) })
	})
	c.hidden(t, []string{strings.Split(string(first.Key), "\n")[1], resp.Token})
	ws.close()
	p.end(t, syscall.SIGTERM, 15*time.Second)
}

func plainRequest(t *testing.T, url, host string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	req.Host = host
	return req
}

// announced asks the way a balancer does that announces a client, and returns
// nil if the backend has been told of that one.
func announced(address string, authority *certtest.Authority, url string) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	fmt.Fprint(conn, "PROXY TCP4 203.0.113.7 198.51.100.1 40000 443\r\n")
	host, path, _ := strings.Cut(strings.TrimPrefix(url, "https://"), "/")
	secure := tls.Client(conn, &tls.Config{RootCAs: authority.Pool(), ServerName: host})
	fmt.Fprintf(secure, "GET /%sheaders HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, host)
	resp, err := http.ReadResponse(bufio.NewReader(secure), nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && !strings.Contains(string(body), `"X-Forwarded-For":["203.0.113.7"]`) {
		err = fmt.Errorf("answered %s: %s", resp.Status, body)
	}
	return err
}
