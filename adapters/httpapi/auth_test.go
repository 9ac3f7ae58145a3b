package httpapi_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/httpapi"
)

func newServer(t *testing.T, s surface) string {
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	return srv.URL
}

func fetch(t *testing.T, req *http.Request) (int, http.Header, string) {
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close() //nolint:errcheck // only read from
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, resp.Header, string(body)
}

// authService answers with status and gives out the requests it gets.
func authService(t *testing.T, status int) (string, <-chan *http.Request) {
	asked := make(chan *http.Request, 20)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || len(body) > 0 {
			t.Errorf("the auth service was sent a body: %q, %v", body, err)
		}
		asked <- r
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(status)
	}))
	t.Cleanup(srv.Close)
	return srv.URL + "/auth", asked
}

func TestForwardAuthIsAsked(t *testing.T) {
	url, asked := authService(t, http.StatusNoContent)
	s := newSurface(t, url)
	w := s.do("POST", "/ctrl/connect?x=1", `{}`,
		"Authorization", "Bearer T", "X-Custom", "one", "X-Custom", "two", "X-Original-Path", "/harmless",
		"Connection", "close, X-Hop", "X-Hop", "1", "Te", "trailers", "Content-Length", "2")
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	r := <-asked
	require.Equal(t, "POST", r.Method)
	require.Equal(t, "/auth", r.URL.Path)
	require.Equal(t, "Bearer T", r.Header.Get("Authorization"))
	require.Equal(t, []string{"one", "two"}, r.Header.Values("X-Custom"))
	require.Equal(t, []string{"/connect"}, r.Header.Values("X-Original-Path"))
	require.Empty(t, r.Header.Get("X-Hop"))
	require.Empty(t, r.Header.Get("Te"))
	require.Len(t, s.api.seen(), 1)
}

func TestForwardAuthSeesTheOneSpellingOfAPath(t *testing.T) {
	url, asked := authService(t, http.StatusOK)
	s := newSurface(t, url)
	require.Equal(t, http.StatusOK, s.do("GET", "/%63trl/c/%73ecret.test/st%61te", "").Code)
	require.Equal(t, "/c/secret.test/state", (<-asked).Header.Get("X-Original-Path"))
}

func TestForwardAuthRefuses(t *testing.T) {
	for _, status := range []int{http.StatusForbidden, http.StatusUnauthorized, http.StatusFound, http.StatusInternalServerError, http.StatusNotFound} {
		url, _ := authService(t, status)
		s := newSurface(t, url)
		for _, target := range []string{
			"POST /ctrl/connect", "GET /ctrl/status", "GET /ctrl/none", "GET /ctrl", "GET /%63trl/status", "HEAD /ctrl/status",
			"GET /ctrl/c/a.test/drone-socket", "GET /ctrl/c/a.test/proxy-socket", "GET /ctrl/dns-socket", "DELETE /ctrl/connect", "OPTIONS /ctrl/connect",
		} {
			method, path, _ := strings.Cut(target, " ")
			require.Equal(t, http.StatusUnauthorized, s.do(method, path, "{}").Code, "%s with %d", target, status)
		}
		for _, path := range []string{"//ctrl/status", "/pub/../ctrl/status", "/pub/%2e%2e/ctrl/status", "/./ctrl/status", "/ctrl/"} {
			require.Equal(t, http.StatusNotFound, s.do("GET", path, "").Code, path)
		}
		require.Empty(t, s.api.seen())
		require.Equal(t, http.StatusOK, s.do("GET", "/pub/health", "").Code, "/pub needs no authorisation")
	}
}

func TestForwardAuthDoesNotAnswer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close() //nolint:errcheck // test over
	t.Run("in time", func(t *testing.T) {
		s := newSurface(t, "http://"+l.Addr().String()) // accepts and says nothing
		began := time.Now()
		require.Equal(t, http.StatusBadGateway, s.do("POST", "/ctrl/connect", "{}").Code)
		require.Less(t, time.Since(began), httpapi.ForwardAuthTimeout+2*time.Second)
		require.Empty(t, s.api.seen())
	})
	t.Run("at all", func(t *testing.T) {
		require.NoError(t, l.Close())
		s := newSurface(t, "http://"+l.Addr().String())
		require.Equal(t, http.StatusBadGateway, s.do("POST", "/ctrl/connect", "{}").Code)
		require.Empty(t, s.api.seen())
	})
}

func TestStreamsEndWithSessions(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := newSurfaceUntil(ctx, t, "")
	s.api.endless = true
	resp, err := http.Get(newServer(t, s) + "/pub/b/b1/status-stream")
	require.NoError(t, err)
	defer resp.Body.Close() //nolint:errcheck // only read from
	cancel()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Contains(t, string(body), "id: scheduled")
}
