package scenarios

import (
	"context"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/backend"
	"plane/system/protocol"
)

// TestMountWithoutABaseFailsTheSpawn, with that reason (shortfall 19).
func TestMountWithoutABaseFailsTheSpawn(t *testing.T) {
	t.Parallel()
	c := startCluster(t, docker)
	c.addDrone(t, "one")
	last := c.end(t, c.connect(t, "k", withField("mount", true)))
	require.Equal(t, backend.InternalError, last.TerminationReason)
	require.Contains(t, last.Message, "mount")
	require.Contains(t, last.Message, "base")
}

// TestMountsStayWhereTheyBelong: a mount outlives its backend and belongs to
// its key, and no key leads out of the mount base (shortfall 4).
func TestMountsStayWhereTheyBelong(t *testing.T) {
	t.Parallel()
	c := startCluster(t, docker)
	base := t.TempDir()
	c.addDrone(t, "one", "--mount-base", base)
	first := c.ready(t, "diary", withField("mount", true))
	put(t, first.URL+"file?name=/plane-data/page", "dear diary")
	c.admin(t, "terminate", first.BackendID)

	second := c.ready(t, "diary", withField("mount", true))
	require.NotEqual(t, first.BackendID, second.BackendID)
	status, page := get(t, second.URL+"file?name=/plane-data/page")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "dear diary", page)

	for _, key := range []string{"../../etc", "..", "a/../../b", "/etc"} {
		last := c.end(t, c.connect(t, key, withField("mount", true)))
		require.Equal(t, backend.InternalError, last.TerminationReason, "key %q", key)
		require.Contains(t, last.Message, "mount", "key %q", key)
	}
}

// TestBadRequestsAreRefused, each with its reason, and nothing comes of them.
func TestBadRequestsAreRefused(t *testing.T) {
	t.Parallel()
	c := startCluster(t, processes)
	c.addDrone(t, "one")
	static := func(r *protocol.ConnectRequest) { r.SpawnConfig.UseStaticToken = true }
	for _, bad := range []struct {
		name    string
		wish    wish
		kind    protocol.ErrorKind
		message string
	}{
		{"a user with a static token", func(r *protocol.ConnectRequest) { static(r); withUser("ann")(r) }, protocol.InvalidRequest, "user"},
		{"auth with a static token", func(r *protocol.ConnectRequest) { static(r); r.Auth = mustJSON(map[string]int{"n": 1}) }, protocol.InvalidRequest, "auth"},
		{"a time limit below zero", lifetime(-1), protocol.InvalidRequest, "lifetime_limit_seconds"},
		{"a cluster that is none", func(r *protocol.ConnectRequest) { r.SpawnConfig.Cluster = new("no cluster!") }, protocol.InvalidClusterName, "no cluster!"},
		{"no key and no spawn config", func(r *protocol.ConnectRequest) { *r = protocol.ConnectRequest{Key: &protocol.Key{Name: "unheld"}} }, protocol.KeyUnheldNoSpawnConfig, ""},
		{"a pool without drones", inPool("empty"), protocol.NoDroneAvailable, ""},
	} {
		_, err := c.api.Connect(t.Context(), c.request("k", bad.wish))
		refused := apiError(t, err)
		require.Equal(t, bad.kind, refused.Kind, bad.name)
		require.Contains(t, refused.Message, bad.message, bad.name)
	}
	state, err := c.api.ClusterState(t.Context(), c.name)
	require.NoError(t, err)
	require.Zero(t, state.Drones[0].BackendCount, "a refused request has led to a backend")
	require.True(t, c.connect(t, "k").Spawned, "a refused request holds the key")
}

// TestStaticTokenServesEverybody: the token stays in the path, and lives as
// long as its backend.
func TestStaticTokenServesEverybody(t *testing.T) {
	t.Parallel()
	c := startCluster(t, processes)
	c.addDrone(t, "one")
	static := func(r *protocol.ConnectRequest) { r.SpawnConfig.UseStaticToken = true }
	first, second := c.ready(t, "k", static), c.connect(t, "k")
	require.Equal(t, first.URL, second.URL)
	require.Nil(t, first.SecretToken)
	status, body := get(t, first.URL+"headers")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, body, "/"+first.Token, "the backend sees the path as it was sent")
}

// TestBurstForOneKey: a hundred at once get one backend, and all the same.
func TestBurstForOneKey(t *testing.T) {
	t.Parallel()
	c := startCluster(t, processes)
	c.addDrone(t, "one")
	c.addDrone(t, "two")
	answers, errs := c.burst(t, 100, "k")
	spawned, tokens := 0, map[string]bool{}
	for i, a := range answers {
		require.NoError(t, errs[i])
		require.Equal(t, answers[0].BackendID, a.BackendID)
		tokens[a.Token] = true
		if a.Spawned {
			spawned++
		}
	}
	require.Equal(t, 1, spawned)
	require.Len(t, tokens, len(answers), "each has a token of its own")
	c.reaches(t, answers[0].BackendID, backend.Ready, 20*time.Second)
	for _, a := range answers {
		status, _ := get(t, a.URL)
		require.Equal(t, http.StatusOK, status)
	}
}

// TestBurstWithoutADrone is refused at once.
func TestBurstWithoutADrone(t *testing.T) {
	t.Parallel()
	c := startCluster(t, processes)
	began := time.Now()
	_, errs := c.burst(t, 100, "k")
	require.Less(t, time.Since(began), 5*time.Second)
	for _, err := range errs {
		require.Equal(t, protocol.NoDroneAvailable, apiError(t, err).Kind)
	}
	c.addDrone(t, "one")
	require.True(t, c.ready(t, "k").Spawned, "a refused burst holds the key")
}

func (c *cluster) burst(t *testing.T, n int, key string) ([]protocol.ConnectResponse, []error) {
	t.Helper()
	all, errs := make([]protocol.ConnectResponse, n), make([]error, n)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { all[i], errs[i] = c.api.Connect(ctx, c.request(key)) })
	}
	wg.Wait()
	return all, errs
}

// TestRevocationClosesOpenConnections of that user, within a second, and of
// nobody else (G8).
func TestRevocationClosesOpenConnections(t *testing.T) {
	t.Parallel()
	c := startCluster(t, processes)
	c.addDrone(t, "one")
	ann, ben := c.ready(t, "k", withUser("ann")), c.connect(t, "k", withUser("ben"))
	annToo := c.connect(t, "k", withUser("ann"))
	annWS, annTooWS, benWS := openSocket(t, ann.URL), openSocket(t, annToo.URL), openSocket(t, ben.URL)
	annStream := make(chan error, 1)
	go func() {
		resp, err := http.Get(ann.URL + "sse?n=1000&every=100ms")
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
		}
		annStream <- err
	}()
	annWS.lives(t)

	require.NoError(t, c.api.Revoke(t.Context(), protocol.RevokeRequest{BackendID: ann.BackendID, User: "ann"}))
	revoked := time.Now()
	annWS.closes(t, time.Second)
	annTooWS.closes(t, time.Until(revoked.Add(time.Second)))
	select {
	case <-annStream:
	case <-time.After(time.Until(revoked.Add(time.Second))):
		require.Fail(t, "a stream of server-sent events goes on 1 s after the revocation")
	}
	t.Logf("closed %v after the revocation was answered", time.Since(revoked).Round(time.Millisecond))
	require.NoError(t, answers(ann.URL, http.StatusGone))
	require.NoError(t, answers(annToo.URL, http.StatusGone))

	benWS.lives(t)
	fresh := c.connect(t, "k", withUser("ann"))
	require.Equal(t, ann.BackendID, fresh.BackendID)
	require.NoError(t, answers(fresh.URL, http.StatusOK))
}

// TestRequestsWaitWhileTheBackendStarts.
func TestRequestsWaitWhileTheBackendStarts(t *testing.T) {
	t.Parallel()
	c := startCluster(t, processes)
	c.addDrone(t, "one")
	const delay = 3 * time.Second
	began := time.Now()
	resp := c.connect(t, "slow", withEnv(map[string]string{"START_DELAY": delay.String()}))
	status, body := get(t, resp.URL)
	require.Equal(t, http.StatusOK, status, body)
	require.Greater(t, time.Since(began), delay)
}
