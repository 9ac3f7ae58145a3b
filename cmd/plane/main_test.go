package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"plane/adapters/apiclient"
	"plane/system/backend"
	"plane/system/protocol"
)

func TestExitCodes(t *testing.T) {
	for line, want := range map[string]int{
		"version":                                 0,
		"controller --help":                       0,
		"nonsense":                                exitUsage,
		"controller --nonsense":                   exitUsage,
		"controller --db x":                       exitUsage,
		"run-config none.json":                    exitUsage,
		"admin status --controller http://[::1":   exitUsage,
		"admin status --controller http://[::]:1": exitFailed,
	} {
		var out, errs bytes.Buffer
		require.Equal(t, want, run(strings.Fields(line), &out, &errs), "%s\n%s", line, errs.String())
		require.Equal(t, want != 0, strings.HasPrefix(errs.String(), "error: "), line)
		require.NotContains(t, errs.String(), "\x1b", "colours where there is no terminal")
	}
}

func TestAPortInUseIsNamed(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close() //nolint:errcheck // test over
	_, port, err := net.SplitHostPort(taken.Addr().String())
	require.NoError(t, err)
	for line, flag := range map[string]string{
		"controller --port " + port: "--port",
		"proxy --http-port " + port + " --cluster localhost:9090 --controller-url http://127.0.0.1:1": "--http-port",
		"dev --runtime process --controller-port " + port:                                             "--controller-port",
		"demo --runtime process --controller-port 0 --proxy-port " + port:                             "--proxy-port",
	} {
		var out, errs bytes.Buffer
		if strings.HasPrefix(line, "proxy") { // it listens everywhere
			everywhere, err := net.Listen("tcp", ":"+port)
			if err == nil {
				defer everywhere.Close() //nolint:errcheck // test over
			}
		}
		require.Equal(t, exitFailed, run(strings.Fields(line), &out, &errs), "%s\n%s", line, errs.String())
		require.Contains(t, errs.String(), "port "+port+" of ")
		require.Contains(t, errs.String(), "choose another port with "+flag)
	}
}

// freePort returns a port that nobody listened on a moment ago.
func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close() //nolint:errcheck // it served
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// TestDevelopmentServesAndLeavesNothing runs the whole of Plane in this process,
// with backends that are processes.
func TestDevelopmentServesAndLeavesNothing(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	self, err := os.Executable()
	require.NoError(t, err)
	program := filepath.Join(t.TempDir(), "plane") // TestMain takes it for the program by its name
	require.NoError(t, os.Symlink(self, program))
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))

	d, err := prepareDevelopment(t.Context(), devSettings{controllerPort: freePort(t), proxyPort: freePort(t), runtime: processRuntime}, log)
	require.NoError(t, err)
	enough := errors.New("seen enough")
	err = d.run(t.Context(), func(ctx context.Context) error {
		useDevelopment(ctx, t, d, program)
		return enough
	})
	require.ErrorIs(t, err, enough)
	require.NoDirExists(t, d.dir)
	for _, left := range processesOf(t, program, d.dir) {
		t.Errorf("a process is left: %s", left)
	}
}

func useDevelopment(ctx context.Context, t *testing.T, d *development, program string) {
	t.Helper()
	client, err := apiclient.New(d.controller.url, version())
	require.NoError(t, err)
	executable, err := json.Marshal(map[string]any{"command": []string{program, whiteboardCommand}})
	require.NoError(t, err)
	req := protocol.ConnectRequest{Key: &protocol.Key{Name: "board"}, SpawnConfig: &protocol.SpawnConfig{Executable: executable}}
	first, err := client.Connect(ctx, req)
	require.NoError(t, err)
	require.True(t, first.Spawned)
	last, err := follow(ctx, client, first.BackendID, func(e protocol.StatusEntry) bool { return e.Status == backend.Ready })
	require.NoError(t, err)
	require.Equal(t, backend.Ready, last.Status, explainEnd(last))
	second, err := client.Connect(ctx, req)
	require.NoError(t, err)
	require.Equal(t, first.BackendID, second.BackendID)
	var out, errs bytes.Buffer
	require.Zero(t, run([]string{"admin", "list", "--controller", d.controller.url, "--cluster", d.proxy.cluster.String(), "--key", "board"}, &out, &errs), errs.String())
	require.Regexp(t, `(?m)^`+first.BackendID+` +board +ready `, out.String())
	state, err := client.ClusterState(ctx, d.proxy.cluster.String())
	require.NoError(t, err)
	require.GreaterOrEqual(t, state.Drones[0].Capacity.MilliCPUs, int64(1000), "the drone has what the machine has")
	require.Greater(t, state.Drones[0].Capacity.MemoryBytes, int64(1<<26))
	require.False(t, second.Spawned)

	httpReq, err := http.NewRequestWithContext(ctx, http.MethodGet, second.URL, nil)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(httpReq)
	require.NoError(t, err)
	defer resp.Body.Close() //nolint:errcheck // only read from
	page, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.Equal(t, first.BackendID, resp.Header.Get("X-Plane-Backend-Id"))
	require.Contains(t, string(page), `data-key="board"`)
	require.NotEmpty(t, processesOf(t, program, d.dir), "or this test could not see what is left")
}

// processesOf lists the command lines of running processes that name one of the
// files.
func processesOf(t *testing.T, files ...string) []string {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	var found []string
	for _, path := range paths {
		line, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended meanwhile
		}
		for _, file := range files {
			if strings.Contains(string(line), file) {
				found = append(found, strings.ReplaceAll(string(line), "\x00", " "))
				break
			}
		}
	}
	return found
}
