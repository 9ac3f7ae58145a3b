// Package porttest holds a conformance suite for each port: what its comments
// say, as tests. The same suite runs on the fake and on the real thing, so that
// what is proven over the fake holds for the real thing.
//
// A suite is given a function that makes a fresh world for each test.
package porttest

import (
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"

	"plane/system/backend"
	"plane/system/port"
	"plane/system/protocol"
)

// Journal checks a port.Journal. Open is called once for each test and returns
// an empty journal, and what makes its process stop and start again: reopen
// gives the journal as it is found then.
func Journal(t *testing.T, open func(t *testing.T) (j port.Journal, reopen func() port.Journal)) {
	t.Run("a record comes back whole, also after a restart", func(t *testing.T) {
		j, reopen := open(t)
		rec := journalRecord("b1", backend.State{
			Status: backend.Terminated, Last: backend.Ready, Termination: backend.Hard,
			Reason: backend.KeyExpired, ExitCode: new(137), OOM: true, Message: "out of memory",
		})
		put(t, j, rec, nil)
		require.Empty(t, cmp.Diff([]port.Record{rec}, records(t, j)))
		require.Empty(t, cmp.Diff([]port.Record{rec}, records(t, reopen())))
	})
	t.Run("a record is replaced whole", func(t *testing.T) {
		j, _ := open(t)
		put(t, j, journalRecord("b1", backend.State{Status: backend.Ready, Address: "10.0.0.1:80"}), nil)
		bare := port.Record{BackendID: "b1", State: backend.State{Status: backend.Terminating, Last: backend.Ready}}
		put(t, j, bare, nil)
		require.Empty(t, cmp.Diff([]port.Record{bare}, records(t, j)))
	})
	t.Run("records are in order of backend", func(t *testing.T) {
		j, _ := open(t)
		for _, id := range []string{"c", "a", "b-1", "b"} {
			put(t, j, journalRecord(id, backend.State{Status: backend.Scheduled}), nil)
		}
		var got []string
		for _, r := range records(t, j) {
			got = append(got, r.BackendID)
		}
		require.Equal(t, []string{"a", "b", "b-1", "c"}, got)
	})
	t.Run("events are kept in order of id until acknowledged", func(t *testing.T) { journalEvents(t, open) })
	t.Run("ids grow for as long as the journal lives", func(t *testing.T) {
		j, reopen := open(t)
		rec := journalRecord("b1", backend.State{Status: backend.Loading})
		last := int64(0)
		for range 3 {
			id := put(t, j, rec, journalEvent(rec))
			require.Greater(t, id, last)
			last = id
			ack(t, j, id)
			j = reopen()
		}
	})
	t.Run("a record goes with the last event of its end", func(t *testing.T) { journalForgets(t, open) })
	t.Run("acknowledging what is not there changes nothing", func(t *testing.T) {
		j, _ := open(t)
		rec := journalRecord("b1", backend.State{Status: backend.Terminated, Last: backend.Ready})
		id := put(t, j, rec, journalEvent(rec))
		name, forgotten := ack(t, j, id+100)
		require.Empty(t, name)
		require.False(t, forgotten)
		require.Len(t, records(t, j), 1)
		require.Len(t, events(t, j), 1)
	})
	t.Run("many tasks at once", func(t *testing.T) {
		j, _ := open(t)
		const tasks, each = 8, 10
		var all sync.WaitGroup
		failed := make([]error, tasks)
		for n := range tasks {
			all.Go(func() {
				rec := journalRecord(fmt.Sprintf("b%d", n), backend.State{Status: backend.Loading})
				for range each {
					if _, err := j.Put(t.Context(), rec, journalEvent(rec)); err != nil {
						failed[n] = err
					}
				}
			})
		}
		all.Wait()
		for _, err := range failed {
			require.NoError(t, err)
		}
		require.Len(t, records(t, j), tasks)
		require.Len(t, events(t, j), tasks*each)
	})
}

func journalEvents(t *testing.T, open func(t *testing.T) (port.Journal, func() port.Journal)) {
	j, reopen := open(t)
	one := journalRecord("b1", backend.State{Status: backend.Loading})
	two := journalRecord("b2", backend.State{Status: backend.Waiting, Address: "10.0.0.1:80"})
	var want []port.Event
	for _, rec := range []port.Record{two, one, two} {
		e := journalEvent(rec)
		id := put(t, j, rec, e)
		want = append(want, port.Event{ID: id, BackendID: rec.BackendID, State: e.State, Time: e.Time})
	}
	require.Zero(t, put(t, j, one, nil), "no event, no id")
	require.Empty(t, cmp.Diff(want, events(t, j)))

	name, forgotten := ack(t, j, want[1].ID)
	require.Equal(t, "b1", name)
	require.False(t, forgotten, "the backend lives")
	want = []port.Event{want[0], want[2]}
	require.Empty(t, cmp.Diff(want, events(t, j)))
	require.Empty(t, cmp.Diff(want, events(t, reopen())), "after a restart")
}

func journalForgets(t *testing.T, open func(t *testing.T) (port.Journal, func() port.Journal)) {
	j, reopen := open(t)
	rec := journalRecord("b1", backend.State{Status: backend.Ready, Address: "10.0.0.1:80"})
	first := put(t, j, rec, journalEvent(rec))
	rec.State = backend.State{Status: backend.Terminated, Last: backend.Ready}
	last := put(t, j, rec, journalEvent(rec))
	other := journalRecord("b2", backend.State{Status: backend.Terminated, Last: backend.Ready})
	put(t, j, other, journalEvent(other))

	name, forgotten := ack(t, j, last)
	require.Equal(t, "b1", name)
	require.False(t, forgotten, "an event of it is left")
	name, forgotten = ack(t, j, first)
	require.Equal(t, "b1", name)
	require.True(t, forgotten)
	_, forgotten = ack(t, j, first)
	require.False(t, forgotten, "for the second time")
	require.Empty(t, cmp.Diff([]port.Record{other}, records(t, j)))
	require.Empty(t, cmp.Diff([]port.Record{other}, records(t, reopen())), "after a restart")
}

func journalRecord(id string, s backend.State) port.Record {
	at := time.Date(2030, 1, 2, 3, 4, 5, 678_901_234, time.UTC)
	return port.Record{
		BackendID: id,
		Spec: port.ContainerSpec{
			BackendID: id, Executable: json.RawMessage(`{"image":"demo","env":{"A":"é"}}`),
			Key:          protocol.Key{Name: "../k", Namespace: "n", Tag: "t"},
			FencingToken: 1<<53 + 1, StaticToken: "s.x", Port: 10001,
		},
		State:     s,
		Deadlines: protocol.Deadlines{RenewAt: at, SoftTerminateAt: at.Add(time.Second), HardTerminateAt: at.Add(time.Minute)},
		Port:      10001,
		Boot:      "boot",
		StopBy:    at.Add(time.Hour),
		ReadyBy:   at.Add(2 * time.Hour),
	}
}

func journalEvent(r port.Record) *port.Event {
	return &port.Event{BackendID: r.BackendID, State: r.State, Time: r.StopBy}
}

func put(t *testing.T, j port.Journal, rec port.Record, e *port.Event) int64 {
	t.Helper()
	id, err := j.Put(t.Context(), rec, e)
	require.NoError(t, err)
	return id
}

func records(t *testing.T, j port.Journal) []port.Record {
	t.Helper()
	got, err := j.Records(t.Context())
	require.NoError(t, err)
	return got
}

func events(t *testing.T, j port.Journal) []port.Event {
	t.Helper()
	got, err := j.Events(t.Context())
	require.NoError(t, err)
	return got
}

func ack(t *testing.T, j port.Journal, id int64) (string, bool) {
	t.Helper()
	name, forgotten, err := j.Ack(t.Context(), id)
	require.NoError(t, err)
	return name, forgotten
}
