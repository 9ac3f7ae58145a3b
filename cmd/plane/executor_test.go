package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"plane/adapters/apiclient"
	"plane/system/backend"
	"plane/system/protocol"
)

// TestADroneRunsBackendsThroughAnExecutor takes one backend from connect to its
// end, over an agent's restart.
func TestADroneRunsBackendsThroughAnExecutor(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	x := startExecutor(t)
	cluster := "localhost:9090"
	c, err := prepareController(t.Context(), controllerSettings{
		Bind: fmt.Sprintf("127.0.0.1:%d", freePort(t)), DefaultCluster: cluster, CleanupBatch: defaultCleanupBatch, BestOf: 2, PortFlag: "--port",
	}, log)
	require.NoError(t, err)
	ctx, stop := context.WithCancelCause(t.Context())
	var g errgroup.Group
	g.Go(func() error { return c.run(ctx) })
	settings := droneSettings{
		ControllerURL: c.url, Cluster: cluster, IP: "127.0.0.1", DB: filepath.Join(t.TempDir(), "journal.db"),
		Runtime: dockerRuntime, ExecutorSocket: x.path,
	}
	_, stopDrone := startDrone(ctx, t, settings, log)
	ready := func() (bool, error) {
		state, err := c.role.ClusterState(ctx, cluster)
		return err == nil && len(state.Drones) == 1 && state.Drones[0].Ready, err
	}
	require.NoError(t, poll(ctx, 10*time.Second, ready, "the drone did not connect"))

	client, err := apiclient.New(c.url, version())
	require.NoError(t, err)
	req := protocol.ConnectRequest{Key: &protocol.Key{Name: "k"}, SpawnConfig: &protocol.SpawnConfig{Executable: json.RawMessage(`{"image":"x"}`)}}
	connected, err := client.Connect(ctx, req)
	require.NoError(t, err)
	last, err := follow(ctx, client, connected.BackendID, func(e protocol.StatusEntry) bool { return e.Status == backend.Ready })
	require.NoError(t, err)
	require.Equal(t, backend.Ready, last.Status, explainEnd(last))

	stopDrone()
	d, stopDrone := startDrone(ctx, t, settings, log)
	require.NoError(t, client.Terminate(ctx, connected.BackendID, backend.Soft))
	last, err = follow(ctx, client, connected.BackendID, func(e protocol.StatusEntry) bool { return e.Status == backend.Terminated })
	require.NoError(t, err)
	require.Equal(t, backend.Terminated, last.Status)
	require.Equal(t, backend.External, last.TerminationReason)
	require.Equal(t, 1, x.spawns, "the restarted agent took it up")

	gone := func() (bool, error) {
		left, err := d.runtime.List(ctx)
		return len(left) == 0, err
	}
	require.NoError(t, poll(ctx, 10*time.Second, gone, "the drone did not forget the backend"))
	require.NoError(t, d.guard.Clear(ctx, connected.BackendID), "or the guard would outlive this test")
	stopDrone()
	stop(errStopped)
	require.ErrorIs(t, g.Wait(), errStopped)
}

func startDrone(ctx context.Context, t *testing.T, s droneSettings, log *slog.Logger) (d *runningDrone, stop func()) {
	t.Helper()
	d, err := prepareDrone(ctx, s, log)
	require.NoError(t, err)
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan error, 1)
	go func() { ended <- d.run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel(errStopped)
		if err := <-ended; !errors.Is(err, errStopped) {
			t.Error(err)
		}
		d.close()
	})
	t.Cleanup(stop)
	return d, stop
}

// anExecutor runs HTTP servers of this process as backends. It serves one
// connection at a time, as executors of 0.5 do.
type anExecutor struct {
	path   string
	spawns int
}

func startExecutor(t *testing.T) *anExecutor {
	t.Helper()
	x := &anExecutor{path: filepath.Join(t.TempDir(), "x.sock")}
	l, err := net.Listen("unix", x.path)
	require.NoError(t, err)
	var g errgroup.Group
	g.Go(func() error { x.serve(t, l); return nil })
	t.Cleanup(func() {
		require.NoError(t, l.Close())
		require.NoError(t, g.Wait())
	})
	return x
}

func (x *anExecutor) serve(t *testing.T, l net.Listener) {
	backends := map[string]*httptest.Server{}
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		in := bufio.NewScanner(conn)
		for in.Scan() {
			var q struct {
				ID      string
				Message map[string]json.RawMessage
			}
			if err := json.Unmarshal(in.Bytes(), &q); err != nil {
				t.Errorf("%q: %v", in.Text(), err)
			}
			for kind, body := range q.Message {
				result := x.obey(kind, body, backends)
				fmt.Fprintf(conn, `{"id":%q,"message":{"%sResult":{"Ok":%s}}}`+"\n", q.ID, kind, result) //nolint:errcheck // test
				if kind == "Terminate" && result == "true" {
					var args []json.RawMessage
					if err := json.Unmarshal(body, &args); err != nil {
						t.Error(err)
					}
					fmt.Fprintf(conn, `{"id":null,"message":{"TerminateEvent":{"backend_id":%s,"exit_code":0}}}`+"\n", args[0]) //nolint:errcheck // test
				}
			}
		}
		conn.Close() //nolint:errcheck,gosec // its peer has closed it
	}
}

func (x *anExecutor) obey(kind string, body json.RawMessage, backends map[string]*httptest.Server) string {
	var args []json.RawMessage
	if json.Unmarshal(body, &args) != nil {
		return "null" // Prepare
	}
	id := string(args[0])
	switch kind {
	case "Spawn":
		x.spawns++
		backends[id] = httptest.NewServer(http.NotFoundHandler())
		return fmt.Sprintf(`{"container_id":"c","port":%d}`, backends[id].Listener.Addr().(*net.TCPAddr).Port)
	case "Terminate":
		if backends[id] == nil {
			return "false"
		}
		backends[id].Close()
		delete(backends, id)
		return "true"
	}
	return "null"
}
