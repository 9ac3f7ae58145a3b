package postgres_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/backend"
	"plane/system/lease"
	"plane/system/port"
	"plane/system/protocol"
)

// walled is a database whose wall clock stands still until the test moves it.
func walled(t *testing.T) *database {
	t.Helper()
	d := open(t)
	d.exec(`create table public.wall as select now() as at`)
	d.exec(`create or replace function plane.wall() returns timestamptz language sql volatile return (select at from public.wall)`)
	d.tick()
	return d
}

func (d *database) wall(by time.Duration) {
	d.t.Helper()
	d.exec("update public.wall set at = at + plane.us($1)", by.Microseconds())
}

// tick is what a controller does twice a second; it returns the store's time.
func (d *database) tick() time.Time {
	d.t.Helper()
	_, now, err := d.Revocations(d.t.Context(), 0)
	require.NoError(d.t, err)
	return now
}

// run lets the wall clock run, ticked as seldom as will just do.
func (d *database) run(seconds int) {
	d.t.Helper()
	d.exec(fmt.Sprintf(`do $$ begin
		for i in 1..%d loop
			update public.wall set at = at + interval '1 second';
			perform plane.revocations(0);
		end loop;
	end $$`, seconds))
}

const day = 24 * time.Hour

func TestClockRunsLikeTheWallClockWhileItIsTicked(t *testing.T) {
	d := walled(t)
	start := d.tick()
	for _, step := range []time.Duration{500 * time.Millisecond, 30 * time.Millisecond, 30 * time.Millisecond, 900 * time.Millisecond, 199 * time.Millisecond} {
		d.wall(step)
		start = start.Add(step)
		require.Equal(t, start, d.tick())
	}
}

// F4, F5: outages, stepped clocks and fail-overs to another machine.
func TestClockCountsWhateverHappensBetweenTwoTicksAsASecondAtMost(t *testing.T) {
	for _, c := range []struct {
		name string
		step time.Duration
		want time.Duration
	}{
		{"an outage of a day, or a step forward", day, time.Second},
		{"an outage of a minute", time.Minute, time.Second},
		{"a step back", -day, 0},
		{"a small step back", -100 * time.Millisecond, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := walled(t)
			d.run(1)
			start := d.tick()
			d.wall(c.step)
			require.Equal(t, start.Add(c.want), d.now(), "before any tick")
			require.Equal(t, start.Add(c.want), d.tick())
			d.wall(400 * time.Millisecond)
			require.Equal(t, start.Add(c.want+400*time.Millisecond), d.tick(), "and then it goes on")
			d.run(5)
			require.Equal(t, start.Add(c.want+400*time.Millisecond+5*time.Second), d.tick())
		})
	}
}

// now is what the clock shows without a tick.
func (d *database) now() time.Time {
	d.t.Helper()
	var now time.Time
	require.NoError(d.t, d.conn.QueryRow(d.t.Context(), "select plane.now()").Scan(&now))
	return now
}

func TestClockIsTickedByOneAtATimeAndSparingly(t *testing.T) {
	d := walled(t)
	d.run(1)
	last := d.last()
	d.wall(100 * time.Millisecond)
	d.tick()
	require.Equal(t, last, d.last(), "another controller ticked it just now")
	d.wall(400 * time.Millisecond)
	release := d.hold("select from plane.clock for update")
	d.tick() // and does not wait
	release()
	require.Equal(t, last, d.last())
}

func (d *database) last() (last time.Time) {
	d.t.Helper()
	require.NoError(d.t, d.conn.QueryRow(d.t.Context(), "select last from plane.clock").Scan(&last))
	return last
}

// spawning asks for a backend on whatever drone there is.
func spawning(key, id string) port.ConnectParams {
	return port.ConnectParams{
		Key: protocol.Key{Name: key}, Token: "token of " + id, TokenLife: time.Hour,
		Spawn: &port.SpawnParams{
			BackendID: id, ActionID: "ak-" + id, Cluster: "c", Executable: []byte(`{}`), BestOf: 2, Healthy: 45 * time.Second, Lease: lease.Default(),
		},
	}
}

// drone makes a drone that can take backends.
func (d *database) drone(name string) port.NodeID {
	d.t.Helper()
	id, err := d.RegisterNode(d.t.Context(), port.NodeRegistration{Kind: port.DroneNode, Cluster: "c", Name: name, Controller: "co-1", Connection: name})
	require.NoError(d.t, err)
	d.beat(id, name)
	return id
}

func (d *database) beat(id port.NodeID, name string) {
	d.t.Helper()
	require.NoError(d.t, d.Heartbeats(d.t.Context(), []port.DroneHeartbeat{{Drone: id, Connection: name, LocalTime: time.UnixMilli(5000)}}))
}

func (d *database) sweep() int {
	d.t.Helper()
	n, _, err := d.Sweep(d.t.Context(), port.SweepParams{
		Limit: 100, DroneLost: 120 * time.Second, ProxyGone: 90 * time.Second, HardAfter: 30 * time.Second, LeaseGrace: 30 * time.Second,
		NewActionID: func() string { return "ak-swept" },
	})
	require.NoError(d.t, err)
	return n
}

// G1: a drone counts 50 s on its own clock and has 5 s for the kill; nobody may
// be given its key before, whatever the database's clock does meanwhile.
func TestClockStepsExpireNoLease_G1_F4_F5(t *testing.T) {
	for _, steps := range [][2]time.Duration{{day, day}, {-day, day}, {-day, -day}} {
		d := walled(t)
		drone := d.drone("dr-1")
		_, err := d.Connect(t.Context(), spawning("k", "b"))
		require.NoError(t, err)
		made := d.tick()
		d.run(20)
		d.wall(steps[0])
		d.run(20)
		d.wall(steps[1])
		d.run(16) // 56 s of real time: 50 / 0.98 + 5
		d.beat(drone, "dr-1")
		c, err := d.Connect(t.Context(), spawning("k", "other"))
		require.NoError(t, err)
		require.Equal(t, "b", c.BackendID, "steps %v", steps)
		require.Zero(t, d.sweep())
		require.LessOrEqual(t, d.tick().Sub(made), 58*time.Second)

		d.run(8) // and the key comes back all the same (G11)
		d.beat(drone, "dr-1")
		c, err = d.Connect(t.Context(), spawning("k", "other"))
		require.NoError(t, err)
		require.Equal(t, "other", c.BackendID)
	}
}

// A backend's own times for people are the wall clock's.
func TestClockOfPeopleIsTheWallClock(t *testing.T) {
	d := walled(t)
	d.drone("dr-1")
	d.wall(day)
	_, err := d.Connect(t.Context(), spawning("k", "b"))
	require.NoError(t, err)
	b, err := d.Backend(t.Context(), "b")
	require.NoError(t, err)
	var wall time.Time
	require.NoError(t, d.conn.QueryRow(t.Context(), "select plane.wall()").Scan(&wall))
	require.Equal(t, []time.Time{wall, wall}, []time.Time{b.CreatedAt, b.StateTime})
	require.Greater(t, wall.Sub(d.tick()), day-time.Minute, "the store's clock has not followed")
	require.Equal(t, backend.Scheduled, b.State.Status)
}

// A renewal that had to wait for a lock goes by the time when it got it.
func TestClockIsReadOnceLocksAreHeld(t *testing.T) {
	d := walled(t)
	drone := d.drone("dr-1")
	_, err := d.Connect(t.Context(), spawning("k", "b"))
	require.NoError(t, err)
	d.run(57)
	release := d.hold("update plane.backend set swept = false where id = 'b'")
	answer := make(chan []bool)
	go func() {
		renewed, err := d.RenewKeys(t.Context(), []port.Renewal{{Drone: drone, BackendID: "b", Lease: lease.Default()}})
		require.NoError(t, err)
		answer <- renewed
	}()
	d.blocked()
	d.run(4)
	release()
	require.Equal(t, []bool{false}, <-answer, "it expired meanwhile, and others may have found the key free")
}
