package docker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/clock"
	"plane/adapters/docker"
	"plane/adapters/docker/dockertest"
	"plane/system/name"
	"plane/system/port"
	"plane/system/porttest"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// open makes a runtime for a new drone, whose containers are removed with the
// test.
func open(t *testing.T, change func(*docker.Config)) (*docker.Runtime, docker.Config) {
	t.Helper()
	cfg := docker.Config{Drone: name.New(name.Drone, clock.Rand{}), IP: loopback}
	if change != nil {
		change(&cfg)
	}
	dockertest.RemoveContainers(t, cfg.Drone)
	return reopen(t, cfg), cfg
}

func reopen(t *testing.T, cfg docker.Config) *docker.Runtime {
	t.Helper()
	r, err := docker.New(t.Context(), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close()) })
	return r
}

// executable is the test backend with an environment and other fields.
func executable(t *testing.T, env map[string]string, fields map[string]any) json.RawMessage {
	t.Helper()
	e := map[string]any{"image": dockertest.Tag, "env": env}
	for k, v := range fields {
		e[k] = v
	}
	out, err := json.Marshal(e)
	require.NoError(t, err)
	return out
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	return l.Addr().(*net.TCPAddr).Port
}

func takenPort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, l.Close()) })
	return l.Addr().(*net.TCPAddr).Port
}

// get asks a backend, which may not listen yet, until it answers.
func get(ctx context.Context, address, path string) (*http.Response, error) {
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, nil)
		if err != nil {
			return nil, err
		}
		res, err := http.DefaultClient.Do(req)
		if err == nil {
			return res, nil
		}
		if err := clock.Sleep(ctx, 10*time.Millisecond); err != nil {
			return nil, fmt.Errorf("no answer from %s: %w", address, err)
		}
	}
}

func getJSON(ctx context.Context, address, path string, into any) error {
	res, err := get(ctx, address, path)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return json.NewDecoder(res.Body).Decode(into)
}

func awaitServing(ctx context.Context, address string) error {
	res, err := get(ctx, address, "/")
	if err != nil {
		return err
	}
	return res.Body.Close()
}

func TestConformance(t *testing.T) {
	dockertest.Image(t)
	porttest.ContainerRuntime(t, func(t *testing.T) porttest.RuntimeUnderTest {
		r, cfg := open(t, nil)
		sibling, _ := open(t, nil)
		return porttest.RuntimeUnderTest{
			Runtime:  r,
			Clock:    clock.New(),
			Prefix:   cfg.Drone + "-",
			Again:    func(t *testing.T) port.ContainerRuntime { return reopen(t, cfg) },
			Sibling:  sibling,
			Serving:  executable(t, nil, nil),
			Stubborn: executable(t, map[string]string{"IGNORE_SIGTERM": "1"}, nil),
			Exiting: func(code int) json.RawMessage {
				return executable(t, map[string]string{"EXIT_CODE": fmt.Sprint(code)}, nil)
			},
			Hungry: executable(t, map[string]string{"EAT_MEMORY": "1"}, map[string]any{
				"resource_limits": map[string]any{"memory_limit_bytes": 32 << 20},
			}),
			Malformed:    json.RawMessage(`{"env":{}}`),
			Port:         freePort,
			TakenPort:    takenPort,
			AwaitServing: awaitServing,
			Environ: func(ctx context.Context, address string) (map[string]string, error) {
				env := map[string]string{}
				return env, getJSON(ctx, address, "/env", &env)
			},
		}
	})
}
