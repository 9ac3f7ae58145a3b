package porttest

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"

	"plane/system/backend"
	"plane/system/lease"
	"plane/system/port"
	"plane/system/protocol"
)

// StoresUnderTest are what several controllers have of one store, and what a
// test needs to disturb it. The store's seconds are whole ones, and its clock
// does not move by itself by more than a few of them.
type StoresUnderTest struct {
	// Stores are the controllers' ways to the store. What they are asked may fail
	// unclearly at any time.
	Stores []port.Store
	// Calm is another one, which does not fail.
	Calm port.Store
	// Advance lets d pass on the store's clock. It is called while nobody asks for
	// anything, and returns when nothing is under way that was asked for earlier.
	Advance func(d time.Duration)
	// Cut has connections break soon; how soon is up to it, or to the number
	// given. Nil: they never do.
	Cut func(soon int)
}

// How large a history is: so that it is checked in milliseconds, and yet every
// operation meets every other.
const (
	concurrentClients = 5
	concurrentKeys    = 3
	concurrentCalls   = 12 // of each client
	checkTime         = 5 * time.Second
	undecidedShare    = 20 // of so many histories one may have too many explanations to be checked in that time
)

// StoreConcurrently has several clients connect, route, renew, report, revoke and
// terminate at the same time on few keys, and do what operators do where all
// stores are port.Operations, by several controllers and with connections cut in
// between. It requires of each such history that it can be explained by the calls
// having happened one after the other. A call that failed unclearly may have
// happened at any time since it was made, or never; of one that renews several
// leases that goes for each of them by itself.
func StoreConcurrently(t *testing.T, histories int, s StoresUnderTest) {
	t.Helper()
	undecided := 0
	stats := runHistories(t, histories, s, func(n int, history []porcupine.Operation) {
		switch result := porcupine.CheckOperationsTimeout(keyModel, history, checkTime); result {
		case porcupine.Ok:
		case porcupine.Unknown:
			undecided++
		default:
			require.FailNow(t, "not linearizable", "history %d: %s\n%s", n, result, story(history))
		}
	})
	require.LessOrEqual(t, undecided, histories/undecidedShare, "histories that could not be checked in time")
	t.Logf("%d histories, %d of them undecided, %d calls, %d of them unclear", histories, undecided, stats.calls.Load(), stats.unclear.Load())
	if s.Cut != nil {
		require.Positive(t, stats.unclear.Load(), "no call ever failed unclearly: nothing was cut")
	}
}

// Linearizable reports whether all histories were, for tests of broken stores.
func Linearizable(t *testing.T, histories int, s StoresUnderTest) bool {
	t.Helper()
	good := true
	runHistories(t, histories, s, func(_ int, history []porcupine.Operation) {
		good = good && porcupine.CheckOperationsTimeout(keyModel, history, checkTime) == porcupine.Ok
	})
	return good
}

type concurrentStats struct{ calls, unclear atomic.Int64 }

// runHistories makes histories and shows each to check.
func runHistories(t *testing.T, histories int, s StoresUnderTest, check func(n int, history []porcupine.Operation)) *concurrentStats {
	t.Helper()
	ctx := t.Context()
	drone, err := s.Calm.RegisterNode(ctx, port.NodeRegistration{Kind: port.DroneNode, Cluster: cluster, Name: "dr-1", Controller: "co-1", Connection: "1"})
	require.NoError(t, err)
	stats := &concurrentStats{}
	for n := range histories {
		r := &race{StoresUnderTest: s, t: t, n: n, drone: drone, stats: stats, known: map[string][]string{}, held: map[string]string{}}
		r.operators = !slices.ContainsFunc(s.Stores, func(s port.Store) bool { _, ok := s.(port.Operations); return !ok })
		r.beat()
		var clients sync.WaitGroup
		for c := range concurrentClients {
			clients.Go(func() { r.client(ctx, c) })
		}
		clients.Wait()
		r.look(ctx)
		check(n, r.history)
	}
	return stats
}

// race is one history in the making.
type race struct {
	StoresUnderTest
	t     *testing.T
	n     int
	drone port.NodeID
	stats *concurrentStats
	// operators: all stores are port.Operations
	operators bool
	order     atomic.Int64 // of beginnings and ends of calls

	advancing sync.RWMutex // held for reading by those who call

	mu      sync.Mutex
	history []porcupine.Operation
	known   map[string][]string // by key, the backends that may be there
	held    map[string]string   // by key, the one that was last seen to hold it
	tokens  []keyInput          // connects, by whose tokens to route
}

func (r *race) key(i int) string { return fmt.Sprintf("h%d-k%d", r.n, i) }

// client makes its calls, each drawn from a stream of its own.
func (r *race) client(ctx context.Context, c int) {
	draw := rand.New(rand.NewPCG(uint64(r.n), uint64(c)))
	store := r.Stores[c%len(r.Stores)]
	cut := draw.IntN(concurrentCalls) // once in each history, and now and then
	for i := range concurrentCalls {
		if c == 0 && draw.IntN(5) == 0 {
			r.advance()
		}
		if r.Cut != nil && (c == 1 && i == cut || draw.IntN(150) == 0) {
			r.Cut(draw.IntN(20))
		}
		in := r.draw(draw, fmt.Sprintf("h%d-c%d-%d", r.n, c, i))
		for tries := 0; r.call(ctx, store, c, in...) && tries < 2 && draw.IntN(2) == 0; tries++ {
			// G12: what failed unclearly is tried again.
		}
		if in[0].call == callRenew {
			for range draw.IntN(4) { // a store may know by now who renews together
				r.call(ctx, store, c, in...)
			}
		}
	}
}

// draw chooses a call. One with several inputs renews their leases.
func (r *race) draw(draw *rand.Rand, id string) []keyInput {
	r.mu.Lock()
	defer r.mu.Unlock()
	in := keyInput{key: r.key(draw.IntN(concurrentKeys)), token: "t-" + id}
	known := r.known[in.key]
	kind := draw.IntN(22)
	if len(known) == 0 || kind < 5 {
		in.call, in.backend = callConnect, id
		r.known[in.key] = append(known, id)
		r.tokens = append(r.tokens, in)
		return []keyInput{in}
	}
	// Mostly the one that was asked for last.
	in.backend = known[max(0, len(known)-1-draw.IntN(2))]
	switch {
	case kind < 7:
		in.call, in.backend = callConnect, ""
		r.tokens = append(r.tokens, in)
	case kind < 11:
		return r.drawRenewals(draw, in)
	case kind < 15:
		in.call = callReport
		in.status = []backend.Status{backend.Ready, backend.Terminating, backend.Terminated, backend.Terminated}[draw.IntN(4)]
	case kind < 16:
		in.call = callTerminate
	case kind < 17:
		in.call = callRevoke
	case kind == 20 && r.operators:
		in.call = callPrevent
	case kind == 21 && r.operators:
		in.call = callLose
	default:
		in = r.tokens[draw.IntN(len(r.tokens))]
		in.call = callRoute
	}
	return []keyInput{in}
}

// drawRenewals asks for one, or as a drone does for all that it may have, one of
// each key.
func (r *race) drawRenewals(draw *rand.Rand, in keyInput) []keyInput {
	in.call, in.token = callRenew, ""
	all := []keyInput{in}
	if draw.IntN(4) == 0 {
		return all
	}
	for i := range concurrentKeys {
		key := r.key(i)
		switch id := r.held[key]; {
		case id == "":
		case key == in.key:
			all[0].backend = id
		case draw.IntN(8) > 0:
			all = append(all, keyInput{call: callRenew, key: key, backend: id})
		}
	}
	return all
}

// call makes a call, notes it, and reports whether it failed unclearly.
func (r *race) call(ctx context.Context, store port.Store, client int, ins ...keyInput) (unclear bool) {
	r.advancing.RLock()
	defer r.advancing.RUnlock()
	begin := r.order.Add(1)
	outs := r.ask(ctx, store, ins)
	end := r.order.Add(1)
	if unclear = outs[0].unclear; unclear {
		end = math.MaxInt64 // it may take effect at any later time
		r.stats.unclear.Add(1)
	}
	r.stats.calls.Add(1)
	if unclear && ins[0].call == callRoute { // which has no effect
		return unclear
	}
	for i, in := range ins {
		r.note(porcupine.Operation{ClientId: client, Input: in, Call: begin, Output: outs[i], Return: end})
	}
	return unclear
}

func (r *race) note(op porcupine.Operation) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history = append(r.history, op)
	if in, out := op.Input.(keyInput), op.Output.(keyOutput); in.call == callConnect && out.backend != "" {
		r.held[in.key] = out.backend
	}
}

// advance lets time pass for all keys, while nobody calls.
func (r *race) advance() {
	r.advancing.Lock()
	defer r.advancing.Unlock()
	begin := r.order.Add(1)
	r.Advance(concurrentStep * time.Second)
	r.beat()
	end := r.order.Add(1)
	for i := range concurrentKeys {
		r.note(porcupine.Operation{Input: keyInput{call: callAdvance, key: r.key(i)}, Output: keyOutput{}, Call: begin, Return: end})
	}
}

// beat keeps the drone a candidate for placement.
func (r *race) beat() {
	err := r.Calm.Heartbeats(r.t.Context(), []port.DroneHeartbeat{{Drone: r.drone, Connection: "1", LocalTime: droneClock.Add(time.Duration(r.order.Load()))}})
	if err != nil {
		r.t.Errorf("heartbeat: %v", err)
	}
}

// look asks at the end what became of each key, without being disturbed.
func (r *race) look(ctx context.Context) {
	for i := range concurrentKeys {
		r.call(ctx, r.Calm, concurrentClients, keyInput{call: callConnect, key: r.key(i), token: "t-end-" + strconv.Itoa(r.n)})
	}
	for _, in := range r.tokens {
		in.call = callRoute
		r.call(ctx, r.Calm, concurrentClients, in)
	}
}

// ask makes the call itself.
func (r *race) ask(ctx context.Context, store port.Store, ins []keyInput) []keyOutput {
	if ins[0].call != callRenew {
		return []keyOutput{r.askOne(ctx, store, ins[0])}
	}
	var renewals []port.Renewal
	for _, in := range ins {
		renewals = append(renewals, port.Renewal{Drone: r.drone, BackendID: in.backend, Lease: lease.Default()})
	}
	renewed, err := store.RenewKeys(ctx, renewals)
	outs := make([]keyOutput, len(ins))
	for i := range ins {
		outs[i] = answer(err, func() keyOutput { return keyOutput{yes: renewed[i]} })
	}
	return outs
}

func (r *race) askOne(ctx context.Context, store port.Store, in keyInput) keyOutput {
	switch in.call {
	case callConnect:
		return r.connect(ctx, store, in)
	case callPrevent:
		changed, err := store.(port.Operations).PreventRenew(ctx, in.backend)
		return answer(err, func() keyOutput { return keyOutput{yes: changed} })
	case callLose:
		left, err := store.(port.Operations).MarkLost(ctx, in.backend)
		return answer(err, func() keyOutput { return keyOutput{left: modelLeft(left)} })
	case callReport:
		outcomes, err := store.RecordStates(ctx, []port.StateReport{{Drone: r.drone, BackendID: in.backend, State: stateAt(in.status), Time: droneClock}})
		return answer(err, func() keyOutput { return keyOutput{outcome: outcomes[0]} })
	case callTerminate:
		err := store.Terminate(ctx, port.TerminateParams{BackendID: in.backend, ActionID: "ak-" + in.token, Kind: backend.Soft, Reason: backend.External})
		return answer(err, func() keyOutput { return keyOutput{} })
	case callRevoke:
		return answer(store.Revoke(ctx, in.backend, concurrentUser), func() keyOutput { return keyOutput{} })
	case callRoute:
		route, err := store.RouteToken(ctx, in.token)
		return answer(err, func() keyOutput { return keyOutput{backend: route.Info.BackendID, status: route.Status} })
	default:
		panic("no such call")
	}
}

// concurrentUser is whose all tokens are.
const concurrentUser = "u"

func (r *race) connect(ctx context.Context, store port.Store, in keyInput) keyOutput {
	user := concurrentUser
	p := port.ConnectParams{
		Key: protocol.Key{Name: in.key}, Token: in.token, SecretToken: "x", User: &user, TokenLife: time.Hour * 1000,
	}
	if in.backend != "" {
		p.Spawn = &port.SpawnParams{
			BackendID: in.backend, ActionID: "ak-" + in.backend, Cluster: cluster, Executable: json.RawMessage(`{"image":"x"}`),
			BestOf: 2, Healthy: 45 * time.Second, Lease: lease.Default(),
		}
	}
	c, err := store.Connect(ctx, p)
	out := answer(err, func() keyOutput { return keyOutput{backend: c.BackendID, status: c.Status, yes: c.Spawned} })
	if errors.Is(err, port.ErrKeyUnhealthy) {
		out.backend = c.BackendID
	}
	return out
}

// answer makes an output of what a call returned.
func answer(err error, clearly func() keyOutput) keyOutput {
	if err == nil {
		return clearly()
	}
	for _, sentinel := range []error{port.ErrNotFound, port.ErrKeyUnheld, port.ErrKeyHeld, port.ErrKeyUnhealthy, port.ErrNoDrone, port.ErrBackendExists} {
		if errors.Is(err, sentinel) {
			return keyOutput{refused: sentinel}
		}
	}
	return keyOutput{unclear: true}
}

// story tells the part of a history that cannot be explained, in the order of
// the calls' beginnings, each with its place in the longest explanation found.
func story(history []porcupine.Operation) string {
	for _, part := range keyModel.Partition(history) {
		result, info := porcupine.CheckOperationsVerbose(keyModel, part, checkTime)
		if result == porcupine.Ok {
			continue
		}
		var longest []porcupine.Operation
		for _, explained := range info.PartialLinearizationsOperations()[0] {
			if len(explained) > len(longest) {
				longest = explained
			}
		}
		slices.SortFunc(part, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
		var b strings.Builder
		for _, op := range part {
			place := slices.IndexFunc(longest, func(o porcupine.Operation) bool { return o.Call == op.Call && o.ClientId == op.ClientId })
			end := strconv.FormatInt(op.Return, 10)
			if op.Return == math.MaxInt64 {
				end = "?"
			}
			fmt.Fprintf(&b, "%3d  client %d  %5d to %5s  %s\n", place+1, op.ClientId, op.Call, end, keyModel.DescribeOperation(op.Input, op.Output))
		}
		return b.String()
	}
	return ""
}
