package scenarios

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/apiclient"
	"plane/adapters/clock"
	"plane/adapters/docker/dockertest"
	"plane/scenarios/testprogram"
	"plane/system/backend"
	"plane/system/name"
	"plane/system/protocol"
)

// The runtimes that a drone can have.
const (
	docker    = "docker"
	processes = "process"
)

// onBothRuntimes runs a scenario with containers and with processes.
func onBothRuntimes(t *testing.T, scenario func(t *testing.T, runtime string)) {
	t.Helper()
	t.Parallel()
	for _, runtime := range []string{docker, processes} {
		t.Run(runtime, func(t *testing.T) {
			t.Parallel()
			scenario(t, runtime)
		})
	}
}

// onBothClusters is onBothRuntimes with a cluster of each.
func onBothClusters(t *testing.T, scenario func(t *testing.T, c *cluster)) {
	t.Helper()
	onBothRuntimes(t, func(t *testing.T, runtime string) { scenario(t, startCluster(t, runtime)) })
}

// cluster is a controller, a proxy and any number of drones, each a process of
// its own. Drones and proxy reach the controller through a cutter each.
type cluster struct {
	name       string // localhost:port of the proxy, or a host of its own
	id         string // in the names of its nodes
	dir        string
	runtime    string // of its drones
	program    string // what its drones run: an image, or the path of a program
	controller *process
	others     []*process // more controllers, on the same database
	proxy      *process
	processes  []*process // all of them
	env        []string
	url        string  // of the controller, directly
	network    *cutter // between the drones and the controller
	proxyLine  *cutter // between the proxy and the controller
	api        *apiclient.Client
}

// newRole is a process of a role of its own, which serves metrics.
func (c *cluster) newRole(t *testing.T, name string, args ...string) *process {
	t.Helper()
	metrics := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	p := newProcess(t, c.dir, name, append(args, "--metrics", metrics)...)
	p.metrics = metrics
	p.env = append(p.env, c.env...)
	c.processes = append(c.processes, p)
	return p
}

// startCluster starts a controller and a proxy, without a drone; all its
// processes get the environment. Without an engine it skips tests that need one.
func startCluster(t *testing.T, runtime string, env ...string) *cluster {
	t.Helper()
	proxyPort := strconv.Itoa(freePort(t))
	c := startController(t, runtime, "localhost:"+proxyPort, env...)
	c.proxy = c.newRole(t, "proxy", "proxy", "--name", "px-"+c.id, "--controller-url", "http://"+c.proxyLine.address(),
		"--cluster", c.name, "--http-port", proxyPort)
	c.proxy.start(t)
	eventually(t, 15*time.Second, "the proxy is ready", func() error { return answers(c.proxyURL()+"/ready", http.StatusOK) })
	return c
}

// startController starts a controller, without a proxy and a drone, for a
// cluster of that name.
func startController(t *testing.T, runtime, clusterName string, env ...string) *cluster {
	t.Helper()
	c := &cluster{runtime: runtime, id: name.New(name.Backend, clock.Rand{})[:8], dir: workDir(t), env: env, name: clusterName}
	port := strconv.Itoa(freePort(t))
	c.url = "http://127.0.0.1:" + port
	c.prepare(t)
	c.network, c.proxyLine = newCutter(t, "127.0.0.1:"+port), newCutter(t, "127.0.0.1:"+port)
	c.controller = c.newRole(t, "controller", "controller", "--port", port, "--default-cluster", c.name)
	c.controller.start(t)
	eventually(t, 15*time.Second, "the controller answers", func() error { return c.api.Health(t.Context()) })
	return c
}

// prepare gets what is needed to ask for backends.
func (c *cluster) prepare(t *testing.T) {
	t.Helper()
	if c.runtime == docker {
		c.program = dockertest.Image(t)
	} else {
		c.program = testprogram.Path(t)
	}
	var err error
	c.api, err = apiclient.New(c.url, protocol.Version{Version: "scenarios"})
	require.NoError(t, err)
}

func (c *cluster) proxyURL() string { return "http://" + c.name }

// answers returns nil if the URL answers with the status.
func answers(url string, status int) error {
	resp, err := http.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != status {
		return fmt.Errorf("answered %s, want %d", resp.Status, status)
	}
	return nil
}

// addDrone starts a drone and waits until it may be given backends. Its name is
// unique on this machine; suffix tells it from others of the cluster.
func (c *cluster) addDrone(t *testing.T, suffix string, flags ...string) *process {
	t.Helper()
	node := c.droneName(suffix)
	if c.runtime == docker {
		dockertest.RemoveContainers(t, node)
	}
	p := c.newRole(t, node, slices.Concat([]string{"drone", "--name", node, "--controller-url", "http://" + c.network.address(),
		"--cluster", c.name, "--runtime", c.runtime, "--db", c.dir + "/" + node + ".db", "--ports-db", portsDB}, flags)...)
	p.start(t)
	c.awaitDrone(t, node)
	return p
}

func (c *cluster) droneName(suffix string) string { return "dr-" + c.id + "-" + suffix }

func (c *cluster) awaitDrone(t *testing.T, node string) {
	t.Helper()
	eventually(t, 15*time.Second, node+" is ready", func() error {
		state, err := c.api.ClusterState(t.Context(), c.name)
		if err != nil {
			return err
		}
		for _, d := range state.Drones {
			if d.Node.Name.Drone == node && d.Ready {
				return nil
			}
		}
		return fmt.Errorf("the cluster's drones: %+v", state.Drones)
	})
}

// admin runs plane admin, which has to succeed, and returns what it has printed
// on standard output.
func (c *cluster) admin(t *testing.T, args ...string) string {
	t.Helper()
	out, diagnostics, err := c.tryAdmin(t, args...)
	require.NoError(t, err, "plane admin %s: %s", strings.Join(args, " "), diagnostics)
	return out
}

func (c *cluster) tryAdmin(t *testing.T, args ...string) (out, diagnostics string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), *planeBinary, append([]string{"admin", "--controller", c.url}, args...)...)
	cmd.Env = append(os.Environ(), "NO_COLOR=1")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	return stdout.String(), stderr.String(), err
}

// wish changes what is asked for in a connect.
type wish func(*protocol.ConnectRequest)

func withEnv(env map[string]string) wish {
	return func(r *protocol.ConnectRequest) { setField(r, "env", env) }
}

// withField sets a field of the executable.
func withField(field string, value any) wish {
	return func(r *protocol.ConnectRequest) { setField(r, field, value) }
}

func setField(r *protocol.ConnectRequest, field string, value any) {
	var executable map[string]any
	if err := json.Unmarshal(r.SpawnConfig.Executable, &executable); err != nil {
		panic(err) // it is ours
	}
	executable[field] = value
	r.SpawnConfig.Executable = mustJSON(executable)
}

func mustJSON(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

func withAuth(auth any) wish    { return func(r *protocol.ConnectRequest) { r.Auth = mustJSON(auth) } }
func withUser(user string) wish { return func(r *protocol.ConnectRequest) { r.User = &user } }
func inPool(pool string) wish   { return func(r *protocol.ConnectRequest) { r.SpawnConfig.Pool = pool } }
func maxIdle(seconds int64) wish {
	return func(r *protocol.ConnectRequest) { r.SpawnConfig.MaxIdleSeconds = &seconds }
}
func lifetime(seconds int64) wish {
	return func(r *protocol.ConnectRequest) { r.SpawnConfig.LifetimeLimitSeconds = &seconds }
}

// request asks for the test backend under a key.
func (c *cluster) request(key string, wishes ...wish) protocol.ConnectRequest {
	executable := map[string]any{"command": []string{c.program}}
	if c.runtime == docker {
		executable = map[string]any{"image": c.program, "pull_policy": "Never"}
	}
	req := protocol.ConnectRequest{Key: &protocol.Key{Name: key}, SpawnConfig: &protocol.SpawnConfig{Executable: mustJSON(executable)}}
	for _, w := range wishes {
		w(&req)
	}
	return req
}

// connect asks for a backend and does not wait until it is ready.
func (c *cluster) connect(t *testing.T, key string, wishes ...wish) protocol.ConnectResponse {
	t.Helper()
	resp, err := c.api.Connect(t.Context(), c.request(key, wishes...))
	require.NoError(t, err)
	return resp
}

// ready asks for a backend and waits until it is ready.
func (c *cluster) ready(t *testing.T, key string, wishes ...wish) protocol.ConnectResponse {
	t.Helper()
	resp := c.connect(t, key, wishes...)
	entry := c.reaches(t, resp.BackendID, backend.Ready, 30*time.Second)
	require.Equal(t, backend.Ready, entry.Status, "backend %s: %+v", resp.BackendID, entry)
	return resp
}

// reaches waits until the backend has come at least as far as the status, and
// returns its last entry.
func (c *cluster) reaches(t *testing.T, id string, status backend.Status, within time.Duration) protocol.StatusEntry {
	t.Helper()
	var entry protocol.StatusEntry
	eventually(t, within, fmt.Sprintf("backend %s is %v", id, status), func() error {
		var err error
		if entry, err = c.api.Status(t.Context(), id); err != nil {
			return err
		}
		if entry.Status < status {
			return fmt.Errorf("it is %v", entry.Status)
		}
		return nil
	})
	return entry
}

// is requires that the backend is in the status now.
func (c *cluster) is(t *testing.T, id string, status backend.Status) {
	t.Helper()
	entry, err := c.api.Status(t.Context(), id)
	require.NoError(t, err)
	require.Equal(t, status, entry.Status, "backend %s: %+v", id, entry)
}

// history reads the whole status stream of a backend, which has to end within
// the time, and so the backend with it.
func (c *cluster) history(t *testing.T, id string, within time.Duration) []protocol.StatusEntry {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	var entries []protocol.StatusEntry
	err := c.api.StatusStream(ctx, id, 0, func(e protocol.StatusEntry) error {
		entries = append(entries, e)
		return nil
	})
	require.NoError(t, err, "the status stream of %s, so far %v", id, statuses(entries))
	return entries
}

func statuses(entries []protocol.StatusEntry) []backend.Status {
	all := make([]backend.Status, len(entries))
	for i, e := range entries {
		all[i] = e.Status
	}
	return all
}

// apiError is what the controller refused a request with.
func apiError(t *testing.T, err error) *protocol.APIError {
	t.Helper()
	var api *protocol.APIError
	require.ErrorAs(t, err, &api, "want a refusal")
	return api
}
