package proxy_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/clock"
	"plane/system/port"
	"plane/system/protocol"
	"plane/system/proxy"
)

var _ port.Router = (*proxy.Proxy)(nil)

// world is a proxy in a bubble, with a controller that the test plays by hand.
type world struct {
	*proxy.Proxy
	t          *testing.T
	ctx        context.Context
	clock      port.Clock
	controller *controller
}

// run runs the test in a bubble; configure may change the configuration.
func run(t *testing.T, configure func(*proxy.Config), test func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		cfg := proxy.DefaultConfig("px-test", protocol.Version{Version: "1", GitHash: "a"})
		if configure != nil {
			configure(&cfg)
		}
		w := &world{t: t, clock: clock.New(), controller: &controller{}}
		ctx, cancel := context.WithCancel(t.Context())
		w.ctx = ctx
		tasks := clock.NewTasks(ctx)
		p, err := proxy.New(cfg, w.clock, tasks, clock.Rand{}, w.controller, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		w.Proxy = p
		tasks.Go("proxy", func(ctx context.Context) { _ = p.Run(ctx) }) // it ends with the context, as told
		synctest.Wait()
		test(t, w)
		cancel()
		tasks.Stop()
	})
}

// sleep lets time pass and everything that it brings happen.
func (w *world) sleep(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // the time of the bubble
	synctest.Wait()
}

// cut breaks the session and keeps the controller away until heal.
func (w *world) cut() {
	w.controller.setDown(true)
	w.controller.link().Close("cut")
	synctest.Wait()
	require.False(w.t, w.Ready())
}

// heal lets the proxy in again and waits until it is there.
func (w *world) heal() {
	w.controller.setDown(false)
	for !w.Ready() {
		w.sleep(100 * time.Millisecond)
	}
	synctest.Wait()
}

// tell sends a message to the proxy and waits until it has had its effect.
func (w *world) tell(m protocol.ToProxy) {
	w.controller.link().toProxy <- protocol.EncodeToProxy(m)
	synctest.Wait()
}

// answer answers a question; nil: the token leads nowhere.
func (w *world) answer(token string, r *protocol.RouteInfo) {
	w.tell(protocol.RouteInfoResponse{Token: token, RouteInfo: r})
}

// heard returns and forgets what the proxy sent since the last call.
func (w *world) heard() []protocol.FromProxy {
	synctest.Wait()
	return w.controller.link().take()
}

// asked returns the tokens of the questions among heard.
func (w *world) asked() []string {
	var tokens []string
	for _, m := range w.heard() {
		if q, ok := m.(protocol.RouteInfoRequest); ok {
			tokens = append(tokens, q.Token)
		}
	}
	return tokens
}

// keptAlive returns the backends of the keep-alives among heard.
func (w *world) keptAlive() []string {
	var backends []string
	for _, m := range w.heard() {
		if k, ok := m.(protocol.KeepAlive); ok {
			backends = append(backends, k.Backend)
		}
	}
	return backends
}

// call is a Route under way.
type call struct {
	ended atomic.Bool
	info  protocol.RouteInfo
	err   error
	took  time.Duration
	stop  context.CancelFunc
}

func (c *call) done() bool { return c.ended.Load() }

// route starts a Route and runs it as far as it gets.
func (w *world) route(token string) *call {
	ctx, cancel := context.WithCancel(w.ctx)
	c := &call{stop: cancel}
	start := w.clock.Now()
	go func() {
		c.info, c.err = w.Route(ctx, token)
		c.took = w.clock.Now().Sub(start)
		c.ended.Store(true)
	}()
	synctest.Wait()
	return c
}

// routed returns a route that is known or asked for and answered now.
func (w *world) routed(token string, r protocol.RouteInfo) protocol.RouteInfo {
	w.t.Helper()
	c := w.route(token)
	if !c.done() {
		w.answer(token, &r)
	}
	require.True(w.t, c.done())
	require.NoError(w.t, c.err)
	return c.info
}

// open opens a use that must be possible.
func (w *world) open(token string, r protocol.RouteInfo, upgraded bool) (context.Context, func()) {
	w.t.Helper()
	use, done, err := w.Open(w.ctx, token, w.routed(token, r), upgraded)
	require.NoError(w.t, err)
	synctest.Wait()
	return use, done
}

// token makes a well-formed token up.
func token(c string) string { return strings.Repeat(c, 42) + "A" }

func to(backend string) protocol.RouteInfo {
	return protocol.RouteInfo{BackendID: backend, Address: "10.0.0.1:1000", Cluster: "c.test", SecretToken: "secret", UserData: json.RawMessage("null")}
}

func of(user, backend string) protocol.RouteInfo {
	r := to(backend)
	r.User = &user
	return r
}

// controller is the far end; it implements port.Dialer.
type controller struct {
	mu      sync.Mutex
	down    bool
	version string
	current *link
}

// speaks makes the next session one with a controller of that version.
func (c *controller) speaks(version string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.version = version
}

func (c *controller) setDown(down bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = down
}

func (c *controller) link() *link {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current
}

func (c *controller) Dial(context.Context) (port.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down {
		return nil, errors.New("controller is down")
	}
	c.current = &link{toProxy: make(chan []byte, 100), closed: make(chan struct{})}
	c.current.toProxy <- protocol.EncodeHandshake(protocol.Handshake{Version: protocol.Version{Version: c.version}, Name: "co-test"})
	return c.current, nil
}

// link is one session as the proxy sees it.
type link struct {
	toProxy chan []byte
	closed  chan struct{}
	once    sync.Once
	mu      sync.Mutex
	greeted bool
	got     []protocol.FromProxy
}

func (l *link) take() []protocol.FromProxy {
	l.mu.Lock()
	defer l.mu.Unlock()
	got := l.got
	l.got = nil
	return got
}

func (l *link) Send(_ context.Context, frame []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.closed:
		return port.ErrClosed
	default:
	}
	if !l.greeted {
		l.greeted = true
		return nil
	}
	m, err := protocol.DecodeFromProxy(frame)
	if err != nil {
		return err
	}
	l.got = append(l.got, m)
	return nil
}

func (l *link) Recv(ctx context.Context) ([]byte, error) {
	select {
	case frame := <-l.toProxy:
		return frame, nil
	case <-l.closed:
		return nil, port.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (l *link) Close(string) { l.once.Do(func() { close(l.closed) }) }
