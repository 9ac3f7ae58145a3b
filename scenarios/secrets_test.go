package scenarios

import (
	"bytes"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/backend"
	"plane/system/protocol"
)

// TestSecretsStayPut: whatever goes well or wrong, tokens, user data and a
// backend's environment are in no log, at any level, in no metric, and in no
// file that others can read (G15).
func TestSecretsStayPut(t *testing.T) {
	onBothRuntimes(t, func(t *testing.T, runtime string) {
		c := startCluster(t, runtime, "PLANE_LOG_LEVEL=debug")
		agent := c.addDrone(t, "one")
		secret := func(what string) string { return what + "-is-a-secret-of-" + c.id }
		env := map[string]string{"PASSWORD": secret("env")}
		credentials := map[string]string{"username": "ann", "password": secret("password")}
		auth := map[string]string{"note": secret("auth")}

		resp := c.ready(t, "k", withEnv(env), withField("credentials", credentials), withUser("ann"), withAuth(auth))
		revoked := c.connect(t, "k", withUser("ben"), withAuth(auth))
		static := c.ready(t, "static", func(r *protocol.ConnectRequest) { r.SpawnConfig.UseStaticToken = true }, withEnv(env))
		secrets := []string{
			secret("env"), secret("password"), secret("auth"), resp.Token, revoked.Token, static.Token,
			*resp.SecretToken, *revoked.SecretToken, secret("query"),
		}
		_, body := get(t, resp.URL+"headers?"+secret("query"))
		require.Contains(t, body, *resp.SecretToken, "the backend is told")
		require.Contains(t, body, secret("auth"))
		ws := openSocket(t, resp.URL)

		// What can go wrong on the way.
		require.NoError(t, c.api.Revoke(t.Context(), protocol.RevokeRequest{BackendID: resp.BackendID, User: "ben"}))
		c.network.cut()
		c.proxyLine.cut()
		agent.kill9()
		exit(static.URL, 1)
		get(t, static.URL+"?"+secret("query"))
		agent.start(t)
		c.awaitDrone(t, agent.name)
		eventually(t, 5*time.Second, "a revoked token leads nowhere", func() error { return answers(revoked.URL, http.StatusGone) })
		ws.lives(t)
		c.admin(t, "terminate", resp.BackendID)
		c.reaches(t, static.BackendID, backend.Terminated, 10*time.Second)
		bad := c.connect(t, "bad", withEnv(env), withField("image", "a b"), withField("command", []string{"/no/such/program"}))
		c.reaches(t, bad.BackendID, backend.Terminated, 10*time.Second)

		c.hidden(t, append(secrets, bad.Token))
		for _, p := range c.processes {
			p.end(t, syscall.SIGTERM, 20*time.Second)
		}
		c.hidden(t, append(secrets, bad.Token))
	})
}

// hidden requires that none of the secrets is in a log, in a metric, or in a
// file that others can read.
func (c *cluster) hidden(t *testing.T, secrets []string) {
	t.Helper()
	for _, p := range c.processes {
		if !p.running() {
			continue
		}
		_, metrics := get(t, "http://"+p.metrics+"/metrics")
		for i, s := range secrets {
			require.NotContains(t, metrics, s, "secret %d is in the metrics of %s", i, p.name)
		}
	}
	looked := 0
	require.NoError(t, filepath.WalkDir(c.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		isLog := strings.HasSuffix(path, ".log")
		if !isLog && (info.Mode().Perm()&0o077 == 0 || isPrivate(c.dir, path)) {
			return nil
		}
		looked++
		content, err := os.ReadFile(path)
		for i, s := range secrets {
			require.False(t, bytes.Contains(content, []byte(s)), "secret %d is in %s, mode %v", i, path, info.Mode())
		}
		return err
	}))
	require.Greater(t, looked, 2, "there are logs")
}

// isPrivate reports whether a directory between the two keeps others out.
func isPrivate(base, path string) bool {
	for dir := filepath.Dir(path); dir != base; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o077 == 0 {
			return true
		}
	}
	return false
}
