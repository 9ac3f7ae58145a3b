package scenarios

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/docker/dockertest"
	"plane/system/backend"
	"plane/system/protocol"
)

// TestLifecycleInOrderOnTheStatusStream: whoever reads a backend's history, as
// it happens, afterwards or from the middle on, reads the same.
func TestLifecycleInOrderOnTheStatusStream(t *testing.T) {
	onBothClusters(t, func(t *testing.T, c *cluster) {
		c.addDrone(t, "one")
		id := c.connect(t, "k").BackendID
		var live []protocol.StatusEntry
		err := c.api.StatusStream(t.Context(), id, 0, func(e protocol.StatusEntry) error {
			live = append(live, e)
			if e.Status == backend.Ready {
				return c.api.Terminate(t.Context(), id, backend.Soft)
			}
			return nil
		})
		require.NoError(t, err)

		require.Equal(t, []backend.Status{
			backend.Scheduled, backend.Loading, backend.Starting, backend.Waiting, backend.Ready,
			backend.Terminating, backend.Terminated,
		}, statuses(live))
		for i := 1; i < len(live); i++ {
			require.False(t, live[i].Time.Before(live[i-1].Time.Time), "entry %d is older than the one before", i)
		}
		last := live[len(live)-1]
		require.Equal(t, backend.External, last.TerminationReason)
		require.Equal(t, backend.Soft, last.TerminationKind)
		require.Equal(t, new(false), last.ExitError)
		require.Equal(t, new(0), last.ExitCode)

		require.Equal(t, live, c.history(t, id, 10*time.Second))
		var rest []protocol.StatusEntry
		require.NoError(t, c.api.StatusStream(t.Context(), id, backend.Waiting, func(e protocol.StatusEntry) error {
			rest = append(rest, e)
			return nil
		}))
		require.Equal(t, live[4:], rest)
	})
}

// sweepSlack is how late a sweep may be (G4).
const sweepSlack = 15 * time.Second

// TestIdleBackendsAreSwept, and those that somebody uses are not.
func TestIdleBackendsAreSwept(t *testing.T) {
	onBothClusters(t, func(t *testing.T, c *cluster) {
		c.addDrone(t, "one")
		const idle = 3
		used := c.ready(t, "used", maxIdle(idle))
		ws := openSocket(t, used.URL)
		left := c.ready(t, "left", maxIdle(idle))

		entry := c.reaches(t, left.BackendID, backend.Terminated, idle*time.Second+sweepSlack)
		require.Equal(t, backend.Swept, entry.TerminationReason)
		require.NoError(t, answers(left.URL, http.StatusGone))
		c.vanishes(t, left.BackendID, 5*time.Second)

		ws.livesFor(t, 12*time.Second)
		c.is(t, used.BackendID, backend.Ready)
		ws.close()
		entry = c.reaches(t, used.BackendID, backend.Terminated, idle*time.Second+sweepSlack+7*time.Second)
		require.Equal(t, backend.Swept, entry.TerminationReason)
	})
}

// TestLifetimeEndsABackendInUse.
func TestLifetimeEndsABackendInUse(t *testing.T) {
	onBothClusters(t, func(t *testing.T, c *cluster) {
		c.addDrone(t, "one")
		began := time.Now()
		const life = 6
		resp := c.ready(t, "short", lifetime(life))
		ws := openSocket(t, resp.URL)
		entry := c.reaches(t, resp.BackendID, backend.Terminated, life*time.Second+sweepSlack)
		require.Equal(t, backend.Swept, entry.TerminationReason)
		require.Greater(t, time.Since(began), life*time.Second-time.Second, "it was ended before its time")
		ws.closes(t, 5*time.Second)
	})
}

// TestBackendThatIgnoresItsTermination is killed after its grace, and at once
// where that is asked for.
func TestBackendThatIgnoresItsTermination(t *testing.T) {
	onBothClusters(t, func(t *testing.T, c *cluster) {
		c.addDrone(t, "one")
		const grace = 30 * time.Second
		deaf := withEnv(map[string]string{"IGNORE_SIGTERM": "1"})
		soft, hard := c.ready(t, "soft", deaf), c.ready(t, "hard", deaf)
		softWS := openSocket(t, soft.URL)
		began := time.Now()
		require.NoError(t, c.api.Terminate(t.Context(), soft.BackendID, backend.Soft))
		require.NoError(t, c.api.Terminate(t.Context(), hard.BackendID, backend.Hard))

		entries := c.history(t, hard.BackendID, 10*time.Second)
		require.Equal(t, []backend.Status{backend.Ready, backend.HardTerminating, backend.Terminated}, statuses(entries)[4:])
		last := entries[len(entries)-1]
		require.Equal(t, backend.Hard, last.TerminationKind)
		require.Equal(t, backend.External, last.TerminationReason)
		require.Equal(t, new(137), last.ExitCode)

		softWS.livesFor(t, time.Until(began.Add(grace-5*time.Second)))
		entries = c.history(t, soft.BackendID, time.Until(began.Add(grace+10*time.Second)))
		require.Equal(t, []backend.Status{backend.Ready, backend.Terminating, backend.HardTerminating, backend.Terminated}, statuses(entries)[4:])
		require.Equal(t, backend.External, entries[len(entries)-1].TerminationReason)
		require.GreaterOrEqual(t, time.Since(began), grace)
		softWS.closes(t, 5*time.Second)
	})
}

// TestLongEnvironment: a spawn may be larger than what a database's
// notifications take (shortfall 6).
func TestLongEnvironment(t *testing.T) {
	onBothClusters(t, func(t *testing.T, c *cluster) {
		c.addDrone(t, "one")
		env := map[string]string{}
		for i := range 20 {
			env[fmt.Sprint("LONG_", i)] = strings.Repeat(string(rune('a'+i)), 10_000)
		}
		got := environment(t, c.ready(t, "k", withEnv(env)).URL)
		for k, v := range env {
			require.Equal(t, v, got[k])
		}
	})
}

// TestTerminationReasons: what ended a backend stands in its history.
func TestTerminationReasons(t *testing.T) {
	onBothClusters(t, func(t *testing.T, c *cluster) {
		c.addDrone(t, "one")
		c.endsByItself(t)
		if c.runtime == docker {
			c.endsByTheEngine(t)
			c.neverStarts(t)
		}
	})
}

// endsByItself: exit codes, early and late.
func (c *cluster) endsByItself(t *testing.T) {
	t.Helper()
	early := c.connect(t, "exits early", withEnv(map[string]string{"EXIT_CODE": "3"}))
	last := c.end(t, early)
	require.Equal(t, new(3), last.ExitCode)
	require.Equal(t, new(true), last.ExitError)
	require.Contains(t, last.Message, "exit code 3")

	late := c.ready(t, "exits late")
	exit(late.URL, 7)
	last = c.end(t, late)
	require.Equal(t, new(7), last.ExitCode)
	require.Equal(t, new(true), last.ExitError)
	require.Empty(t, last.TerminationReason, "nobody asked for it")
	require.Empty(t, last.TerminationKind)

	fine := c.ready(t, "exits well")
	exit(fine.URL, 0)
	last = c.end(t, fine)
	require.Equal(t, new(0), last.ExitCode)
	require.Equal(t, new(false), last.ExitError)

	// The key is free at once (G11).
	again := c.ready(t, "exits well")
	require.True(t, again.Spawned)
	require.NotEqual(t, fine.BackendID, again.BackendID)
}

// endsByTheEngine: killed from outside, and out of memory.
func (c *cluster) endsByTheEngine(t *testing.T) {
	t.Helper()
	killed := c.ready(t, "killed")
	require.NoError(t, dockertest.Engine(t).ContainerKill(t.Context(), c.incarnation(t, killed.BackendID), "SIGKILL"))
	last := c.end(t, killed)
	require.Equal(t, new(137), last.ExitCode)
	require.False(t, last.OOM)
	require.Empty(t, last.TerminationReason)
	require.Contains(t, last.Message, "killed")

	limits := withField("resource_limits", map[string]any{"memory_limit_bytes": 32 << 20})
	hungry := c.ready(t, "hungry", limits)
	go http.Get(hungry.URL + "oom") // never answered
	last = c.end(t, hungry)
	require.True(t, last.OOM, "%+v", last)
	require.Equal(t, new(137), last.ExitCode)
	require.Contains(t, last.Message, "out of memory")
}

// neverStarts: images that are not there.
func (c *cluster) neverStarts(t *testing.T) {
	t.Helper()
	last := c.end(t, c.connect(t, "not here", withField("image", "plane-test/no-such-image")))
	require.Equal(t, backend.InternalError, last.TerminationReason)
	require.Contains(t, last.Message, "plane-test/no-such-image")
	require.Contains(t, last.Message, "pull_policy is Never")

	// The engine trusts registries on this machine without TLS.
	registry := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/v2/" {
			w.Write([]byte("{}"))
			return
		}
		w.WriteHeader(http.StatusNotFound)
		w.Write([]byte(`{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`))
	}))
	t.Cleanup(registry.Close)
	image := strings.TrimPrefix(registry.URL, "http://") + "/nobody/nothing:latest"
	last = c.end(t, c.connect(t, "nowhere", withField("image", image), withField("pull_policy", "IfNotPresent")))
	require.Equal(t, backend.InternalError, last.TerminationReason)
	require.Contains(t, last.Message, image)
	require.Contains(t, last.Message, "cannot be pulled")
}

// end waits until the backend has terminated, checks that its history is in
// order and that the key's URL leads nowhere, and returns the last entry.
func (c *cluster) end(t *testing.T, resp protocol.ConnectResponse) protocol.StatusEntry {
	t.Helper()
	entries := c.history(t, resp.BackendID, 30*time.Second)
	require.NotEmpty(t, entries)
	require.IsIncreasing(t, statuses(entries))
	last := entries[len(entries)-1]
	require.Equal(t, backend.Terminated, last.Status)
	eventually(t, 3*time.Second, "its URL leads nowhere", func() error { return answers(resp.URL, http.StatusGone) })
	return last
}

// exit asks the backend to end with the code; it does so without an answer.
func exit(url string, code int) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"exit?code="+strconv.Itoa(code), nil)
	if err != nil {
		panic(err)
	}
	if resp, err := http.DefaultClient.Do(req); err == nil {
		resp.Body.Close()
	}
}

// TestStatusStreamOfNothing: a backend that never was is told at once.
func TestStatusStreamOfNothing(t *testing.T) {
	t.Parallel()
	c := startCluster(t, processes)
	err := c.api.StatusStream(t.Context(), "nothing", 0, func(protocol.StatusEntry) error {
		return errors.New("there is nothing to tell")
	})
	require.Equal(t, protocol.NotFound, apiError(t, err).Kind)
}
