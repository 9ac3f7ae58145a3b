package httpproxy_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/httpproxy"
	"plane/system/name"
	"plane/system/port"
	"plane/system/protocol"
	"plane/system/route"
)

// plane is a data plane on a real listener, with a router that the test rules.
type plane struct {
	t       testing.TB
	addr    string // also the cluster's name
	router  *router
	handler *httpproxy.Handler
	log     *syncBuffer
	stop    func() // and wait
}

func start(t testing.TB, configure func(*httpproxy.Config)) *plane {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &plane{t: t, addr: listener.Addr().String(), router: newRouter(), log: &syncBuffer{}}
	cluster, err := name.ParseCluster(p.addr)
	require.NoError(t, err)
	log := slog.New(slog.NewTextHandler(p.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg := httpproxy.DefaultConfig(cluster, protocol.Version{Version: "0.6.0", GitHash: "abc"}, log)
	if configure != nil {
		configure(&cfg)
	}
	p.handler = httpproxy.New(cfg, p.router)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	server := httpproxy.Server{Handler: p.handler, Drain: 100 * time.Millisecond, Limits: httpproxy.DefaultLimits(), Log: log}
	go func() { served <- server.Serve(ctx, listener) }()
	p.stop = sync.OnceFunc(func() {
		cancel()
		require.NoError(t, <-served)
	})
	t.Cleanup(p.stop)
	return p
}

// backend starts a backend and returns a token that leads to it.
func (p *plane) backend(id string, handler http.HandlerFunc) string {
	p.t.Helper()
	s := httptest.NewServer(handler)
	p.t.Cleanup(s.Close)
	return p.leadTo(id, s.Listener.Addr().String())
}

// leadTo returns a token that leads to the address.
func (p *plane) leadTo(id, address string) string {
	return p.router.add(token(id), protocol.RouteInfo{BackendID: id, Address: address, Cluster: p.addr, SecretToken: "sesame"})
}

func (p *plane) url(token, rest string) string { return "http://" + p.addr + "/" + token + rest }

// get asks with the default client and returns the answer with its body read.
func (p *plane) get(url string) (*http.Response, string) {
	p.t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	require.NoError(p.t, err)
	return p.do(req)
}

// client neither follows redirects nor keeps connections.
var client = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func (p *plane) do(req *http.Request) (*http.Response, string) {
	p.t.Helper()
	res, err := client.Do(req)
	require.NoError(p.t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(p.t, err)
	return res, string(body)
}

// raw sends bytes over a connection of their own, which stays open.
func (p *plane) raw(format string, args ...any) net.Conn {
	p.t.Helper()
	conn, err := net.Dial("tcp", p.addr)
	require.NoError(p.t, err)
	p.t.Cleanup(func() { conn.Close() })
	_, err = fmt.Fprintf(conn, format, args...)
	require.NoError(p.t, err)
	return conn
}

// token makes up a token that looks like one.
func token(of string) string { return (of + strings.Repeat("x", 42))[:42] + "A" }

// router is a port.Router of fixed routes.
type router struct {
	mu     sync.Mutex
	ready  bool
	routes map[string]protocol.RouteInfo
	errs   map[string]error
	ends   map[string][]context.CancelCauseFunc
	voids  int // how many times Open is to fail
}

func newRouter() *router {
	return &router{ready: true, routes: map[string]protocol.RouteInfo{}, errs: map[string]error{}, ends: map[string][]context.CancelCauseFunc{}}
}

func (r *router) add(token string, info protocol.RouteInfo) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.routes[token] = info
	return token
}

func (r *router) fail(token string, err error) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errs[token] = err
	return token
}

// revoke ends what is open with the token.
func (r *router) revoke(token string) {
	r.mu.Lock()
	ends := r.ends[token]
	delete(r.routes, token)
	r.mu.Unlock()
	for _, end := range ends {
		end(route.ErrRevoked)
	}
}

func (r *router) Ready() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ready
}

func (r *router) Route(_ context.Context, token string) (protocol.RouteInfo, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.errs[token]; err != nil {
		return protocol.RouteInfo{}, err
	}
	info, ok := r.routes[token]
	if !ok {
		return protocol.RouteInfo{}, port.ErrNotFound
	}
	return info, nil
}

func (r *router) Open(ctx context.Context, token string, _ protocol.RouteInfo, _ bool) (context.Context, func(), error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.voids > 0 {
		r.voids--
		return nil, nil, port.ErrNotFound
	}
	ctx, end := context.WithCancelCause(ctx)
	r.ends[token] = append(r.ends[token], end)
	return ctx, func() { end(nil) }, nil
}

// syncBuffer is a log that can be read while it is written.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
