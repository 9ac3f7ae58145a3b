package scenarios

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/backend"
)

const (
	gigabyte = 1_000_000_000
	// proxyMemory is the most that a proxy may ever have in memory with one
	// user, whatever passes through it.
	proxyMemory = 128 << 20
)

// TestMainJob is what Plane is for: a controller, two drones and a proxy, and
// from the command line a key becomes a running backend with a URL.
func TestMainJob(t *testing.T) {
	onBothClusters(t, func(t *testing.T, c *cluster) {
		c.addDrone(t, "one")
		c.addDrone(t, "two")
		id := "job-" + c.id
		url := c.connectByHand(t, id)

		env := environment(t, url)
		require.Equal(t, id, env["SESSION_BACKEND_ID"])
		require.Equal(t, "a key", env["SESSION_BACKEND_KEY"])
		require.NotEmpty(t, env["SESSION_BACKEND_FENCING_TOKEN"])
		ws := openSocket(t, url)
		eventsComeAsTheyHappen(t, url)
		upload(t, url+"upload", gigabyte)
		require.Less(t, c.proxy.memory(t, "VmHWM"), int64(proxyMemory), "bytes that the proxy had in memory")
		ws.lives(t)

		state := c.admin(t, "cluster-state", c.name)
		for _, node := range []string{c.droneName("one"), c.droneName("two"), "px-" + c.id} {
			require.Contains(t, state, node)
		}
		require.Contains(t, c.admin(t, "backend-status", id), "ready")

		c.drainHost(t, id)
		ws.lives(t)
		c.is(t, id, backend.Ready)

		c.admin(t, "terminate", id)
		require.Contains(t, c.admin(t, "backend-status", id), "terminated")
		ws.closes(t, 5*time.Second)
		require.NoError(t, answers(url, http.StatusGone))
		c.vanishes(t, id, 5*time.Second)
	})
}

// connectByHand starts a backend from the command line and returns the URL that
// is printed.
func (c *cluster) connectByHand(t *testing.T, id string) string {
	t.Helper()
	what := []string{"--", c.program}
	if c.runtime == docker {
		what = []string{"--image", c.program}
	}
	out := c.admin(t, append([]string{"connect", "--key", "a key", "--id", id}, what...)...)
	url := strings.TrimSpace(out)
	require.True(t, strings.HasPrefix(url, c.proxyURL()+"/") && strings.HasSuffix(url, "/"), "the URL is all that is printed: %q", out)
	return url
}

// eventsComeAsTheyHappen requires that nobody on the way collects events.
func eventsComeAsTheyHappen(t *testing.T, url string) {
	t.Helper()
	const every = 300 * time.Millisecond
	at := events(t, url+"sse?n=5&every="+every.String())
	require.Len(t, at, 5)
	for i, came := range at {
		due := time.Duration(i) * every
		require.Greater(t, came, due-every/3, "event %d cannot come before it happens", i)
		require.Less(t, came, due+every, "event %d comes when the next happens, or later; all: %v", i, at)
	}
}

// drainHost drains the drone of a backend, and requires that from then on the
// other drone gets all.
func (c *cluster) drainHost(t *testing.T, id string) {
	t.Helper()
	state, err := c.api.ClusterState(t.Context(), c.name)
	require.NoError(t, err)
	var host, other string
	for _, d := range state.Drones {
		if d.BackendCount == 1 {
			host = d.Node.Name.Drone
		} else {
			other = d.Node.Name.Drone
		}
	}
	require.NotEmpty(t, host, "no drone says that it has backend %s: %+v", id, state.Drones)
	c.admin(t, "drain", "--cluster", c.name, "--drone", host)
	c.admin(t, "drain", "--cluster", c.name, "--drone", host) // no harm twice
	require.Contains(t, c.admin(t, "cluster-state", c.name), "draining")
	for _, key := range []string{"after 1", "after 2", "after 3"} {
		resp := c.connect(t, key)
		require.NotNil(t, resp.Drone)
		require.Equal(t, other, *resp.Drone)
	}
}
