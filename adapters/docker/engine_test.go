package docker_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/stretchr/testify/require"

	"plane/adapters/docker"
	"plane/adapters/docker/dockertest"
	"plane/system/port"
	"plane/system/protocol"
)

func specFor(t *testing.T, backendID string, e json.RawMessage) port.ContainerSpec {
	t.Helper()
	return port.ContainerSpec{BackendID: backendID, Executable: e, Key: protocol.Key{Name: backendID}, Port: freePort(t)}
}

func TestLimitsLabelsAndLogsReachTheEngine(t *testing.T) {
	engine := dockertest.Engine(t)
	dockertest.Image(t)
	r, cfg := open(t, func(c *docker.Config) {
		c.LogConfig = json.RawMessage(`{"Type":"json-file","Config":{"max-size":"1m"}}`)
	})
	id := cfg.Drone + "-limits"
	_, err := r.Start(t.Context(), specFor(t, id, executable(t, nil, map[string]any{
		"resource_limits": map[string]any{"cpu_period": 50000, "cpu_period_percent": 40, "cpu_time_limit": 9, "memory_limit_bytes": 64 << 20},
	})))
	require.NoError(t, err)
	c, err := engine.ContainerInspect(t.Context(), "plane-"+id)
	require.NoError(t, err)
	h := c.HostConfig
	require.EqualValues(t, 50000, h.CPUPeriod)
	require.EqualValues(t, 20000, h.CPUQuota)
	require.EqualValues(t, 64<<20, h.Memory)
	require.Equal(t, []*container.Ulimit{{Name: "cpu", Soft: 9, Hard: 9}}, h.Ulimits)
	require.Equal(t, "json-file", h.LogConfig.Type)
	require.Equal(t, "1m", h.LogConfig.Config["max-size"])
	require.True(t, h.RestartPolicy.IsNone())
	require.Equal(t, "127.0.0.1", h.PortBindings["8080/tcp"][0].HostIP)
	require.Equal(t, id, c.Config.Labels["dev.plane.backend"])
	require.Equal(t, cfg.Drone, c.Config.Labels["dev.plane.drone"])
	require.Contains(t, c.Config.Env, "PORT=8080")
}

func TestWhatTheEngineRefusesIsTold(t *testing.T) {
	dockertest.Image(t)
	r, cfg := open(t, nil)
	for _, test := range []struct {
		name   string
		fields map[string]any
		atOnce bool // Validate tells it
		want   string
	}{
		{"an unknown network", map[string]any{"network_name": "plane-no-such-network"}, false, "network_name"},
		{"the host's network", map[string]any{"network_name": "host"}, true, "network_name"},
		{"another container's network", map[string]any{"network_name": "container:x"}, true, "network_name"},
		{"too little memory", map[string]any{"resource_limits": map[string]any{"memory_limit_bytes": 1 << 20}}, true, "memory_limit_bytes"},
		{"a mount without a mount base", map[string]any{"mount": true}, true, "--mount-base"},
		{"no image reference", map[string]any{"image": "UPPER:case"}, true, "image"},
	} {
		t.Run(test.name, func(t *testing.T) {
			spec := specFor(t, cfg.Drone+"-refused", executable(t, map[string]string{"SECRET": "hunter2"}, test.fields))
			err := r.Validate(spec)
			if test.atOnce {
				require.ErrorIs(t, err, port.ErrBadExecutable)
			} else {
				require.NoError(t, err)
			}
			_, err = r.Start(t.Context(), spec)
			require.ErrorIs(t, err, port.ErrBadExecutable)
			require.ErrorContains(t, err, test.want)
			require.NotContains(t, err.Error(), "hunter2")
			_, err = r.Inspect(t.Context(), spec.BackendID)
			require.ErrorIs(t, err, port.ErrNoContainer, "nothing is left behind")
		})
	}
}

func TestDiskLimitWorksOrIsTold(t *testing.T) {
	dockertest.Image(t)
	r, cfg := open(t, nil)
	_, err := r.Start(t.Context(), specFor(t, cfg.Drone+"-disk", executable(t, nil, map[string]any{
		"resource_limits": map[string]any{"disk_limit_bytes": 1 << 30},
	})))
	if err != nil {
		require.ErrorIs(t, err, port.ErrBadExecutable)
		require.ErrorContains(t, err, "disk_limit_bytes")
	}
}

func TestNetworkOfItsOwn(t *testing.T) {
	engine := dockertest.Engine(t)
	dockertest.Image(t)
	r, cfg := open(t, nil)
	_, err := engine.NetworkCreate(t.Context(), cfg.Drone, network.CreateOptions{})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, r.Remove(context.Background(), cfg.Drone+"-net"))
		require.NoError(t, engine.NetworkRemove(context.Background(), cfg.Drone))
	})
	c, err := r.Start(t.Context(), specFor(t, cfg.Drone+"-net", executable(t, nil, map[string]any{"network_name": cfg.Drone})))
	require.NoError(t, err)
	require.NoError(t, awaitServing(t.Context(), c.Address))
	seen, err := engine.ContainerInspect(t.Context(), c.ID)
	require.NoError(t, err)
	require.Len(t, seen.NetworkSettings.Networks, 1)
	require.Contains(t, seen.NetworkSettings.Networks, cfg.Drone)
}

func TestMountKeepsWhatABackendWrites(t *testing.T) {
	dockertest.Image(t)
	base := t.TempDir()
	r, cfg := open(t, func(c *docker.Config) { c.MountBase = base })
	for name, form := range map[string]any{cfg.Drone + "-key": true, "shared/deep": "shared/deep"} {
		id := cfg.Drone + "-key"
		c, err := r.Start(t.Context(), specFor(t, id, executable(t, nil, map[string]any{"mount": form})))
		require.NoError(t, err)
		require.NoError(t, awaitServing(t.Context(), c.Address))
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+c.Address+"/file?name=/plane-data/note", strings.NewReader("kept"))
		require.NoError(t, err)
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.NoError(t, r.Remove(t.Context(), id))
		kept, err := os.ReadFile(filepath.Join(base, name, "note"))
		require.NoError(t, err)
		require.Equal(t, "kept", string(kept))
	}
}

func TestMountNeverFollowsASymbolicLink(t *testing.T) {
	dockertest.Image(t)
	base, outside := t.TempDir(), t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(base, "inside"), 0o755))
	require.NoError(t, os.Symlink(outside, filepath.Join(base, "out")))
	require.NoError(t, os.Symlink("inside", filepath.Join(base, "across")))
	require.NoError(t, os.WriteFile(filepath.Join(base, "file"), nil, 0o600))
	r, cfg := open(t, func(c *docker.Config) { c.MountBase = base })
	for _, path := range []string{"out", "out/below", "across", "across/below", "file", "../" + filepath.Base(outside)} {
		_, err := r.Start(t.Context(), specFor(t, cfg.Drone+"-link", executable(t, nil, map[string]any{"mount": path})))
		require.ErrorIs(t, err, port.ErrBadExecutable, path)
		_, err = r.Inspect(t.Context(), cfg.Drone+"-link")
		require.ErrorIs(t, err, port.ErrNoContainer)
	}
	for _, dir := range []string{outside, filepath.Join(base, "inside")} {
		entries, err := os.ReadDir(dir)
		require.NoError(t, err)
		require.Empty(t, entries)
	}
}

func TestAnotherDronesContainerIsNotTakenOver(t *testing.T) {
	dockertest.Image(t)
	first, cfg := open(t, nil)
	second, _ := open(t, nil)
	spec := specFor(t, cfg.Drone+"-mine", executable(t, nil, nil))
	mine, err := first.Start(t.Context(), spec)
	require.NoError(t, err)
	_, err = second.Start(t.Context(), spec)
	require.ErrorContains(t, err, "belongs to another drone")
	seen, err := first.Inspect(t.Context(), spec.BackendID)
	require.NoError(t, err)
	require.Equal(t, mine, seen)
}

// An exit while nobody listens, after New and between two streams, is told by
// the next call.
func TestExitsFillsItsGaps(t *testing.T) {
	dockertest.Image(t)
	r, cfg := open(t, nil)
	for _, id := range []string{cfg.Drone + "-a", cfg.Drone + "-b"} {
		_, err := r.Start(t.Context(), specFor(t, id, executable(t, map[string]string{"IGNORE_SIGTERM": "1"}, nil)))
		require.NoError(t, err)
		require.NoError(t, r.Kill(t.Context(), id))
		got, err := r.Exits(t.Context())
		for err == nil && got != id { // the one before, told again
			got, err = r.Exits(t.Context())
		}
		require.NoError(t, err)
		docker.CutExits(r)
		_, err = r.Exits(t.Context())
		require.Error(t, err, "the cut is told")
	}
}

func TestImagePolicies(t *testing.T) {
	dockertest.Engine(t)
	r, cfg := open(t, nil)
	missing := map[string]any{"image": "127.0.0.1:1/plane-test/missing:1", "pull_policy": "Never"}
	err := r.Pull(t.Context(), specFor(t, cfg.Drone+"-x", executable(t, nil, missing)), func(string) {})
	require.ErrorIs(t, err, port.ErrBadExecutable)
	require.ErrorContains(t, err, "pull_policy is Never")
	missing["pull_policy"] = "IfNotPresent"
	missing["credentials"] = map[string]string{"username": "u", "password": "hunter2"}
	err = r.Pull(t.Context(), specFor(t, cfg.Drone+"-x", executable(t, nil, missing)), func(string) {})
	require.Error(t, err)
	require.NotErrorIs(t, err, port.ErrBadExecutable, "a registry that is down may come back")
	require.NotContains(t, err.Error(), "hunter2")
}

func TestConfigurationIsCheckedAtTheStart(t *testing.T) {
	dockertest.Engine(t)
	good := docker.Config{Drone: "dr-config", IP: loopback}
	for want, change := range map[string]func(*docker.Config){
		"runtime":    func(c *docker.Config) { c.Runtime = "no-such-runtime" },
		"log driver": func(c *docker.Config) { c.LogConfig = json.RawMessage(`{"Type":"no-such-driver"}`) },
		"log config": func(c *docker.Config) { c.LogConfig = json.RawMessage(`{"Type":5}`) },
		"dr-":        func(c *docker.Config) { c.Drone = "nameless" },
		"address":    func(c *docker.Config) { c.IP = netip.Addr{} },
		"no engine":  func(c *docker.Config) { c.Host = "unix:///nonexistent/docker.sock" },
	} {
		cfg := good
		change(&cfg)
		_, err := docker.New(t.Context(), cfg)
		require.ErrorContains(t, err, want)
	}
}

func TestForeignAddressIsPublishedEverywhere(t *testing.T) {
	engine := dockertest.Engine(t)
	dockertest.Image(t)
	r, cfg := open(t, func(c *docker.Config) { c.IP = netip.MustParseAddr("203.0.113.7") })
	spec := specFor(t, cfg.Drone+"-nat", executable(t, nil, nil))
	c, err := r.Start(t.Context(), spec)
	require.NoError(t, err)
	require.Equal(t, netip.AddrPortFrom(cfg.IP, uint16(spec.Port)).String(), c.Address)
	seen, err := engine.ContainerInspect(t.Context(), c.ID)
	require.NoError(t, err)
	require.Equal(t, "0.0.0.0", seen.HostConfig.PortBindings["8080/tcp"][0].HostIP)
}

func TestBuildImageLeavesTheSameContentAlone(t *testing.T) {
	engine := dockertest.Engine(t)
	program := filepath.Join(t.TempDir(), "program")
	const tag = "plane-test/build:latest"
	t.Cleanup(func() {
		_, err := engine.ImageRemove(context.Background(), tag, image.RemoveOptions{PruneChildren: true})
		require.NoError(t, err)
	})
	id := func(content string) string {
		require.NoError(t, os.WriteFile(program, []byte(content), 0o755))
		require.NoError(t, docker.BuildImage(t.Context(), tag, []string{"/program", "run"}, docker.File{Path: "/program", Source: program, Mode: 0o755}))
		img, err := engine.ImageInspect(t.Context(), tag)
		require.NoError(t, err)
		require.Equal(t, []string{"/program", "run"}, img.Config.Entrypoint)
		return img.ID
	}
	first := id("one")
	require.Equal(t, first, id("one"))
	require.NotEqual(t, first, id("another"))
	_, err := engine.ImageInspect(t.Context(), first)
	require.True(t, errdefs.IsNotFound(err), "what was replaced is gone: %v", err)
}
