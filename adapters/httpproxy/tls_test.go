package httpproxy_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

func TestOnlyTLS12And13(t *testing.T) {
	s := startTLS(t, nil)
	for version, fine := range map[uint16]bool{
		tls.VersionTLS10: false, tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true,
	} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			config := s.trust()
			config.MinVersion, config.MaxVersion = version, version
			conn, err := tls.Dial("tcp", s.address, config)
			if !fine {
				require.ErrorContains(t, err, "protocol version")
				return
			}
			require.NoError(t, err)
			require.Equal(t, version, conn.ConnectionState().Version)
			require.NoError(t, conn.Close())
		})
	}
}

// Every suite of TLS 1.2 that Go knows, good and bad, with both kinds of keys.
func TestNoWeakSuites(t *testing.T) {
	good := map[string]bool{
		"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": true, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": true,
		"TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": true,
		"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256":         true, "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": true,
		"TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": true,
	}
	ecdsa, rsa := startTLS(t, nil), startTLS(t, func(k *knobs) { k.rsa = true })
	met := 0
	for _, suite := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
		if suite.SupportedVersions[0] == tls.VersionTLS13 {
			continue
		}
		accepted := false
		for _, s := range []*secure{ecdsa, rsa} {
			config := s.trust()
			config.MaxVersion, config.CipherSuites = tls.VersionTLS12, []uint16{suite.ID}
			if conn, err := tls.Dial("tcp", s.address, config); err == nil {
				require.Equal(t, suite.ID, conn.ConnectionState().CipherSuite)
				require.NoError(t, conn.Close())
				accepted = true
				met++
			}
		}
		require.Equal(t, good[suite.Name], accepted, suite.Name)
	}
	require.Equal(t, len(good), met, "each with its kind of key")
}

func TestALPN(t *testing.T) {
	s := startTLS(t, nil)
	for _, c := range []struct {
		name  string
		offer []string
		want  string
	}{
		{"both", []string{"http/1.1", "h2"}, "h2"},
		{"HTTP/1.1", []string{"http/1.1"}, "http/1.1"},
		{"none", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := s.trust()
			config.NextProtos = c.offer
			require.Equal(t, c.want, s.dial(config).ConnectionState().NegotiatedProtocol)
		})
	}
	config := s.trust()
	config.NextProtos = []string{"imap"}
	_, err := tls.Dial("tcp", s.address, config)
	require.ErrorContains(t, err, "no application protocol")
}

// oneSession gives the last session to whatever name is asked for.
type oneSession struct{ last *tls.ClientSessionState }

func (o *oneSession) Get(string) (*tls.ClientSessionState, bool)    { return o.last, o.last != nil }
func (o *oneSession) Put(_ string, session *tls.ClientSessionState) { o.last = session }

func TestSessionsResume(t *testing.T) {
	s := startTLS(t, nil)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			config := s.trust()
			config.MaxVersion, config.ClientSessionCache = version, &oneSession{}
			for _, resumed := range []bool{false, true} {
				conn := s.dial(config)
				fmt.Fprintf(conn, "GET /ready HTTP/1.1\r\nHost: c.test\r\nConnection: close\r\n\r\n")
				_, err := io.ReadAll(conn) // the ticket comes with it
				require.NoError(t, err)
				require.Equal(t, resumed, conn.ConnectionState().DidResume)
			}
			// A session of this cluster does not open it under another name.
			config.ServerName, config.InsecureSkipVerify = "else.test", true
			_, err := tls.Dial("tcp", s.address, config)
			require.ErrorContains(t, err, "unrecognized name")
		})
	}
}

func TestServerName(t *testing.T) {
	s := startTLS(t, nil)
	for sni, fine := range map[string]bool{
		"c.test": true, "room.c.test": true, "C.Test": true, "": true, "10.0.0.1": true, // an address is not sent
		"else.test": false, "test": false, "a.b.c.test": false, "c.test.else": false, "xc.test": false,
	} {
		t.Run("name "+sni, func(t *testing.T) {
			config := s.trust()
			config.ServerName, config.InsecureSkipVerify = sni, true
			conn, err := tls.Dial("tcp", s.address, config)
			if !fine {
				require.ErrorContains(t, err, "unrecognized name")
				return
			}
			require.NoError(t, err)
			require.NoError(t, conn.Close())
		})
	}
}

func TestHostOverTLS(t *testing.T) {
	s := startTLS(t, nil)
	tok := s.backend("one", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header.Get("X-Forwarded-Proto"), " ", r.Header.Get("X-Forwarded-For"), " ", r.Host)
	})
	for _, http2 := range []bool{false, true} {
		c := s.client(http2)
		for host, want := range map[string]int{"c.test": 200, "c.test:443": 200, "c.test:80": 403, "else.test": 403, "room.c.test": 403} {
			req, err := http.NewRequest(http.MethodGet, s.url(tok, "/"), nil)
			require.NoError(t, err)
			req.Host = host
			res, err := c.Do(req)
			require.NoError(t, err)
			body, err := io.ReadAll(res.Body)
			require.NoError(t, err)
			require.NoError(t, res.Body.Close())
			require.Equal(t, want, res.StatusCode, host)
			require.Equal(t, http2, res.ProtoMajor == 2)
			if want == 200 {
				require.Equal(t, "https 127.0.0.1 "+host, string(body))
			}
		}
	}
}

func TestWithoutACertificateNothingIsServedAndReadySaysWhy(t *testing.T) {
	s := startTLS(t, nil)
	plain := httptest.NewServer(s.handler.RedirectHTTPS())
	defer plain.Close()
	good, _ := s.served.Current()
	s.served.set(nil, errors.New("the authority is asked for one"))
	res, body := s.get(plain.URL + "/ready")
	require.Equal(t, 503, res.StatusCode)
	require.Equal(t, "503: There is no valid certificate: the authority is asked for one\n", body)
	_, err := tls.Dial("tcp", s.address, s.trust())
	require.ErrorContains(t, err, "internal error")

	s.served.set(good, nil)
	s.dial(s.trust())
	res, _ = s.get(plain.URL + "/ready")
	require.Equal(t, 200, res.StatusCode)
	redirected, err := http.NewRequest(http.MethodGet, plain.URL+"/other", nil)
	require.NoError(t, err)
	redirected.Host = clusterHost
	res, _ = s.do(redirected)
	require.Equal(t, 301, res.StatusCode)

	// The client's clock decides whether it has expired.
	s.served.set(good, errors.New("it has expired"))
	s.dial(s.trust())
	res, _ = s.get(plain.URL + "/ready")
	require.Equal(t, 503, res.StatusCode)
}

func TestNewCertificateLeavesConnectionsAlone(t *testing.T) {
	s := startTLS(t, nil)
	tok := s.backend("one", echoSocket)
	ws := s.socket(tok)
	before := s.dial(s.trust()).ConnectionState().PeerCertificates[0].SerialNumber
	s.served.set(s.authority.TLS(s.authority.Issue([]string{clusterHost})), nil)
	after := s.dial(s.trust()).ConnectionState().PeerCertificates[0].SerialNumber
	require.NotEqual(t, before, after)
	echoes(t, ws, "still here")
}

func TestHSTS(t *testing.T) {
	s := startTLS(t, func(k *knobs) { k.config.HSTS = time.Hour })
	tok := s.backend("one", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Strict-Transport-Security", "max-age=1; includeSubDomains; preload")
	})
	c := s.client(true)
	for _, url := range []string{s.url(tok, "/"), s.url(token("none"), "/"), "https://c.test/ready", "https://c.test/"} {
		res, _ := fetch(t, c, url)
		require.Equal(t, []string{"max-age=3600"}, res.Header["Strict-Transport-Security"], url)
	}
	plain := httptest.NewServer(s.handler.RedirectHTTPS())
	defer plain.Close()
	redirected, err := http.NewRequest(http.MethodGet, plain.URL+"/x", nil)
	require.NoError(t, err)
	redirected.Host = clusterHost
	res, _ := s.do(redirected)
	require.Equal(t, 301, res.StatusCode)
	require.Empty(t, res.Header["Strict-Transport-Security"], "over plain HTTP it counts for nothing")

	s = startTLS(t, nil)
	tok = s.backend("one", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Strict-Transport-Security", "max-age=1") })
	res, _ = fetch(t, s.client(true), s.url(tok, "/"))
	require.Equal(t, []string{"max-age=1"}, res.Header["Strict-Transport-Security"], "without it, the backend's matter")
}

func (s *secure) socket(tok string) *websocket.Conn {
	s.t.Helper()
	conn, res, err := websocket.Dial(s.t.Context(), "wss://c.test/"+tok+"/ws", &websocket.DialOptions{
		HTTPClient: s.client(false), Subprotocols: []string{"echo"},
	})
	require.NoError(s.t, err)
	require.Equal(s.t, "one", res.Header.Get("X-Plane-Backend-Id"))
	s.t.Cleanup(func() { conn.CloseNow() })
	return conn
}

func echoes(t *testing.T, conn *websocket.Conn, text string) {
	t.Helper()
	require.NoError(t, conn.Write(t.Context(), websocket.MessageText, []byte(text)))
	_, got, err := conn.Read(t.Context())
	require.NoError(t, err)
	require.Equal(t, text, string(got))
}

func TestWebSocketOverTLS(t *testing.T) {
	s := startTLS(t, nil)
	conn := s.socket(s.backend("one", echoSocket))
	echoes(t, conn, "hello")
	echoes(t, conn, "again")
	require.NoError(t, conn.Close(websocket.StatusNormalClosure, ""))
}

func TestG8RevocationClosesWebSocketsOverTLS(t *testing.T) {
	s := startTLS(t, nil)
	tok := s.backend("one", echoSocket)
	conn := s.socket(tok)
	echoes(t, conn, "hello")
	s.router.revoke(tok)
	_, _, err := conn.Read(t.Context())
	require.Error(t, err)
}

func TestServerThatStopsLetsRequestsEndAndClosesTheRest(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP/2 %v", http2), func(t *testing.T) {
			s := startTLS(t, func(k *knobs) { k.server.Drain = 5 * time.Second })
			reached, answer := make(chan struct{}), make(chan struct{})
			tok := s.backend("one", func(w http.ResponseWriter, _ *http.Request) {
				close(reached)
				<-answer
				fmt.Fprint(w, "done")
			})
			body := make(chan string, 1)
			c := s.client(http2)
			go func() {
				res, err := c.Get(s.url(tok, "/"))
				if err != nil {
					body <- err.Error()
					return
				}
				defer res.Body.Close()
				all, err := io.ReadAll(res.Body)
				body <- fmt.Sprint(string(all), err)
			}()
			<-reached
			stopped := make(chan struct{})
			go func() {
				s.stop()
				close(stopped)
			}()
			for { // until it accepts nothing more
				conn, err := tls.Dial("tcp", s.address, s.trust())
				if err != nil {
					break
				}
				conn.Close()
			}
			close(answer)
			require.Equal(t, "done<nil>", <-body)
			<-stopped
		})
	}
	t.Run("WebSocket", func(t *testing.T) {
		s := startTLS(t, nil)
		conn := s.socket(s.backend("one", echoSocket))
		s.stop()
		_, _, err := conn.Read(context.Background())
		require.Error(t, err)
	})
}
