package scenarios

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/backend"
	"plane/system/protocol"
)

// TestControllerFrozenFor25Seconds: the controller hangs under open WebSockets,
// again and again, over the times at which leases are renewed. Nobody notices
// (G9).
func TestControllerFrozenFor25Seconds(t *testing.T) {
	t.Parallel()
	c := startCluster(t, processes)
	c.addDrone(t, "one")
	users := c.users(t, 4)
	// Renewals are asked for every 12 s; the times differ in how old the leases
	// are when it freezes.
	for _, before := range []time.Duration{5 * time.Second, 11 * time.Second, 19 * time.Second} {
		users[0].ws.livesFor(t, before)
		c.controller.freeze(t)
		users[0].ws.livesFor(t, 25*time.Second)
		c.controller.thaw(t)
	}
	// Past every deadline that there was when it froze.
	users[0].ws.livesFor(t, 30*time.Second)
	c.allIsWell(t, users)
}

// TestSocketsCutAgainAndAgain: the network between the nodes and their
// controller breaks every second, for longer than a lease lasts.
func TestSocketsCutAgainAndAgain(t *testing.T) {
	t.Parallel()
	c := startCluster(t, processes)
	c.addDrone(t, "one")
	users := c.users(t, 4)
	cuts := 0
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(1500 * time.Millisecond) {
		cuts += c.network.cut() + c.proxyLine.cut()
	}
	t.Logf("cut %d connections", cuts)
	require.Greater(t, cuts, 20, "the nodes have to come back again and again for this to mean anything")
	c.allIsWell(t, users)
}

// TestProxyCutOff: a proxy that reaches no controller keeps open connections
// open, and nobody is swept because it cannot say so (G9). It believes routes
// for 30 s and no longer (G7), and hears of revocations when it is back (G8).
func TestProxyCutOff(t *testing.T) {
	t.Parallel()
	c := startCluster(t, processes)
	c.addDrone(t, "one")
	users := c.users(t, 2)
	ann := c.connect(t, users[0].key, withUser("ann"))
	annWS := openSocket(t, ann.URL)

	c.proxyLine.cutForGood()
	cut := time.Now()
	require.NoError(t, answers(users[0].url, http.StatusOK), "it believes what it knows")
	require.NoError(t, c.api.Revoke(t.Context(), protocol.RevokeRequest{BackendID: ann.BackendID, User: "ann"}))
	var believed time.Duration // how long after the cut a request was last begun that got through
	eventually(t, time.Until(cut.Add(60*time.Second)), "it believes no route any more", func() error {
		began := time.Since(cut)
		err := answers(users[0].url, http.StatusServiceUnavailable)
		if err != nil {
			believed = began
		}
		return err
	})
	require.Less(t, believed, 31*time.Second)
	t.Logf("it believed a route for %v", believed.Round(time.Second))
	require.NoError(t, answers(ann.URL, http.StatusServiceUnavailable))
	users[0].ws.livesFor(t, 10*time.Second)

	c.proxyLine.mend()
	eventually(t, 65*time.Second, "the proxy is back", func() error { return answers(c.proxyURL()+"/ready", http.StatusOK) })
	annWS.closes(t, 2*time.Second)
	require.NoError(t, answers(ann.URL, http.StatusGone))
	c.allIsWell(t, users)
}

// user is somebody with an open WebSocket on a backend of their own.
type user struct {
	key, backend, url, incarnation string
	ws                             *socket
}

func (c *cluster) users(t *testing.T, n int) []user {
	t.Helper()
	users := make([]user, n)
	for i := range users {
		key := string(rune('a' + i))
		resp := c.ready(t, key, maxIdle(10)) // a sweep would be seen
		users[i] = user{key: key, backend: resp.BackendID, url: resp.URL, ws: openSocket(t, resp.URL), incarnation: c.incarnation(t, resp.BackendID)}
	}
	return users
}

// allIsWell requires that no user has noticed anything, that no backend has
// ended, and that the cluster does its work.
func (c *cluster) allIsWell(t *testing.T, users []user) {
	t.Helper()
	for _, u := range users {
		u.ws.lives(t)
		c.is(t, u.backend, backend.Ready)
		require.Equal(t, u.incarnation, c.incarnation(t, u.backend))
		status, _ := get(t, u.url)
		require.Equal(t, http.StatusOK, status)
		require.Equal(t, u.backend, c.connect(t, u.key).BackendID)
	}
	eventually(t, 70*time.Second, "the proxy is connected", func() error { return answers(c.proxyURL()+"/ready", http.StatusOK) })
	c.awaitDrone(t, c.droneName("one"))
	fresh := c.ready(t, "fresh")
	status, _ := get(t, fresh.URL)
	require.Equal(t, http.StatusOK, status)
}
