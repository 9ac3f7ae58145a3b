package scenarios

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/backend"
	"plane/system/lease"
	"plane/system/protocol"
)

// TestAgentKilled_NoNewAgent_ContainersGoneByHardDeadline: an agent dies and
// nothing takes its place. Its backends are gone when their leases say so, and
// only then does another drone run their keys (G1, G11). They count as lost in
// the end (G4).
func TestAgentKilled_NoNewAgent_ContainersGoneByHardDeadline(t *testing.T) {
	onBothClusters(t, func(t *testing.T, c *cluster) {
		agent := c.addDrone(t, "one")
		first := c.ready(t, "k")
		older := fencingToken(t, first.URL)
		agent.kill9()
		killed := time.Now()
		second := c.droneName("two")
		c.addDrone(t, "two")

		require.NotEmpty(t, c.incarnation(t, first.BackendID), "the backend goes on without its agent")
		status, _ := get(t, first.URL)
		require.Equal(t, http.StatusOK, status, "and is reachable")
		c.vanishes(t, first.BackendID, time.Until(killed.Add(lease.Default().Hard+lease.KillTime)))
		t.Logf("gone %v after its agent", time.Since(killed).Round(time.Second))

		var next protocol.ConnectResponse
		eventually(t, time.Until(killed.Add(65*time.Second)), "the key comes back", func() error {
			var err error
			if next, err = c.api.Connect(t.Context(), c.request("k")); err == nil && next.BackendID == first.BackendID {
				err = fmt.Errorf("it is still %s's", first.BackendID)
			}
			return err
		})
		t.Logf("the key was free %v after its agent's end", time.Since(killed).Round(time.Second))
		require.Equal(t, second, *next.Drone)
		c.reaches(t, next.BackendID, backend.Ready, 20*time.Second)
		require.Greater(t, fencingToken(t, next.URL), older)
		require.Empty(t, c.incarnation(t, first.BackendID))

		last := c.reaches(t, first.BackendID, backend.Terminated, time.Until(killed.Add(180*time.Second)))
		t.Logf("it counted as lost %v after its agent's end", time.Since(killed).Round(time.Second))
		require.Equal(t, backend.Lost, last.TerminationReason)
	})
}

// TestAgentKilledAndStartedAgain_SameContainerWebSocketStaysOpen: nobody who
// uses a backend notices that its agent was killed and came back (G10).
func TestAgentKilledAndStartedAgain_SameContainerWebSocketStaysOpen(t *testing.T) {
	onBothClusters(t, func(t *testing.T, c *cluster) {
		agent := c.addDrone(t, "one")
		resp := c.ready(t, "k", maxIdle(60))
		ws := openSocket(t, resp.URL)
		before, env := c.incarnation(t, resp.BackendID), environment(t, resp.URL)

		for range 3 { // whatever it was doing
			agent.kill9()
			ws.lives(t)
			agent.start(t)
			c.awaitDrone(t, c.droneName("one"))
		}
		// Past the last deadline of the lease that the first agent had.
		ws.livesFor(t, lease.Default().Hard+lease.KillTime)
		c.is(t, resp.BackendID, backend.Ready)
		require.Equal(t, before, c.incarnation(t, resp.BackendID), "another container or process")
		require.Equal(t, env, environment(t, resp.URL))

		again := c.connect(t, "k")
		require.Equal(t, resp.BackendID, again.BackendID)
		require.False(t, again.Spawned)
		c.admin(t, "terminate", resp.BackendID)
		entries := c.history(t, resp.BackendID, 10*time.Second)
		require.Equal(t, []backend.Status{
			backend.Scheduled, backend.Loading, backend.Starting, backend.Waiting, backend.Ready,
			backend.Terminating, backend.Terminated,
		}, statuses(entries))
		c.vanishes(t, resp.BackendID, 5*time.Second)
	})
}

// TestBackendEndsWhileItsAgentIsDown: the next agent says how.
func TestBackendEndsWhileItsAgentIsDown(t *testing.T) {
	onBothClusters(t, func(t *testing.T, c *cluster) {
		agent := c.addDrone(t, "one")
		resp := c.ready(t, "k")
		agent.kill9()
		exit(resp.URL, 9)
		c.vanishes(t, resp.BackendID, 5*time.Second)
		agent.start(t)
		last := c.end(t, resp)
		require.Equal(t, new(9), last.ExitCode)
		require.Empty(t, last.TerminationReason)
	})
}

// TestGuardKilled: an agent that lives brings its guard back, and the new one
// enforces the leases that the old one knew (G1).
func TestGuardKilled(t *testing.T) {
	onBothClusters(t, func(t *testing.T, c *cluster) {
		agent := c.addDrone(t, "one")
		resp := c.ready(t, "k")
		ws := openSocket(t, resp.URL)
		old := c.guard(t)
		require.NoError(t, syscall.Kill(old, syscall.SIGKILL))
		eventually(t, 10*time.Second, "there is a guard again", func() error {
			if g := c.guard(t); g == 0 || g == old {
				return errors.New("there is none")
			}
			return nil
		})
		ws.lives(t)
		agent.kill9()
		killed := time.Now()
		c.vanishes(t, resp.BackendID, lease.Default().Hard+lease.KillTime)
		t.Logf("gone %v after its agent", time.Since(killed).Round(time.Second))
		eventually(t, 60*time.Second, "the guard ends when there is nothing left to guard", func() error {
			if g := c.guard(t); g != 0 {
				return fmt.Errorf("process %d", g)
			}
			return nil
		})
	})
}

// guard is the process of the cluster's one lease guard; 0: there is none.
func (c *cluster) guard(t *testing.T) int {
	t.Helper()
	for pid, args := range having(t, c.dir) {
		if strings.Contains(args, "internal-guard") {
			return pid
		}
	}
	return 0
}

// TestSecondAgentIsKeptOut: one journal, one agent.
func TestSecondAgentIsKeptOut(t *testing.T) {
	t.Parallel()
	c := startCluster(t, processes)
	first := c.addDrone(t, "one")
	resp := c.ready(t, "k")
	second := newProcess(t, c.dir, "second", first.args...)
	second.start(t)
	select {
	case <-second.gone:
	case <-time.After(15 * time.Second):
		require.Fail(t, "the second agent runs")
	}
	require.Error(t, second.err)
	require.Contains(t, second.log(), "error:")
	c.is(t, resp.BackendID, backend.Ready)
	ws := openSocket(t, resp.URL)
	ws.livesFor(t, 2*time.Second)
	require.True(t, first.running())
}

// TestTwoDronesOneMachine: drones of one machine, and of one engine, touch only
// what is theirs, whichever comes and goes.
func TestTwoDronesOneMachine(t *testing.T) {
	onBothClusters(t, func(t *testing.T, c *cluster) {
		one := c.addDrone(t, "one", "--pool", "one")
		two := c.addDrone(t, "two", "--pool", "two")
		a, b := c.ready(t, "a", inPool("one")), c.ready(t, "b", inPool("two"))
		require.Equal(t, c.droneName("one"), *a.Drone)
		require.Equal(t, c.droneName("two"), *b.Drone)
		if c.runtime == docker {
			require.Equal(t, []string{a.BackendID}, values(containers(t, *a.Drone)))
			require.Equal(t, []string{b.BackendID}, values(containers(t, *b.Drone)))
		}
		wsA, wsB := openSocket(t, a.URL), openSocket(t, b.URL)
		for _, agent := range []*process{one, two} {
			agent.kill9()
			agent.start(t)
			c.awaitDrone(t, agent.name)
		}
		c.admin(t, "terminate", a.BackendID)
		c.vanishes(t, a.BackendID, 5*time.Second)
		wsA.closes(t, 5*time.Second)
		wsB.livesFor(t, 35*time.Second) // past the time at which a drone looks for what is unknown
		c.is(t, b.BackendID, backend.Ready)
		require.NotEmpty(t, c.incarnation(t, b.BackendID))
	})
}

func fencingToken(t *testing.T, url string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(environment(t, url)["SESSION_BACKEND_FENCING_TOKEN"], 10, 64)
	require.NoError(t, err)
	return n
}

func values(m map[string]string) []string {
	var all []string
	for _, v := range m {
		all = append(all, v)
	}
	return all
}
