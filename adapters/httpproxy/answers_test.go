package httpproxy_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/httpproxy"
	"plane/system/name"
	"plane/system/port"
	"plane/system/protocol"
)

const allowedHeaders = "*, Authorization"

func TestAnswers(t *testing.T) {
	p := start(t, func(c *httpproxy.Config) { c.AnswerTimeout = 50 * time.Millisecond })
	good := p.backend("good", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") })
	slow := p.backend("slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	rude := p.backend("rude", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	dead := httptest.NewServer(nil)
	dead.Close()
	gone := p.leadTo("gone", dead.Listener.Addr().String())
	sub := "room"
	info, err := p.router.Route(t.Context(), good)
	require.NoError(t, err)
	foreign := p.router.add(token("foreign"), protocol.RouteInfo{BackendID: "f", Address: info.Address, Cluster: "else.test"})
	info.Subdomain = &sub
	inRoom := p.router.add(token("room"), info)
	unready := p.router.fail(token("unready"), fmt.Errorf("late: %w", context.DeadlineExceeded))
	offline := p.router.fail(token("offline"), fmt.Errorf("cut off: %w", port.ErrUnavailable))
	broken := p.router.fail(token("broken"), errors.New("broken"))

	for _, c := range []struct {
		name, host, target string
		code               int
	}{
		{"good", p.addr, "/" + good + "/", 200},
		{"good without a slash", p.addr, "/" + good, 200},
		{"good with a query", p.addr, "/" + good + "?q", 200},
		{"absolute target", p.addr, "http://" + p.addr + "/" + good + "/", 200},
		{"root without a redirect", p.addr, "/", 400},
		{"ready", p.addr, "/ready", 200},
		{"ready under any host", "10.0.0.1", "/ready", 200},
		{"unknown token", p.addr, "/" + token("unknown") + "/", 410},
		{"no token at all", p.addr, "//", 410},
		{"other host", "else.test", "/" + good + "/", 403},
		{"other port", "127.0.0.1:1", "/" + good + "/", 403},
		{"no port", "127.0.0.1", "/" + good + "/", 403},
		{"subdomain that the backend has not", "room." + p.addr, "/" + good + "/", 403},
		{"subdomain", "room." + p.addr, "/" + inRoom + "/", 200},
		{"subdomain in capitals", "ROOM." + p.addr, "/" + inRoom + "/", 200},
		{"subdomain lacking", p.addr, "/" + inRoom + "/", 403},
		{"other subdomain", "hall." + p.addr, "/" + inRoom + "/", 403},
		{"subdomain twice", "room.room." + p.addr, "/" + inRoom + "/", 403},
		{"token of another cluster", p.addr, "/" + foreign + "/", 403},
		{"backend cannot be reached", p.addr, "/" + gone + "/", 502},
		{"backend breaks off", p.addr, "/" + rude + "/", 502},
		{"backend does not answer", p.addr, "/" + slow + "/", 504},
		{"backend does not start", p.addr, "/" + unready + "/", 504},
		{"no controller", p.addr, "/" + offline + "/", 503},
		{"router breaks", p.addr, "/" + broken + "/", 500},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := p.raw("GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", c.target, c.host)
			res := readResponse(t, conn)
			require.Equal(t, c.code, res.StatusCode)
			require.Equal(t, "Plane/0.6.0-abc", res.Header.Get("Server"))
			require.Equal(t, []string{"*"}, res.Header["Access-Control-Allow-Origin"])
			require.Equal(t, []string{"*"}, res.Header["Access-Control-Allow-Methods"])
			require.Equal(t, []string{allowedHeaders}, res.Header["Access-Control-Allow-Headers"])
			if c.code == 200 && c.target != "/ready" {
				require.Equal(t, "good", res.Header.Get("X-Plane-Backend-Id"))
			}
		})
	}
	for _, secret := range []string{good, gone, slow, rude, offline, broken, "sesame"} {
		require.NotContains(t, p.log.String(), secret, "G15")
	}
	require.Contains(t, p.log.String(), "backend=gone")
}

func TestNoHost(t *testing.T) {
	p := start(t, nil)
	good := p.backend("good", func(http.ResponseWriter, *http.Request) { t.Error("reached") })
	res := readResponse(t, p.raw("GET /%s/ HTTP/1.0\r\n\r\n", good))
	require.Equal(t, 400, res.StatusCode)
}

func TestNotReady(t *testing.T) {
	p := start(t, nil)
	p.router.mu.Lock()
	p.router.ready = false
	p.router.mu.Unlock()
	res, _ := p.get("http://" + p.addr + "/ready")
	require.Equal(t, 503, res.StatusCode)
}

func TestRootRedirect(t *testing.T) {
	p := start(t, func(c *httpproxy.Config) { c.RootRedirectURL = "https://example.com/home?x" })
	res, _ := p.get("http://" + p.addr + "/")
	require.Equal(t, 301, res.StatusCode)
	require.Equal(t, "https://example.com/home?x", res.Header.Get("Location"))
}

func TestRouteThatBecomesVoidIsAskedForAgain(t *testing.T) {
	p := start(t, nil)
	good := p.backend("good", func(http.ResponseWriter, *http.Request) {})
	p.router.voids = 1
	res, _ := p.get(p.url(good, "/"))
	require.Equal(t, 200, res.StatusCode)
	p.router.mu.Lock()
	p.router.voids = 100
	p.router.mu.Unlock()
	res, _ = p.get(p.url(good, "/"))
	require.Equal(t, 410, res.StatusCode)
}

func TestBackendWithAViewOnCORSKeepsIt(t *testing.T) {
	p := start(t, nil)
	for _, header := range []string{"Access-Control-Allow-Origin", "Access-Control-Allow-Methods", "Access-Control-Allow-Headers"} {
		own := p.backend("own", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(header, "mine")
			w.Header().Set("Server", "theirs")
		})
		res, _ := p.get(p.url(own, "/"))
		got := http.Header{}
		for key, values := range res.Header {
			if strings.HasPrefix(key, "Access-Control-") {
				got[key] = values
			}
		}
		require.Equal(t, http.Header{header: {"mine"}}, got)
		require.Equal(t, []string{"Plane/0.6.0-abc"}, res.Header["Server"])
	}
}

func TestRedirectHTTPS(t *testing.T) {
	for _, c := range []struct{ cluster, host, target, want string }{
		{"c.test", "c.test", "/a%2Fb?c=d", "https://c.test/a%2Fb?c=d"},
		{"c.test", "C.test:80", "/", "https://C.test/"},
		{"c.test", "room.c.test:8080", "/x?", "https://room.c.test/x?"},
		{"[::1]", "[::1]:80", "/x", "https://[::1]/x"},
		{"[::1]", "[::1]", "/x", "https://[::1]/x"},
		{"c.test", "", "/x", "400"},
		{"c.test", "evil.test", "/x", "403"},
		{"c.test", "evil.test:80", "/x", "403"},
		{"c.test", "a.b.c.test", "/x", "403"},
		{"c.test", "c.test@evil.test", "/x", "403"},
		{"c.test", "c.test/evil", "/x", "403"},
		{"[::1]", "[::2]:80", "/x", "403"},
	} {
		cluster, err := name.ParseCluster(c.cluster)
		require.NoError(t, err)
		h := httpproxy.New(httpproxy.DefaultConfig(cluster, protocol.Version{}, slog.New(slog.DiscardHandler)), newRouter())
		r := httptest.NewRequest(http.MethodGet, c.target, nil)
		r.Host = c.host
		w := httptest.NewRecorder()
		h.RedirectHTTPS().ServeHTTP(w, r)
		require.Equal(t, "*", w.Header().Get("Access-Control-Allow-Origin"))
		got := w.Header().Get("Location")
		if w.Code != 301 {
			got += strconv.Itoa(w.Code)
		}
		require.Equal(t, c.want, got, c.host)
	}
}

func TestHeadersTooLarge(t *testing.T) {
	p := start(t, nil)
	good := p.backend("good", func(http.ResponseWriter, *http.Request) { t.Error("reached") })
	conn := p.raw("GET /%s/ HTTP/1.1\r\nHost: %s\r\nX-Big: %s\r\n\r\n", good, p.addr, strings.Repeat("x", 2*httpproxy.DefaultLimits().HeaderBytes))
	require.Equal(t, 431, readResponse(t, conn).StatusCode)
}
