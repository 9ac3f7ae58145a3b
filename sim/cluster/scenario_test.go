package cluster

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/sim/check"
	"plane/sim/fake"
	"plane/sim/fault"
	"plane/system/backend"
	"plane/system/drone"
	"plane/system/port"
)

// script is a scenario's hand on its cluster.
type script struct {
	*testing.T
	*Cluster
	ctx context.Context
}

// Small clusters and one fault each, named after the shortfall of 0.5.x (see
// guarantees.md) that they would find put back. A scenario fails by what it
// requires, and by any guarantee that sim/check sees violated.
var scenarios = []struct {
	name string
	run  func(s *script)
}{
	{"shortfall 1: the first lease has its hard deadline after the soft one", (*script).firstLease},
	{"shortfall 2: a spawn that arrives after its deadline is never started", (*script).lateSpawn},
	{"shortfall 3: containers of a dead agent are gone by their hard deadline", (*script).deadAgent},
	{"shortfall 3: an agent that comes back takes its containers up", (*script).restartedAgent},
	{"shortfall 7: a proxy that missed a removal leads nobody to another backend", (*script).cutOffProxy},
	{"shortfall 8: a revoke closes what is open and lets nothing pass", (*script).revoked},
	{"shortfall 9: the backends of a drone that never returns end as lost", (*script).lostDrone},
	{"shortfall 9: a spawn that is never acknowledged ends", (*script).unacknowledged},
	{"G2: the fencing token grows, whatever the database's clock shows", (*script).fencingToken},
	{"F4: a step of the database's clock ends no lease early", (*script).steppedClock},
	{"F5: a fail-over to another clock costs no backend", (*script).failedOver},
	{"shortfall 14: an unanswered renewal ends no healthy backend", (*script).unansweredRenewal},
	{"shortfall 15: a request that waits for its backend is answered though every hint is lost", (*script).lostHints},
	{"shortfall 16: a lookup that nobody can answer ends", (*script).unansweredLookup},
	{"shortfall 17: an action handed over twice is acknowledged, and newer ones get through", (*script).repeatedAction},
}

func TestScenarios(t *testing.T) {
	for _, s := range scenarios {
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("%s/%d", s.name, seed), func(t *testing.T) {
				ended := false
				opt := Options{
					Seed: seed, Storm: 20 * time.Minute, Weather: fault.Weather{Drift: true},
					Shape: Shape{Controllers: 2, Drones: 2, Proxies: 1, Keys: 10},
					Script: func(ctx context.Context, c *Cluster) {
						sc := &script{t, c, ctx}
						sc.pass(10 * time.Second) // everybody connects
						s.run(sc)
						ended = true
					},
				}
				r := Run(opt, true)
				if len(r.Violations) > 0 || !ended {
					for _, l := range r.Story {
						t.Log(l)
					}
				}
				require.Empty(t, r.Violations)
				require.True(t, ended, "the script has come to its end")
			})
		}
	}
}

func (s *script) pass(d time.Duration) { require.NoError(s, s.clients.Sleep(s.ctx, d)) }

func (s *script) spawn(key int) *check.Token {
	token := s.connect(s.ctx, key, "ann")
	require.NotNil(s, token)
	return token
}

// ready spawns a backend and waits until a request reaches it.
func (s *script) ready(key int) *check.Token {
	token := s.spawn(key)
	require.Equal(s, passed, s.send(s.ctx, token, false, 0))
	return token
}

func (s *script) row(backendID string) port.Backend {
	row, err := s.Database.Ledger().Backend(backendID)
	require.NoError(s, err)
	return row
}

func (s *script) status(backendID string) backend.Status { return s.row(backendID).State.Status }

// drone is the process that runs the backend.
func (s *script) drone(backendID string) *process {
	for _, p := range s.drones {
		if p.name == s.row(backendID).Drone {
			return p
		}
	}
	s.Fatalf("no drone has %s", backendID)
	return nil
}

func (s *script) container(backendID string) *fake.Container {
	for _, m := range s.machines {
		for _, c := range m.Running() {
			if c.BackendID == backendID {
				return c
			}
		}
	}
	return nil
}

// isolate cuts a machine off from all controllers.
func (s *script) isolate(machine string, d time.Duration) {
	for _, co := range s.controllers {
		s.cut(machine, co.machine, d)
		s.cut(co.machine, machine, d)
	}
}

func (s *script) firstLease() {
	b := s.spawn(0).Backend
	for s.container(b) == nil {
		s.pass(10 * time.Millisecond)
	}
	m := s.drone(b).host
	rec, known := m.Record(b)
	require.True(s, known)
	hard, guarded := m.Guarded(b)
	require.True(s, guarded)
	require.Equal(s, 10*time.Second, rec.Deadlines.HardTerminateAt.Sub(rec.Deadlines.SoftTerminateAt))
	require.True(s, hard.Equal(rec.Deadlines.HardTerminateAt))
}

func (s *script) lateSpawn() {
	for _, d := range s.drones {
		s.isolate(d.machine, 55*time.Second)
	}
	b := s.spawn(0).Backend
	s.pass(3 * time.Minute)
	require.Zero(s, s.Book.Starts(b))
	require.Equal(s, backend.Terminated, s.status(b))
}

func (s *script) deadAgent() {
	b := s.ready(0).Backend
	p := s.drone(b)
	s.stop(p, false)
	s.pass(57 * time.Second) // 50 s on a clock that may be 2 % slow, and a kill
	require.Nil(s, s.container(b))
}

func (s *script) restartedAgent() {
	t := s.ready(0)
	c := s.container(t.Backend)
	s.task("visitor", func(ctx context.Context) { s.send(ctx, t, true, 2*time.Minute) })
	s.pass(5 * time.Second)
	for range 3 {
		p := s.drone(t.Backend)
		s.stop(p, false)
		s.pass(8 * time.Second)
		s.bootUp(p)
		s.pass(20 * time.Second)
	}
	require.True(s, c.Running, "the container that was there is there")
	require.Equal(s, backend.Ready, s.status(t.Backend))
	require.Equal(s, 1, s.Book.Starts(t.Backend))
}

// task lets a client do something beside the script.
func (s *script) task(name string, fn func(ctx context.Context)) { s.clients.Tasks().Go(name, fn) }

func (s *script) cutOffProxy() {
	t := s.ready(0)
	p := s.proxies[0]
	s.isolate(p.machine, 4*time.Minute)
	s.terminate(s.ctx, t.Backend)
	statuses := map[int]int{}
	for key := 1; key < 60; key++ { // others come and go, and get its port
		if other := s.connect(s.ctx, []int{0, 1, 2, 5, 7, 8}[key%6], "bob"); other != nil { // nil: still ending
			s.terminate(s.ctx, other.Backend)
		}
		statuses[s.send(s.ctx, t, false, 0)]++
		s.pass(2 * time.Second)
	}
	require.Positive(s, statuses[unavailable]+statuses[gone], "after 30 s the route is not believed any more: %v", statuses)
}

func (s *script) revoked() {
	t := s.ready(0)
	closed := false
	s.task("visitor", func(ctx context.Context) {
		s.send(ctx, t, true, 10*time.Minute)
		closed = true
	})
	s.pass(5 * time.Second)
	require.False(s, closed)
	s.revoke(s.ctx, t)
	require.False(s, t.Revoked.IsZero())
	s.pass(1200 * time.Millisecond)
	require.True(s, closed)
	require.Equal(s, gone, s.send(s.ctx, t, false, 0))
}

func (s *script) lostDrone() {
	b := s.ready(0).Backend
	p := s.drone(b)
	s.stop(p, true)
	p.host.Crash()
	s.pass(63 * time.Second)
	other := s.spawn(0)
	require.NotEqual(s, b, other.Backend, "the key is free (G11)")
	s.pass(2 * time.Minute)
	require.Equal(s, backend.Terminated, s.status(b))
}

func (s *script) unacknowledged() {
	for _, d := range s.drones {
		s.stop(d, true)
	}
	b := s.spawn(0).Backend
	s.pass(3 * time.Minute)
	require.Equal(s, backend.Terminated, s.status(b))
}

func (s *script) unansweredRenewal() {
	t := s.ready(0)
	s.task("visitor", func(ctx context.Context) { s.send(ctx, t, true, 5*time.Minute) })
	m := s.drone(t.Backend).host
	for range 3 {
		rec, known := m.Record(t.Backend)
		require.True(s, known)
		s.pass(m.Clock.True(rec.Deadlines.RenewAt.Add(-drone.DefaultTiming().RenewAhead)).Sub(s.Now()) - time.Second)
		s.weather.StoreFails = 1
		s.pass(15 * time.Second) // of the 28 that there are until the soft deadline
		s.weather.StoreFails = 0
		s.pass(6 * time.Second)
		require.Equal(s, backend.Ready, s.status(t.Backend))
	}
	s.pass(20 * time.Second)
	require.Equal(s, backend.Ready, s.status(t.Backend))
}

func (s *script) lostHints() {
	s.weather.HintLost = 1
	for _, key := range []int{0, 1, 2} {
		began := s.Now()
		t := s.spawn(key)
		require.Equal(s, passed, s.send(s.ctx, t, false, 0))
		require.Less(s, s.Now().Sub(began), 30*time.Second)
	}
}

func (s *script) unansweredLookup() {
	t := s.spawn(0)
	s.isolate(s.proxies[0].machine, time.Hour)
	s.pass(time.Minute)
	began := s.Now()
	require.Equal(s, unavailable, s.send(s.ctx, t, false, 0))
	require.Less(s, s.Now().Sub(began), 20*time.Second)
}

func (s *script) repeatedAction() {
	began := s.Now()
	for _, d := range s.drones {
		for _, co := range s.controllers {
			s.cut(d.machine, co.machine, 12*time.Second) // no acknowledgement gets through
		}
	}
	b := s.spawn(0).Backend
	s.pass(began.Add(11 * time.Second).Sub(s.Now()))
	s.weather.StoreFails = 1 // and none that did is recorded
	s.pass(3 * time.Second)
	s.weather.StoreFails = 0
	s.pass(10 * time.Second)
	s.nothingPending("a spawn that was handed over again is acknowledged")
	s.terminate(s.ctx, b)
	s.pass(50 * time.Second)
	require.Equal(s, 1, s.Book.Starts(b))
	require.Equal(s, backend.Terminated, s.status(b))
	s.nothingPending("all is done")
}

func (s *script) nothingPending(why string) {
	for id := port.NodeID(1); id < 10; id++ {
		require.Empty(s, s.Database.Ledger().PendingActions(id), why)
	}
}

// fencingToken acquires one key again and again while the wall clock of the
// database is stepped back.
func (s *script) fencingToken() {
	var last int64
	for range 5 {
		b := s.ready(0).Backend
		rec, known := s.drone(b).host.Record(b)
		require.True(s, known)
		require.Greater(s, rec.Spec.FencingToken, last)
		last = rec.Spec.FencingToken
		s.terminate(s.ctx, b)
		for s.status(b) != backend.Terminated {
			s.pass(time.Second)
		}
		s.Lock()
		s.Database.Step(-24 * time.Hour)
		s.Unlock()
	}
}

// steppedClock steps the database's wall clock by days; a drone that is cut off
// keeps its key for as long as its container may run.
func (s *script) steppedClock() {
	for _, step := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
		token := s.ready(0)
		s.isolate(s.drone(token.Backend).machine, 20*time.Second)
		s.Lock()
		s.Database.Step(step)
		s.Unlock()
		for range 60 {
			s.pass(time.Second)
			require.Equal(s, token.Backend, s.spawn(0).Backend, "the lease goes on, and is renewed when the drone is back")
			require.Equal(s, passed, s.send(s.ctx, token, false, 0))
		}
	}
}

// failedOver moves the database to another machine, days ahead or behind.
func (s *script) failedOver() {
	token := s.ready(0)
	for range 4 {
		s.Lock()
		s.Database.Failover()
		s.Unlock()
		for range 9 {
			s.pass(10 * time.Second)
			require.Equal(s, passed, s.send(s.ctx, token, false, 0))
		}
		require.Equal(s, backend.Ready, s.status(token.Backend))
		require.Equal(s, token.Backend, s.spawn(0).Backend)
	}
}
