package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"plane/adapters/clock"
	"plane/adapters/memory"
	"plane/adapters/postgres"
	"plane/adapters/postgres/pgtest"
	"plane/system/backend"
	"plane/system/lease"
	"plane/system/placement"
	"plane/system/port"
	"plane/system/protocol"
)

// kept is a store that a test fills, and that commands work on.
type kept struct {
	*testing.T
	port.Store
	open  func() *state
	drone port.NodeID
}

// keep fills a store with a drone, a proxy, and backends in several states.
func keep(t *testing.T, store port.Store, open func() *state) *kept {
	t.Helper()
	k := &kept{T: t, Store: store, open: open}
	k.drone = k.register(port.DroneNode, "dr-one", placement.Capacity{MaxBackends: 10, MilliCPUs: 4000, MemoryBytes: 8 << 30})
	k.register(port.ProxyNode, "px-one", placement.Capacity{})
	require.NoError(t, store.Heartbeats(t.Context(), []port.DroneHeartbeat{{Drone: k.drone, Connection: "1", LocalTime: time.Unix(1000, 0)}}))
	for _, id := range []string{"alfa", "bravo", "charlie", "delta"} {
		k.spawn(id)
	}
	k.report("alfa", backend.State{Status: backend.Ready, Address: "10.0.0.1:1"})
	k.report("delta", ended)
	require.NoError(t, store.Terminate(t.Context(), port.TerminateParams{BackendID: "bravo", ActionID: "ak-x", Kind: backend.Soft, Reason: backend.External}))
	return k
}

var ended = backend.State{Status: backend.Terminated, Last: backend.Ready, Reason: backend.Swept, Termination: backend.Soft}

func (k *kept) register(kind port.NodeKind, name string, c placement.Capacity) port.NodeID {
	k.Helper()
	id, err := k.RegisterNode(k.Context(), port.NodeRegistration{
		Kind: kind, Cluster: "a.test", Name: name, Controller: "co-one", Connection: "1", Version: protocol.Version{Version: "1.2.3"}, Capacity: c,
	})
	require.NoError(k, err)
	return id
}

func (k *kept) spawn(id string) {
	k.Helper()
	_, err := k.Connect(k.Context(), port.ConnectParams{
		Key: protocol.Key{Name: "key-" + id, Namespace: "n"}, Token: "token-" + id, TokenLife: time.Hour,
		Spawn: &port.SpawnParams{
			BackendID: id, ActionID: "ak-" + id, Cluster: "a.test", Executable: json.RawMessage(`{"image":"x"}`), BestOf: 1,
			Healthy: time.Minute, Lease: lease.Default(), Asks: placement.Resources{MilliCPUs: 500, MemoryBytes: 1 << 30},
		},
	})
	require.NoError(k, err)
}

func (k *kept) report(id string, states ...backend.State) {
	k.Helper()
	for _, s := range states {
		_, err := k.RecordStates(k.Context(), []port.StateReport{{Drone: k.drone, BackendID: id, State: s, Time: time.Unix(2000, 0)}})
		require.NoError(k, err)
	}
}

// inMemoryStore is one that plane db could not open by itself, but works on all the
// same.
func inMemoryStore(t *testing.T) *kept {
	store := memory.New(clock.New())
	return keep(t, store, func() *state {
		l := store.Listen()
		return &state{Store: store, Operations: store, listener: l, close: l.Close}
	})
}

// onBoth runs a test on a store in memory and on PostgreSQL.
func onBoth(t *testing.T, test func(t *testing.T, k *kept)) {
	t.Run("memory", func(t *testing.T) { test(t, inMemoryStore(t)) })
	t.Run("postgres", func(t *testing.T) {
		cfg := postgres.Config{URL: pgtest.Database(t)}
		store, err := postgres.Open(t.Context(), cfg)
		require.NoError(t, err)
		t.Cleanup(store.Close)
		test(t, keep(t, store, func() *state {
			own, err := postgres.Open(t.Context(), cfg)
			require.NoError(t, err)
			return inPostgres(own)
		}))
	})
}

// plane runs a db command and returns what it printed.
func (k *kept) plane(ctx context.Context, w io.Writer, args ...string) error {
	return k.run(ctx, w, io.Discard, args...)
}

func (k *kept) run(ctx context.Context, w, notes io.Writer, args ...string) error {
	d := &db{}
	d.open = func(context.Context, *cobra.Command, bool) (*state, error) { return k.open(), nil }
	cmd := d.command()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(args)
	cmd.SetOut(w)
	cmd.SetErr(notes)
	return cmd.ExecuteContext(ctx)
}

func (k *kept) prints(args ...string) string {
	k.Helper()
	var out bytes.Buffer
	require.NoError(k, k.plane(k.Context(), &out, args...))
	return out.String()
}

// column returns the first word of each line.
func column(text string) []string {
	var words []string
	for line := range strings.Lines(text) {
		words = append(words, strings.Fields(line)[0])
	}
	return words
}

func TestDBListsSayWhereTheyAreCut(t *testing.T) {
	k := inMemoryStore(t)
	for _, c := range []struct {
		line  string
		shown int
		more  bool
	}{
		{"list-backends --limit 2", 2, true},
		{"list-backends --limit 3", 3, false},
		{"list-backends --limit 1000000", 3, false},
		{"list-backends --ended --limit 3", 3, true},
		{"termination-candidates --limit 1", 1, false},
	} {
		var out, notes bytes.Buffer
		require.NoError(t, k.run(t.Context(), &out, &notes, strings.Fields(c.line)...))
		require.Len(t, column(out.String()), 1+c.shown, c.line)
		require.Equal(t, c.more, strings.Contains(notes.String(), "there are more than these"), c.line)
	}
}

func TestDBLists(t *testing.T) {
	onBoth(t, lists)
}

func lists(t *testing.T, k *kept) {
	nodes := k.prints("list-nodes")
	require.Regexp(t, `a\.test +dr-one +connected +3 of 10 +1\.5 of 4 +3GiB of 8GiB +[0-9]s ago +1\.2\.3 +co-one`, nodes)
	require.Regexp(t, `a\.test +px-one +connected`, nodes)

	for filter, want := range map[string][]string{
		"":                                   {"alfa", "bravo", "charlie"},
		"--ended":                            {"alfa", "bravo", "charlie", "delta"},
		"--status ready":                     {"alfa"},
		"--status ready --status terminated": {"alfa", "delta"},
		"--status ready,terminated":          {"alfa", "delta"},
		"--cluster a.test":                   {"alfa", "bravo", "charlie"},
		"--drone dr-one --key key-bravo":     {"bravo"},
		"--namespace n --limit 2":            {"alfa", "bravo"},
		"--cluster b.test":                   nil,
		"--namespace=":                       nil,
	} {
		got := column(k.prints(append([]string{"list-backends"}, strings.Fields(filter)...)...))
		if want == nil {
			require.Equal(t, []string{"no"}, got, filter)
			continue
		}
		require.Equal(t, append([]string{"BACKEND"}, want...), got, filter)
	}
	require.Regexp(t, `delta +n/key-delta +terminated .* dr-one +a\.test +idle or past its lifetime, soft termination`, k.prints("list-backends", "--ended"))
	require.Regexp(t, `bravo +scheduled +its end was asked for +soft +dr-one`, k.prints("termination-candidates"))
}

func TestDBListsForPrograms(t *testing.T) {
	onBoth(t, listsForPrograms)
}

func listsForPrograms(t *testing.T, k *kept) {
	read := func(args ...string) (list []map[string]any) {
		require.NoError(t, json.Unmarshal([]byte(k.prints(append(args, "--json")...)), &list))
		return list
	}
	nodes := read("list-nodes")
	require.Len(t, nodes, 2)
	require.Equal(t, "drone", nodes[0]["kind"])
	require.InDelta(t, 3, nodes[0]["drone"].(map[string]any)["backends"], 0)
	require.NotContains(t, nodes[1], "drone")
	backends := read("list-backends", "--status", "ready")
	require.Len(t, backends, 1)
	require.Equal(t, "10.0.0.1:1", backends[0]["address"])
	require.Equal(t, "ready", backends[0]["status"])
	require.Equal(t, "a.test", backends[0]["cluster"])
	require.Equal(t, map[string]any{"name": "key-alfa", "namespace": "n", "tag": ""}, backends[0]["key"])
	candidates := read("termination-candidates")
	require.Len(t, candidates, 1)
	require.Equal(t, "soft", candidates[0]["termination"])
	require.NotNil(t, read("list-backends", "--cluster", "b.test"), "a list, though an empty one")
}

func TestDBChanges(t *testing.T) {
	onBoth(t, changes)
}

func changes(t *testing.T, k *kept) {
	require.Contains(t, k.prints("prevent-renew", "alfa"), "the lease of alfa is not renewed any more")
	require.Contains(t, k.prints("prevent-renew", "alfa"), "already")
	require.JSONEq(t, `{"backend_id":"alfa","changed":false}`, k.prints("prevent-renew", "alfa", "--json"))
	renewed, err := k.RenewKeys(t.Context(), []port.Renewal{{Drone: k.drone, BackendID: "alfa", Lease: lease.Default()}})
	require.NoError(t, err)
	require.Equal(t, []bool{false}, renewed)
	require.Contains(t, k.prints("mark-lost", "charlie"), "charlie counts as lost in ")
	require.Regexp(t, `alfa .*renewed no more(.|\n)*charlie .*marked as lost`, k.prints("termination-candidates"))
	for _, command := range []string{"prevent-renew", "mark-lost"} {
		for _, id := range []string{"delta", "nobody"} {
			require.ErrorContains(t, k.plane(t.Context(), io.Discard, command, id), fmt.Sprintf("there is no backend %q, or it is terminated", id))
		}
	}
	require.Equal(t, "0 backends and tokens are deleted\n", k.prints("cleanup", "--min-age-days", "1"))
	require.JSONEq(t, `{"deleted":0}`, k.prints("cleanup", "--min-age-days", "1", "--json"))
}

func TestDBCleanupGoesOnUntilAllIsDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := inMemoryStore(t)
		for i := range 25 {
			k.spawn(fmt.Sprint("more", i))
			k.report(fmt.Sprint("more", i), ended)
		}
		time.Sleep(25 * time.Hour) //nolint:forbidigo // the time of the bubble
		require.Equal(t, "29 backends and tokens are deleted\n", k.prints("cleanup", "--min-age-days", "1", "--batch", "10"), "26 backends, and the tokens of the others")
	})
}

// A mistake is told before anything is asked of a database, which may be away.
func TestDBMistakes(t *testing.T) {
	k := &kept{T: t, open: func() *state {
		require.Fail(t, "the database was opened")
		return nil
	}}
	for line, says := range map[string]string{
		"list-backends --status nope":        `--status: no such backend status: "nope"`,
		"list-backends --cluster a_b":        "--cluster:",
		"list-backends --limit 0":            "--limit: want 1 to 1000000, not 0",
		"termination-candidates --limit 0":   "--limit: want 1 to 1000000, not 0",
		"cleanup":                            "--min-age-days: want 1 to 36500 days, not 0",
		"cleanup --min-age-days 1 --batch 0": "--batch: want 1",
		"mark-lost":                          "accepts 1 arg",
	} {
		err := k.plane(t.Context(), io.Discard, strings.Fields(line)...)
		require.ErrorContains(t, err, says, line)
		var wrong usageError
		require.ErrorAs(t, err, &wrong, line)
	}
}

// paper is what events are printed on.
type paper struct {
	mu    sync.Mutex
	text  bytes.Buffer
	empty bool // there is none
}

func (p *paper) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.empty {
		return 0, io.ErrClosedPipe
	}
	return p.text.Write(b)
}

// lines returns the events that have been printed, as "backend status".
func (p *paper) lines(t *testing.T) []string {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	var shown []string
	for line := range strings.Lines(p.text.String()) {
		var e event
		require.NoError(t, json.Unmarshal([]byte(line), &e))
		shown = append(shown, e.BackendID+" "+e.Status.String())
	}
	return shown
}

// blind is a listener that is told less than what happens.
type blind struct {
	port.Listener
	tell chan port.Hint
	cut  chan error
}

func (b blind) Next(ctx context.Context) (port.Hint, error) {
	select {
	case h := <-b.tell:
		return h, nil
	case err := <-b.cut:
		return port.Hint{}, err
	case <-ctx.Done():
		return port.Hint{}, context.Cause(ctx)
	}
}

var starting, ready = backend.State{Status: backend.Starting}, backend.State{Status: backend.Ready, Address: "10.0.0.1:1"}

func TestDBEventsAreToldAsTheyHappen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := inMemoryStore(t)
		ctx, stop := context.WithCancelCause(t.Context())
		var out paper
		var over error
		var ran sync.WaitGroup
		ran.Go(func() { over = k.plane(ctx, &out, "events", "--json") })
		require.Empty(t, out.lines(t), "what was before is no event")
		k.report("charlie", starting, ready)
		k.spawn("echo")
		k.report("echo", starting)
		k.report("alfa", ended)
		require.Equal(t, []string{"charlie starting", "charlie ready", "echo scheduled", "echo starting", "alfa terminated"}, out.lines(t))
		stop(errStopped)
		ran.Wait()
		require.ErrorIs(t, over, errStopped)
	})
}

// G3, for who looks at the database: hints that are lost, doubled, late or out of
// order change nothing.
func TestDBEventsMissNothingThatHintsMiss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := inMemoryStore(t)
		b := blind{tell: make(chan port.Hint), cut: make(chan error)}
		open := k.open
		k.open = func() *state {
			s := open()
			s.listener = b
			return s
		}
		var out paper
		go func() { _ = k.plane(t.Context(), &out, "events", "--json") }()
		synctest.Wait()
		hint := func(topic port.Topic, subject string) { b.tell <- port.Hint{Topic: topic, Subject: subject} }
		k.report("charlie", starting, ready)
		k.spawn("echo")
		k.report("echo", starting)
		hint(port.BackendTopic, "charlie")
		hint(port.BackendTopic, "charlie")
		hint(port.BackendTopic, "nobody")
		hint(port.ActionTopic, "1")
		require.Equal(t, []string{"charlie starting", "charlie ready"}, out.lines(t))
		k.report("charlie", ended)
		k.report("alfa", ended)
		b.cut <- errors.New("the connection broke")
		hint(port.ResyncTopic, "")
		require.Equal(t, []string{"charlie starting", "charlie ready"}, out.lines(t)[:2])
		require.ElementsMatch(t, []string{"echo scheduled", "echo starting", "charlie terminated", "alfa terminated"}, out.lines(t)[2:])
		hint(port.BackendTopic, "alfa")
		hint(port.ResyncTopic, "")
		require.Len(t, out.lines(t), 6, "nothing twice")
	})
}

// The hint of a controller that stopped before it gave it comes never.
func TestDBEventsMissNothingThatNoHintTellsOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := inMemoryStore(t)
		b := blind{tell: make(chan port.Hint)}
		open := k.open
		k.open = func() *state {
			s := open()
			s.listener = b
			return s
		}
		var out paper
		go func() { _ = k.plane(t.Context(), &out, "events", "--json") }()
		synctest.Wait()
		k.report("charlie", starting)
		k.report("alfa", ended)
		require.Empty(t, out.lines(t))
		for range 5 { // other hints do not put it off
			time.Sleep(2 * time.Second) //nolint:forbidigo // the time of the bubble
			b.tell <- port.Hint{Topic: port.ActionTopic, Subject: "1"}
		}
		require.ElementsMatch(t, []string{"charlie starting", "alfa terminated"}, out.lines(t))
		k.report("charlie", ready)
		time.Sleep(lookEvery + time.Second) //nolint:forbidigo // the time of the bubble
		require.Len(t, out.lines(t), 3)
	})
}

func TestDBEventsFromPostgreSQL(t *testing.T) {
	cfg := postgres.Config{URL: pgtest.Database(t)}
	store, err := postgres.Open(t.Context(), cfg)
	require.NoError(t, err)
	defer store.Close()
	k := keep(t, store, func() *state {
		own, err := postgres.Open(t.Context(), cfg)
		require.NoError(t, err)
		return inPostgres(own)
	})
	ctx, stop := context.WithCancelCause(t.Context())
	read, write := io.Pipe()
	told, notes := io.Pipe()
	var ran sync.WaitGroup
	var over error
	ran.Go(func() { over = k.run(ctx, write, notes, "events", "--json") })
	_, err = bufio.NewReader(told).ReadString('\n') // that it listens
	require.NoError(t, err)
	events := json.NewDecoder(read)
	next := func() string {
		var e event
		require.NoError(t, events.Decode(&e))
		return e.BackendID + " " + e.Status.String() + " " + e.Key.Name
	}
	k.report("charlie", starting, ready)
	require.Equal(t, "charlie starting key-charlie", next())
	require.Equal(t, "charlie ready key-charlie", next())
	k.spawn("echo")
	k.report("echo", ended)
	require.Equal(t, "echo scheduled key-echo", next())
	require.Equal(t, "echo terminated key-echo", next())
	stop(errStopped)
	ran.Wait()
	require.ErrorIs(t, over, errStopped)
}

func TestDBEventsEndWhenNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := inMemoryStore(t)
		var over error
		var ran sync.WaitGroup
		ran.Go(func() { over = k.plane(t.Context(), &paper{empty: true}, "events") })
		synctest.Wait()
		k.report("charlie", ready)
		ran.Wait()
		require.ErrorIs(t, over, io.ErrClosedPipe)
	})
}

func TestDBEventsForPeople(t *testing.T) {
	var out bytes.Buffer
	e := event{BackendID: "alfa", Cluster: "a.test", Drone: "dr-one", StatusEntry: protocol.NewStatusEntry(ended, protocol.Millis{Time: time.Unix(2000, 0)})}
	require.NoError(t, e.line(&out))
	require.Regexp(t, `^1970-01-01 \d\d:33:20  alfa            terminated        dr-one  a\.test  idle or past its lifetime, soft termination\n$`, out.String())
}

// The whole way, as typed: from the flags to the database and back.
func TestDBCommandsAsTyped(t *testing.T) {
	url := pgtest.Database(t)
	store, err := postgres.Open(t.Context(), postgres.Config{URL: url})
	require.NoError(t, err)
	defer store.Close()
	keep(t, store, nil)
	password := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(password, []byte("not asked for\n"), 0o600))
	t.Setenv("PLANE_DB", url)
	requirePrinted(t, "db list-nodes --db-password-file "+password, `a\.test +dr-one +connected`)
	requirePrinted(t, "db list-backends --key key-alfa", `alfa +n/key-alfa +ready`)
	requirePrinted(t, "db termination-candidates", `bravo +scheduled +its end was asked for`)
	requirePrinted(t, "db mark-lost alfa", `alfa counts as lost in`)
	requirePrinted(t, "db prevent-renew alfa --json", `"changed": false`)
	requirePrinted(t, "db cleanup --min-age-days 1", `0 backends`)
}

func requirePrinted(t *testing.T, line, want string) {
	t.Helper()
	var out, errs bytes.Buffer
	require.Zero(t, run(strings.Fields(line), &out, &errs), "%s\n%s", line, errs.String())
	require.Regexp(t, want, out.String(), line)
}

func TestDBCommandsNeedASchema(t *testing.T) {
	server := pgtest.Server(t, pgtest.Options{})
	var out, errs bytes.Buffer
	require.Equal(t, exitFailed, run([]string{"db", "list-nodes", "--db", server.URL()}, &out, &errs))
	require.Contains(t, errs.String(), "run plane migrate")
}
