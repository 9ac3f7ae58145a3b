package httpproxy_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/httpproxy"
	"plane/adapters/tlsfiles/certtest"
	"plane/system/name"
	"plane/system/protocol"
)

const clusterHost = "c.test"

// secure is a plane that serves the cluster c.test over TLS.
type secure struct {
	*plane
	authority *certtest.Authority
	served    *served
	address   string // of the TLS listener
}

// served are certificates that the test hands over.
type served struct {
	mu          sync.Mutex
	certificate *tls.Certificate
	err         error
}

func (s *served) Current() (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.certificate, s.err
}

func (s *served) set(certificate *tls.Certificate, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.certificate, s.err = certificate, err
}

// knobs are what a test of TLS may change.
type knobs struct {
	config *httpproxy.Config
	server *httpproxy.Server
	rsa    bool
}

func startTLS(t testing.TB, configure func(*knobs)) *secure {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &secure{
		plane:     &plane{t: t, addr: clusterHost, router: newRouter(), log: &syncBuffer{}},
		authority: certtest.New(t), served: &served{}, address: listener.Addr().String(),
	}
	cluster, err := name.ParseCluster(clusterHost)
	require.NoError(t, err)
	log := slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg := httpproxy.DefaultConfig(cluster, protocol.Version{Version: "0.6.0", GitHash: "abc"}, log)
	cfg.Certificates = s.served
	server := httpproxy.Server{
		TLS: httpproxy.TLSConfig(cluster, s.served), Drain: 100 * time.Millisecond, Limits: httpproxy.DefaultLimits(), Log: log,
	}
	k := &knobs{config: &cfg, server: &server}
	if configure != nil {
		configure(k)
	}
	issue := s.authority.Issue
	if k.rsa {
		issue = s.authority.IssueRSA
	}
	s.served.set(s.authority.TLS(issue([]string{clusterHost, "*." + clusterHost})), nil)
	s.handler = httpproxy.New(cfg, s.router)
	server.Handler = s.handler
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, listener) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-ended)
	})
	t.Cleanup(s.stop)
	return s
}

func (s *secure) url(token, rest string) string { return "https://" + clusterHost + "/" + token + rest }

// trust is a client's configuration.
func (s *secure) trust() *tls.Config {
	return &tls.Config{RootCAs: s.authority.Pool(), ServerName: clusterHost}
}

// client speaks HTTP/2, or HTTP/1.1 only, over connections that it keeps.
func (s *secure) client(http2 bool) *http.Client {
	var protocols http.Protocols
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", s.address)
		},
		TLSClientConfig: s.trust(),
		Protocols:       &protocols,
	}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// dial shakes hands, which has to succeed.
func (s *secure) dial(config *tls.Config) *tls.Conn {
	s.t.Helper()
	conn, err := tls.Dial("tcp", s.address, config)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { conn.Close() })
	return conn
}

// fetch asks, and returns the answer with its body read.
func fetch(t testing.TB, c *http.Client, url string) (*http.Response, string) {
	t.Helper()
	res, err := c.Get(url)
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return res, string(body)
}

// closed waits until the server closes the connection.
func closed(t testing.TB, conn net.Conn) {
	t.Helper()
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(30*time.Second)))
	_, err := io.Copy(io.Discard, conn)
	var timeout net.Error
	if errors.As(err, &timeout) {
		require.False(t, timeout.Timeout(), "the connection stays open")
	}
}
