package httpproxy_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

func readResponse(t *testing.T, conn net.Conn) *http.Response {
	t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	return res
}

func TestTargetAndHostGoThroughAsTheyCame(t *testing.T) {
	p := start(t, nil)
	dynamic := p.backend("one", echoTarget)
	info, err := p.router.Route(t.Context(), dynamic)
	require.NoError(t, err)
	static := p.router.add("s."+token("static"), info)
	for _, c := range []struct{ target, want, path string }{
		{"/T", "/", "/T"},
		{"/T/", "/", "/T/"},
		{"/T?", "/?", "/T"},
		{"/T?a=b;c&%zz", "/?a=b;c&%zz", "/T"},
		{"/T/a%2Fb/%41", "/a%2Fb/%41", "/T/a%2Fb/%41"},
		{"/T/a/../b/./c", "/a/../b/./c", "/T/a/../b/./c"},
		{"/T//evil.test/x", "//evil.test/x", "/T//evil.test/x"},
		{"/T///", "///", "/T///"},
		{`/T/"<>|^{}`, `/"<>|^{}`, `/T/"<>|^{}`},
		{"/T/ü", "/ü", "/T/ü"},
		{"/T/a?b?c", "/a?b?c", "/T/a"},
		{"http://HOST/T/a", "/a", "/T/a"},
		{"/S", "/S/", "/S"},
		{"/S/a%2Fb?c", "/S/a%2Fb?c", "/S/a%2Fb"},
	} {
		t.Run(c.target, func(t *testing.T) {
			fill := strings.NewReplacer("T", dynamic, "S", static, "HOST", p.addr).Replace
			res := readResponse(t, p.raw("GET %s HTTP/1.1\r\nHost: %s\r\n\r\n", fill(c.target), p.addr))
			require.Equal(t, 200, res.StatusCode)
			var got target
			require.NoError(t, json.NewDecoder(res.Body).Decode(&got))
			require.Equal(t, target{fill(c.want), p.addr, fill(c.path)}, got)
		})
	}
}

type target struct{ Target, Host, Path string }

func echoTarget(w http.ResponseWriter, r *http.Request) {
	_ = json.NewEncoder(w).Encode(target{r.RequestURI, r.Host, r.Header.Get("X-Verified-Path")})
}

func TestWhatABackendIsToldOfARequest(t *testing.T) {
	p := start(t, nil)
	seen := make(chan http.Header, 1)
	record := func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header }
	anonymous := p.backend("one", record)
	info, err := p.router.Route(t.Context(), anonymous)
	require.NoError(t, err)
	amy := "amy"
	info.User, info.UserData = &amy, json.RawMessage("{\n \"näme\": \"Ä😀\"}")
	known := p.router.add(token("amy"), info)

	const spoofed = "X-Verified-Username: root\r\nx-verified-USERNAME: root\r\nX_Verified_Username: root\r\nx-verified_secret: root\r\n" +
		"X-Verified-Role: root\r\nX-Verified-User-Data: root\r\nX-Verified-: root\r\nX-Forwarded-For: root\r\nx_forwarded_for: root\r\nX-Forwarded-Proto: root\r\n" +
		"Connection: X-Verified-Secret\r\n"
	want := http.Header{
		"X-Verified-Path": {"/" + anonymous + "/a"}, "X-Verified-Backend": {"one"}, "X-Verified-Secret": {"sesame"},
		"X-Forwarded-For": {"127.0.0.1"}, "X-Forwarded-Proto": {"http"},
		"X-Verifie": {"kept"}, "Cookie": {"a=b"},
	}
	res := readResponse(t, p.raw("GET /%s/a?q HTTP/1.1\r\nHost: %s\r\nX-Verifie: kept\r\nCookie: a=b\r\n%s\r\n", anonymous, p.addr, spoofed))
	require.Equal(t, 200, res.StatusCode)
	require.Equal(t, want, <-seen)

	want.Set("X-Verified-Path", "/"+known+"/a")
	want.Set("X-Verified-Username", "amy")
	want.Set("X-Verified-User-Data", `{"n\u00e4me":"\u00c4\ud83d\ude00"}`)
	res = readResponse(t, p.raw("GET /%s/a?q HTTP/1.1\r\nHost: %s\r\nX-Verifie: kept\r\nCookie: a=b\r\n%s\r\n", known, p.addr, spoofed))
	require.Equal(t, 200, res.StatusCode)
	require.Equal(t, want, <-seen)
}

func TestHopByHopHeadersStayOnTheirHop(t *testing.T) {
	p := start(t, nil)
	seen := make(chan http.Header, 1)
	tok := p.backend("one", func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Header
		w.Header().Set("Connection", "X-Theirs")
		w.Header().Set("X-Theirs", "1")
		w.Header().Set("Keep-Alive", "timeout=1")
	})
	res := readResponse(t, p.raw("GET /%s/ HTTP/1.1\r\nHost: %s\r\nConnection: keep-alive, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=9\r\nProxy-Connection: x\r\nTE: gzip\r\n\r\n", tok, p.addr))
	got := <-seen
	for _, key := range []string{"Connection", "X-Mine", "Keep-Alive", "Proxy-Connection", "Te"} {
		require.NotContains(t, got, key)
	}
	require.NotContains(t, res.Header, "X-Theirs")
	require.NotContains(t, res.Header, "Keep-Alive")
}

func TestG7IdleConnectionsBelongToOneBackend(t *testing.T) {
	p := start(t, nil)
	one := p.backend("one", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.RemoteAddr) })
	info, err := p.router.Route(t.Context(), one)
	require.NoError(t, err)
	info.BackendID = "two" // has the address of one by now
	two := p.router.add(token("two"), info)

	_, first := p.get(p.url(one, "/"))
	_, again := p.get(p.url(one, "/"))
	_, other := p.get(p.url(two, "/"))
	require.Equal(t, first, again)
	require.NotEqual(t, first, other)
}

func TestRequestThatMayNotBeRepeatedIsNot(t *testing.T) {
	p := start(t, nil)
	var posts atomic.Int32
	tok := p.backend("one", func(_ http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			posts.Add(1)
			panic(http.ErrAbortHandler)
		}
	})
	p.get(p.url(tok, "/")) // so that there is a connection to reuse
	req, err := http.NewRequest(http.MethodPost, p.url(tok, "/"), nil)
	require.NoError(t, err)
	res, _ := p.do(req)
	require.Equal(t, 502, res.StatusCode)
	require.EqualValues(t, 1, posts.Load())
}

func TestBackendOnIPv6(t *testing.T) {
	listener, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("this machine has no IPv6:", err)
	}
	p := start(t, nil)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "six") })}
	go server.Serve(listener) //nolint:errcheck // ends with Close
	t.Cleanup(func() { server.Close() })
	_, body := p.get(p.url(p.leadTo("six", listener.Addr().String()), "/"))
	require.Equal(t, "six", body)
}
