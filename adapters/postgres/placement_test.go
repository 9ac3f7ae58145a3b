package postgres_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"plane/adapters/postgres"
	"plane/adapters/postgres/pgtest"
	"plane/system/backend"
	"plane/system/placement"
	"plane/system/port"
)

// limited makes a drone that says what it has.
func (d *database) limited(name string, has placement.Capacity) port.NodeID {
	d.t.Helper()
	id, err := d.RegisterNode(d.t.Context(), port.NodeRegistration{Kind: port.DroneNode, Cluster: "c", Name: name, Connection: name, Capacity: has})
	require.NoError(d.t, err)
	d.beat(id, name)
	return id
}

// connectAll connects at once and returns what became of it, in order.
func (d *database) connectAll(all ...port.ConnectParams) []error {
	d.t.Helper()
	errs := make([]error, len(all))
	var clients sync.WaitGroup
	for i, p := range all {
		clients.Go(func() { _, errs[i] = d.Connect(d.t.Context(), p) })
	}
	clients.Wait()
	return errs
}

// What a drone has left is shared out among its counters, and a connection draws
// on one of them: but all of it is found by whoever needs it, one by one and in
// batches, and no more.
func TestAllThatADroneHasIsFound(t *testing.T) {
	for name, n := range map[string]int{"one by one": 1, "in batches": 10} {
		t.Run(name, func(t *testing.T) {
			const room = 21
			d := open(t)
			one, err := postgres.Open(t.Context(), postgres.Config{URL: d.url, MaxConnections: 1})
			require.NoError(t, err)
			t.Cleanup(one.Close)
			d.Store = one
			drone := d.limited("dr-1", placement.Capacity{MaxBackends: 100, MilliCPUs: room * 1000})
			placed, rounds := 0, 0
			for placed < room {
				var all []port.ConnectParams
				for i := range min(n, room-placed) {
					id := fmt.Sprintf("b-%d-%d", rounds, i)
					p := spawning(id, id)
					p.Spawn.Asks.MilliCPUs = 1000
					all = append(all, p)
				}
				for _, err := range d.connectAll(all...) {
					require.NoError(t, err, "after %d", placed)
				}
				placed += len(all)
				rounds++
			}
			more := spawning("one more", "more")
			more.Spawn.Asks.MilliCPUs = 1
			_, err = d.Connect(t.Context(), more)
			require.ErrorIs(t, err, port.ErrNoDrone)
			outcomes, err := d.RecordStates(t.Context(), []port.StateReport{{Drone: drone, BackendID: "b-0-0", State: backend.State{Status: backend.Terminated, Last: backend.Scheduled}}})
			require.NoError(t, err)
			require.Equal(t, []port.RecordOutcome{port.Recorded}, outcomes)
			more.Spawn.Asks.MilliCPUs = 1000
			_, err = d.Connect(t.Context(), more)
			require.NoError(t, err, "what has ended is there again")
		})
	}
}

// A drone that comes back with less, while a placement on it waits for something
// else, gets no more than it has now.
func TestNoDroneIsOverbookedThatCameBackWithLess(t *testing.T) {
	d := open(t)
	d.limited("dr-1", placement.Capacity{})
	_, err := d.Connect(t.Context(), spawning("k", "lapsed"))
	require.NoError(t, err)
	d.advance(2 * time.Minute)
	d.limited("dr-1", placement.Capacity{})
	release := d.hold("select from plane.backend where id = 'lapsed' for update")
	waiting := make(chan error)
	go func() {
		_, err := d.Connect(t.Context(), spawning("k", "b"))
		waiting <- err
	}()
	d.blocked()
	d.limited("dr-1", placement.Capacity{MaxBackends: 2})
	_, err = d.Connect(t.Context(), spawning("else", "b2"))
	require.NoError(t, err)
	release()
	require.ErrorIs(t, <-waiting, port.ErrNoDrone)
	require.Equal(t, 2, d.number("select sum(backends) from plane.load"))
}

// A placement that looks closely locks what it may use and nothing else: drones
// that are gone, of which there may be thousands, cost it nothing and hold up
// nobody.
func TestDronesThatAreGoneAreNotLocked(t *testing.T) {
	d := open(t)
	d.limited("dr-gone", placement.Capacity{MaxBackends: 1})
	d.advance(2 * time.Minute)
	d.limited("dr-1", placement.Capacity{MaxBackends: 2})
	release := d.hold("select from plane.load l join plane.node n on n.id = l.drone where n.name = 'dr-gone' for update")
	for i := range 2 {
		id := fmt.Sprint("b", i)
		_, err := d.Connect(t.Context(), spawning(id, id))
		require.NoError(t, err)
	}
	_, err := d.Connect(t.Context(), spawning("b3", "b3"))
	require.ErrorIs(t, err, port.ErrNoDrone)
	release()
}

// Of those that want one key at once the first decides, and where it is refused
// so are the others, each with the same reason; who only looks for the key does
// not keep anybody from spawning it.
func TestABurstForOneKeyIsToldWhatIsWrong(t *testing.T) {
	d := open(t)
	var all []port.ConnectParams
	for i := range 100 {
		p := spawning("k", fmt.Sprint("b", i))
		if i%10 == 0 {
			p.Spawn = nil
		}
		all = append(all, p)
	}
	for i, err := range d.connectAll(all...) {
		want := port.ErrNoDrone
		if i%10 == 0 {
			want = port.ErrKeyUnheld
		}
		assert.ErrorIs(t, err, want, "%d", i)
	}
	d.drone("dr-1")
	for i, err := range d.connectAll(all...) {
		if i%10 != 0 {
			assert.NoError(t, err, "%d", i)
		}
	}
	require.Equal(t, 1, d.number("select count(*) from plane.backend"))
}

// G15: neither the tables nor what the server logs of a row that is there
// already have a token in them.
func TestTokensAreNowhereInTheDatabase(t *testing.T) {
	server := pgtest.Server(t, pgtest.Options{})
	s, err := postgres.Open(t.Context(), postgres.Config{URL: server.Database(t)})
	require.NoError(t, err)
	t.Cleanup(s.Close)
	d := &database{Store: s, t: t}
	d.drone("dr-1")
	p := spawning("k", "b")
	_, err = d.Connect(t.Context(), p)
	require.NoError(t, err)
	p.Spawn, p.Token = nil, "9Zq3pVtYw0R7cS1mXhL5uJ8bN2dK4gFaEoTiQyUvC6s"
	for range 2 { // the second is a late try, at which the server finds the token there
		c, err := d.Connect(t.Context(), p)
		require.NoError(t, err)
		require.Equal(t, "b", c.BackendID)
	}
	r, err := d.RouteToken(t.Context(), p.Token)
	require.NoError(t, err)
	require.Equal(t, "b", r.Info.BackendID)
	log := strings.Join(server.Log(), "\n")
	require.Contains(t, log, "token_pkey", "or this is not the case")
	require.NotContains(t, log, p.Token)
	require.NotContains(t, log, fmt.Sprintf("%x", p.Token))
}
