package drone_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/clock"
	"plane/system/backend"
	"plane/system/drone"
	"plane/system/lease"
	"plane/system/port"
	"plane/system/protocol"
)

var errFault = errors.New("injected fault")

// fault is what happens to one outside call.
type fault int

const (
	works     fault = iota
	fails           // without effect
	worksFail       // with its effect, and an error all the same
)

// rig is a drone's whole outside in memory: engine, disk and one controller. All
// of it outlives the drone, which can be crashed and started again.
type rig struct {
	t     *testing.T
	clock *clock.Monotonic
	cfg   drone.Config

	mu     sync.Mutex
	fault  func(call, id string) fault
	calls  []call
	cancel context.CancelCauseFunc
	ended  chan struct{}

	boot       string
	containers map[string]*container
	starts     map[string]int
	exits      chan string
	mute       bool // exits are not told
	stubborn   bool // containers ignore SIGTERM
	deaf       bool // nothing answers HTTP
	slowPull   time.Duration
	reject     error                 // of Validate
	runtime    port.ContainerRuntime // engine, unless a test has its own

	records  map[string]port.Record
	events   []port.Event
	lastID   int64
	guards   map[string]time.Time
	ports    map[string]int
	lastPort int
	stats    port.Stats

	conn      *conn
	unplugged bool
	silent    bool // the controller answers no renewals
	hoarding  bool // the controller acknowledges no events
	null      bool // the controller refuses renewals
	answer    func(protocol.RenewKey) protocol.Deadlines
	heard     []heard
}

type call struct {
	at       time.Time
	name, id string
}

type heard struct {
	at time.Time
	m  protocol.FromDrone
}

type container struct {
	port.Container
	spec port.ContainerSpec
}

func inBubble(t *testing.T, test func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cfg := drone.DefaultConfig("dr-test")
		cfg.Log = slog.New(slog.DiscardHandler)
		cfg.Timing.Prune = 0
		r := &rig{
			t: t, clock: clock.New(), cfg: cfg, boot: "boot 1", containers: map[string]*container{}, starts: map[string]int{},
			exits: make(chan string, 100), records: map[string]port.Record{}, guards: map[string]time.Time{}, ports: map[string]int{}, lastPort: 5000,
			fault: func(string, string) fault { return works }, cancel: func(error) {},
			answer: func(m protocol.RenewKey) protocol.Deadlines {
				return protocol.Deadlines(lease.Default().Deadlines(m.LocalTime.Time))
			},
		}
		defer r.crash()
		test(t, r)
	})
}

// start runs a drone and lets it come to rest.
func (r *rig) start() {
	ctx, cancel := context.WithCancelCause(context.Background())
	if r.runtime == nil {
		r.runtime = engine{r}
	}
	tasks := clock.NewTasks(ctx)
	d, err := drone.New(r.cfg, drone.World{
		Clock: r.clock, Tasks: tasks, Rand: clock.Rand{}, Dialer: r, Runtime: r.runtime, Prober: engine{r}, Ports: ports{r},
		Journal: journal{r}, Guard: guard{r}, Boot: r,
	})
	require.NoError(r.t, err)
	r.mu.Lock()
	r.cancel, r.ended = cancel, make(chan struct{})
	ended := r.ended
	r.mu.Unlock()
	go func() {
		defer close(ended)
		if err := d.Run(ctx); !errors.Is(err, errCrash) {
			r.t.Errorf("Run returned %v", err)
		}
	}()
	synctest.Wait()
}

var errCrash = errors.New("crash")

// crash stops the drone; what runs goes on running.
func (r *rig) crash() {
	r.mu.Lock()
	cancel, ended := r.cancel, r.ended
	r.mu.Unlock()
	cancel(errCrash)
	if ended != nil {
		<-ended
	}
}

// pass lets time pass.
func (r *rig) pass(d time.Duration) {
	require.NoError(r.t, r.clock.Sleep(context.Background(), d))
	synctest.Wait()
}

func (r *rig) call(ctx context.Context, name, id string, effect func() error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	r.calls = append(r.calls, call{r.clock.Now(), name, id})
	f := r.fault(name, id)
	if f == fails {
		return errFault
	}
	if err := effect(); err != nil {
		return err
	}
	if f == worksFail {
		return errFault
	}
	return nil
}

func (r *rig) BootID() string { return r.boot }

// Questions.

// outside is what there is besides the drone.
type outside struct {
	records    map[string]port.Record
	events     []port.Event
	containers map[string]*container
	starts     map[string]int
	guards     map[string]time.Time
	ports      map[string]int
}

func (r *rig) look() outside {
	r.mu.Lock()
	defer r.mu.Unlock()
	return outside{
		maps.Clone(r.records), slices.Clone(r.events), maps.Clone(r.containers), maps.Clone(r.starts),
		maps.Clone(r.guards), maps.Clone(r.ports),
	}
}

// greeting is the handshake of the present session.
func (r *rig) greeting() protocol.Handshake {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conn.hello
}

func (r *rig) hearing() []heard {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.heard)
}

// states are what the controller heard of a backend, without repetitions.
func (r *rig) states(id string) []backend.State {
	var all []backend.State
	seen := map[int64]bool{}
	for _, h := range r.hearing() {
		if e, ok := h.m.(protocol.BackendEvent); ok && e.BackendID == id && !seen[e.EventID] {
			seen[e.EventID] = true
			all = append(all, backend.State(e.State))
		}
	}
	return all
}

func (r *rig) statuses(id string) []string {
	var all []string
	for _, s := range r.states(id) {
		all = append(all, s.Status.String())
	}
	return all
}

func (r *rig) last(id string) backend.State {
	all := r.states(id)
	if len(all) == 0 {
		return backend.State{}
	}
	return all[len(all)-1]
}

// told returns when the controller heard of a status.
func (r *rig) told(id string, s backend.Status) time.Time {
	for _, h := range r.hearing() {
		if e, ok := h.m.(protocol.BackendEvent); ok && e.BackendID == id && e.State.Status == s {
			return h.at
		}
	}
	r.t.Fatalf("%s was never told to be %v, only %v", id, s, r.statuses(id))
	return time.Time{}
}

func count[M protocol.FromDrone](r *rig, which func(M) bool) int {
	n := 0
	for _, h := range r.hearing() {
		if m, ok := h.m.(M); ok && which(m) {
			n++
		}
	}
	return n
}

func (r *rig) acks(actionID string) int {
	return count(r, func(m protocol.AckAction) bool { return m.ActionID == actionID })
}

func (r *rig) renewals() int { return count(r, func(protocol.RenewKey) bool { return true }) }

// at returns when a call was made first, as its place among all calls.
func (r *rig) at(name, id string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.calls, func(c call) bool { return c.name == name && c.id == id })
	require.GreaterOrEqual(r.t, i, 0, "%s %s was never called", name, id)
	return i
}

func (r *rig) called(name, id string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, c := range r.calls {
		if c.name == name && c.id == id {
			n++
		}
	}
	return n
}

func (r *rig) running(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, ok := r.containers[id]
	return ok && c.Running
}
