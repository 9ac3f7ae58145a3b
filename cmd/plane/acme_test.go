package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"plane/adapters/acme/acmetest"
	"plane/adapters/certstore"
	"plane/system/port"
)

const acmeCluster = "c1.example.test"

// receiver answers TXT questions with what the controller's store has, as by way
// of the DNS receiver.
func receiver(t *testing.T, store port.ChallengeStore) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &dns.Server{Listener: listener, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		answer := new(dns.Msg).SetReply(q)
		values, err := store.Challenges(context.Background(), []string{acmeCluster})
		if err != nil || q.Question[0].Qtype != dns.TypeTXT {
			values = nil
		}
		for _, v := range slices.Concat(values...) {
			answer.Answer = append(answer.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{v}})
		}
		_ = w.WriteMsg(answer)
	})}
	go server.ActivateAndServe()
	t.Cleanup(func() { _ = server.Shutdown() }) // it may not have begun
	return listener.Addr().String()
}

// lines is a log that may be read while it is written.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// acmeRig is a controller, an authority and settings for a proxy.
type acmeRig struct {
	*testing.T
	authority *acmetest.Authority
	settings  proxySettings
	log       lines
}

func newACMERig(t *testing.T, life uint64) *acmeRig {
	t.Helper()
	r := &acmeRig{T: t}
	log := slog.New(slog.NewTextHandler(&r.log, nil))
	controllerPort := freePort(t)
	bind := (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(controllerPort)}).String()
	c, err := prepareController(t.Context(), controllerSettings{Bind: bind, BestOf: 2, CleanupBatch: defaultCleanupBatch}, log)
	require.NoError(t, err)
	r.background(c.run)
	r.authority = acmetest.Start(t, acmetest.Options{Resolver: receiver(t, c.state), Life: life})
	roots := filepath.Join(t.TempDir(), "roots.pem")
	require.NoError(t, os.WriteFile(roots, r.authority.RootPEM, 0o600))
	plain, encrypted := freePort(t), freePort(t)
	r.settings = proxySettings{
		ControllerURL: "http://" + bind, Cluster: acmeCluster, Host: "127.0.0.1",
		Serving: servingSettings{HTTPS: true, HTTPPort: &plain, HTTPSPort: &encrypted},
		ACME:    acmeSettings{CertPath: filepath.Join(t.TempDir(), "cert.json"), Endpoint: r.authority.Directory, CAFile: roots},
	}
	return r
}

// background runs something until the test, or stop, ends it.
func (r *acmeRig) background(run func(ctx context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		_ = run(ctx) // it ends as told
		close(ended)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-ended
	})
	r.Cleanup(stop)
	return stop
}

// proxy starts the proxy.
func (r *acmeRig) proxy() (stop func()) {
	r.Helper()
	p, err := prepareProxy(r.Context(), r.settings, slog.New(slog.NewTextHandler(&r.log, nil)))
	require.NoError(r, err)
	return r.background(p.run)
}

// visit makes a request by HTTPS and returns the serial number of what was
// served; an error that the server has no certificate is an empty one.
func (r *acmeRig) visit() string {
	r.Helper()
	var serial string
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			d := tls.Dialer{Config: &tls.Config{RootCAs: r.authority.Issuers, ServerName: "x." + acmeCluster, MinVersion: tls.VersionTLS12}}
			conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(*r.settings.Serving.HTTPSPort))))
			if err == nil {
				serial = conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String()
			}
			return conn, err
		},
	}
	resp, err := (&http.Client{Transport: transport}).Get("https://x." + acmeCluster + "/ready")
	var refused *net.OpError
	if errors.As(err, &refused) && refused.Op == "remote error" {
		return ""
	}
	require.NoError(r, err)
	require.NoError(r, resp.Body.Close())
	return serial
}

// another visits until the certificate is another one than last.
func (r *acmeRig) another(last string) string {
	r.Helper()
	for began := time.Now(); time.Since(began) < time.Minute; {
		if now := r.visit(); now != last {
			require.NotEmpty(r, now, "there was one before")
			return now
		}
	}
	require.FailNow(r, "the certificate stays as it is", r.log.String())
	return ""
}

// TestAProxyGetsItsCertificateAndRenewsIt goes the whole way: the authority, the
// controller's store by way of DNS, and HTTPS. Every visit verifies.
func TestAProxyGetsItsCertificateAndRenewsIt(t *testing.T) {
	r := newACMERig(t, 15)
	r.proxy()
	serial := r.another("")
	for range 2 {
		serial = r.another(serial)
	}
	kept, err := os.ReadFile(r.settings.ACME.CertPath)
	require.NoError(t, err)
	require.NotContains(t, r.log.String(), "PRIVATE KEY", "G15")
	require.NotContains(t, r.log.String(), string(kept[len(kept)-120:len(kept)-60]), "G15: part of the key")
	require.Equal(t, int64(1), r.authority.Accounts.Load())
}

// G14.
func TestARestartedProxyOrdersNothing(t *testing.T) {
	r := newACMERig(t, 0)
	stop := r.proxy()
	serial := r.another("")
	stop()
	r.proxy()
	require.Equal(t, serial, r.another(""))
	require.Equal(t, int64(1), r.authority.Orders.Load())
}

func TestABrokenCertificateFileIsToldAndReplaced(t *testing.T) {
	r := newACMERig(t, 0)
	require.NoError(t, os.WriteFile(r.settings.ACME.CertPath, []byte("{"), 0o600))
	stop := r.proxy()
	r.another("")
	stop()
	require.Contains(t, r.log.String(), "the certificate that is kept cannot be used")
	files, err := certstore.Open(r.settings.ACME.CertPath)
	require.NoError(t, err)
	defer files.Close() //nolint:errcheck // only read from
	_, err = files.Load(t.Context())
	require.NoError(t, err)
}
