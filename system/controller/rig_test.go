package controller_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/clock"
	"plane/adapters/memory"
	"plane/system/backend"
	"plane/system/controller"
	"plane/system/lease"
	"plane/system/port"
	"plane/system/protocol"
)

// rig is a controller on an in-memory store, in a bubble.
type rig struct {
	*testing.T
	*controller.Controller
	clock *clock.Monotonic
	tasks *clock.Tasks
	store *flaky

	listen func() port.Listener // to the store, for one more controller
}

const cluster = "localhost:9090"

// inBubble runs a test with a controller whose hints pass the filter.
func inBubble(t *testing.T, pass func(port.Hint) bool, test func(r *rig)) {
	t.Helper()
	listening(t, func(l port.Listener) port.Listener { return sieve{l, pass} }, test)
}

// listening runs a test with a controller that hears the store through what
// wrap makes of its listener.
func listening(t *testing.T, wrap func(port.Listener) port.Listener, test func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c, tasks := clock.New(), clock.NewTasks(t.Context())
		store := &flaky{}
		inner := memory.New(storeClock{c, store})
		store.Store = inner
		r := &rig{T: t, clock: c, tasks: tasks, store: store, listen: func() port.Listener { return wrap(inner.Listen()) }}
		defer tasks.Stop()
		test(r.join("co-1", func(*controller.Config) {}))
	})
}

// join starts a controller on the rig's store.
func (r *rig) join(name string, configure func(*controller.Config)) *rig {
	r.Helper()
	cfg := controller.Config{
		Name: name, ControllerURL: "http://ctl", DefaultCluster: cluster, BestOf: 2,
		Version: protocol.Version{Version: "test"}, Timing: controller.DefaultTiming(), Lease: lease.Default(),
		Log: slog.New(slog.DiscardHandler),
	}
	configure(&cfg)
	ctl, err := controller.New(cfg, r.clock, r.tasks, clock.Rand{}, r.store, r.listen())
	require.NoError(r, err)
	r.tasks.Go("controller", func(ctx context.Context) { _ = ctl.Run(ctx) })
	other := *r
	other.Controller = ctl
	synctest.Wait()
	return &other
}

// pass lets the bubble's time go by.
func pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // the time of the bubble
	synctest.Wait()
}

func everyHint(port.Hint) bool { return true }
func noHint(port.Hint) bool    { return false }

// sieve loses the hints that do not pass.
type sieve struct {
	port.Listener
	pass func(port.Hint) bool
}

func (s sieve) Next(ctx context.Context) (port.Hint, error) {
	for {
		hint, err := s.Listener.Next(ctx)
		if err != nil || s.pass(hint) {
			return hint, err
		}
	}
}

// vague is a listener that has fallen behind: it tells that something has
// happened, with or without an error, and not what.
type vague struct {
	port.Listener
	err error
}

func (v vague) Next(ctx context.Context) (port.Hint, error) {
	if _, err := v.Listener.Next(ctx); err != nil {
		return port.Hint{}, err
	}
	return port.Hint{Topic: port.ResyncTopic}, v.err
}

// flaky is a store whose next calls of some kinds fail after they have been
// committed.
type flaky struct {
	port.Store
	away                                   atomic.Bool  // it answers neither polls nor keep-alives nor sweeps
	stood                                  atomic.Int64 // for how long its clock has stood still
	calls                                  atomic.Int64 // of any kind
	connects, states, keepAlives, renewals atomic.Int32
	additions                              atomic.Int32           // uses that were noted one by one
	uncommitted                            atomic.Pointer[string] // a user whose revocations are not visible yet
	renewedMu                              sync.Mutex
	renewed                                []int // of each RenewKeys, how many
	challenges                             atomic.Int32
	lookUp                                 atomic.Pointer[lookUp] // comes before challenges are read
	looked                                 func(look int32)       // at a key, when nobody has been told yet what it found
	looks                                  atomic.Int32
}

var errUnclear = errors.New("the connection broke")

func failing(n *atomic.Int32) bool { return n.Add(-1) >= 0 }

func (f *flaky) Connect(ctx context.Context, p port.ConnectParams) (port.Connected, error) {
	found, err := f.Store.Connect(ctx, p)
	if look := f.looks.Add(1); f.looked != nil {
		f.looked(look)
	}
	if failing(&f.connects) {
		return port.Connected{}, errUnclear
	}
	return found, err
}

func (f *flaky) RecordStates(ctx context.Context, reports []port.StateReport) ([]port.RecordOutcome, error) {
	outcomes, err := f.Store.RecordStates(ctx, reports)
	if failing(&f.states) {
		return nil, errUnclear
	}
	return outcomes, err
}

func (f *flaky) RenewKeys(ctx context.Context, renewals []port.Renewal) ([]bool, error) {
	f.renewedMu.Lock()
	f.renewed = append(f.renewed, len(renewals))
	f.renewedMu.Unlock()
	renewed, err := f.Store.RenewKeys(ctx, renewals)
	if failing(&f.renewals) {
		return nil, errUnclear
	}
	return renewed, err
}

// batches returns of how many keys each call was to renew.
func (f *flaky) batches() []int {
	f.renewedMu.Lock()
	defer f.renewedMu.Unlock()
	return slices.Clone(f.renewed)
}

func (f *flaky) KeepAlive(ctx context.Context, u port.ProxyUse) error {
	if f.away.Load() || failing(&f.keepAlives) {
		return errUnclear
	}
	if !u.Complete {
		f.additions.Add(int32(len(u.Backends)))
	}
	return f.Store.KeepAlive(ctx, u)
}

func (f *flaky) Revocations(ctx context.Context, within time.Duration) ([]port.Revocation, time.Time, error) {
	if f.away.Load() {
		return nil, time.Time{}, errUnclear
	}
	recent, now, err := f.Store.Revocations(ctx, within)
	if user := f.uncommitted.Load(); user != nil {
		recent = slices.DeleteFunc(recent, func(r port.Revocation) bool { return r.User == *user })
	}
	return recent, now, err
}

func (f *flaky) Sweep(ctx context.Context, p port.SweepParams) (int, bool, error) {
	if f.away.Load() {
		return 0, false, errUnclear
	}
	return f.Store.Sweep(ctx, p)
}

func (f *flaky) AddChallenge(ctx context.Context, cluster string, proxy port.NodeID, value string, life time.Duration) error {
	if failing(&f.challenges) {
		return errUnclear
	}
	return f.Store.AddChallenge(ctx, cluster, proxy, value, life)
}

// lookUp is told whose challenges are read; its error is what comes of it.
type lookUp func(ctx context.Context, clusters []string) error

func (f *flaky) Challenges(ctx context.Context, clusters []string) ([][]string, error) {
	if before := f.lookUp.Load(); before != nil {
		if err := (*before)(ctx, clusters); err != nil {
			return nil, err
		}
	}
	return f.Store.Challenges(ctx, clusters)
}

// storeClock is a store's clock. It may have stood still for a while, and it is
// read once in each call of the store.
type storeClock struct {
	*clock.Monotonic
	store *flaky
}

func (c storeClock) Now() time.Time {
	c.store.calls.Add(1)
	return c.Monotonic.Now().Add(-time.Duration(c.store.stood.Load()))
}

// peer is the far end of a session.
type peer struct {
	r       *rig
	in, out chan []byte
	closed  chan struct{}
}

func (r *rig) dial(serve func(ctx context.Context, conn port.Conn) error, hello string) *peer {
	return r.greet(serve, protocol.Handshake{Name: hello})
}

func (r *rig) greet(serve func(ctx context.Context, conn port.Conn) error, hello protocol.Handshake) *peer {
	p := &peer{r: r, in: make(chan []byte, 1000), out: make(chan []byte, 1000), closed: make(chan struct{})}
	r.tasks.Go("session", func(ctx context.Context) { _ = serve(ctx, (*conn)(p)) })
	hello.Version = protocol.Version{Version: "test"}
	p.in <- protocol.EncodeHandshake(hello)
	_, err := protocol.DecodeHandshake(<-p.out, "co-")
	require.NoError(r, err)
	synctest.Wait()
	return p
}

func (r *rig) drone(name string) *peer { return r.droneWith(name, nil) }

func (r *rig) droneWith(name string, has *protocol.Capacity) *peer {
	serve := func(ctx context.Context, c port.Conn) error { return r.ServeDrone(ctx, cluster, "", c) }
	p := r.greet(serve, protocol.Handshake{Name: name, Capacity: has})
	p.say(protocol.Heartbeat{LocalTime: protocol.Millis{Time: time.UnixMilli(1_000_000)}})
	return p
}

func (r *rig) proxy(name string) *peer {
	return r.dial(func(ctx context.Context, c port.Conn) error { return r.ServeProxy(ctx, cluster, c) }, name)
}

func (p *peer) say(m any) {
	switch m := m.(type) {
	case protocol.FromDrone:
		p.in <- protocol.EncodeFromDrone(m)
	case protocol.FromProxy:
		p.in <- protocol.EncodeFromProxy(m)
	}
	synctest.Wait()
}

// heard returns what has come by now.
func (p *peer) heard() (frames [][]byte) {
	synctest.Wait()
	for {
		select {
		case f := <-p.out:
			frames = append(frames, f)
		default:
			return frames
		}
	}
}

func toDrone[M any](p *peer) (all []M) {
	for _, f := range p.heard() {
		m, err := protocol.DecodeToDrone(f)
		require.NoError(p.r, err)
		if m, ok := m.(M); ok {
			all = append(all, m)
		}
	}
	return all
}

func toProxy[M any](p *peer) (all []M) {
	for _, f := range p.heard() {
		m, err := protocol.DecodeToProxy(f)
		require.NoError(p.r, err)
		if m, ok := m.(M); ok {
			all = append(all, m)
		}
	}
	return all
}

// report has a drone say that a backend has reached a status.
func (p *peer) report(backendID string, s backend.State) {
	p.say(protocol.BackendEvent{EventID: int64(s.Status), BackendID: backendID, State: protocol.State(s), Timestamp: protocol.Millis{Time: p.r.clock.Now()}})
}

var ready = backend.State{Status: backend.Ready, Address: "127.0.0.1:8000"}

func terminated(reason backend.Reason) backend.State {
	return backend.State{Status: backend.Terminated, Last: backend.Ready, Termination: backend.Soft, Reason: reason}
}

// conn is the controller's end of a peer.
type conn peer

func (c *conn) Send(ctx context.Context, msg []byte) error {
	select {
	case c.out <- msg:
		return nil
	case <-c.closed:
		return port.ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (c *conn) Recv(ctx context.Context) ([]byte, error) {
	select {
	case msg := <-c.in:
		return msg, nil
	case <-c.closed:
		return nil, port.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (c *conn) Close(string) {
	select {
	case <-c.closed:
	default:
		close(c.closed)
	}
}

func request(t *testing.T, body string) (req protocol.ConnectRequest) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(body), &req))
	return req
}

func (r *rig) connect(body string) protocol.ConnectResponse {
	r.Helper()
	answer, err := r.Connect(r.Context(), request(r.T, body))
	require.NoError(r, err)
	synctest.Wait()
	return answer
}

const spawnBoard = `{"key":{"name":"board","namespace":"","tag":""},"spawn_config":{"executable":{"image":"x"},"max_idle_seconds":30}}`
