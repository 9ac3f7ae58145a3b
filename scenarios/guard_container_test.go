package scenarios

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"
	"github.com/docker/docker/pkg/stdcopy"
	"github.com/stretchr/testify/require"

	dockeradapter "plane/adapters/docker"
	"plane/adapters/docker/dockertest"
	"plane/system/lease"
)

// engineSocket is where the engine of these tests has to be.
const engineSocket = "/var/run/docker.sock"

var agentBuild sync.Mutex

// agentImage builds an image with nothing in it but plane.
func agentImage(t *testing.T) string {
	t.Helper()
	dockertest.Engine(t)
	if _, err := os.Stat(engineSocket); err != nil {
		t.Skipf("needs the engine's socket at its usual place: %v", err)
	}
	agentBuild.Lock() // one builds it, the others find it
	defer agentBuild.Unlock()
	const tag = "plane-test/agent:latest"
	require.NoError(t, dockeradapter.BuildImage(t.Context(), tag, []string{"/usr/bin/plane"},
		dockeradapter.File{Path: "/usr/bin/plane", Source: *planeBinary, Mode: 0o755}))
	return tag
}

// containerAgent is a drone's agent in a container, with its state in a volume.
type containerAgent struct {
	c                  *cluster
	engine             *client.Client // also good when the test is over
	image, node        string
	name, guard        string // of the agent's container and the guard's
	volume             string
	binds, environment []string
}

func newContainerAgent(t *testing.T, c *cluster) containerAgent {
	t.Helper()
	node := c.droneName("one")
	a := containerAgent{
		c: c, engine: dockertest.Engine(t), image: agentImage(t), node: node, name: node + ".agent", guard: "plane-guard." + node, volume: node,
		binds: []string{engineSocket + ":" + engineSocket, node + ":/var/lib/plane"},
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the agent:\n%s\nits guard:\n%s", a.log(t, a.name), a.log(t, a.guard))
		}
		a.remove(t, a.name) // or it would start the guard again
		a.remove(t, a.guard)
		require.NoError(t, a.engine.VolumeRemove(context.WithoutCancel(t.Context()), a.volume, true))
	})
	dockertest.RemoveContainers(t, node)
	return a
}

// start starts the agent in a new container.
func (a containerAgent) start(t *testing.T) {
	t.Helper()
	a.remove(t, a.name)
	made, err := a.engine.ContainerCreate(t.Context(), &container.Config{
		Image: a.image, Env: a.environment,
		Cmd: []string{"drone", "--name", a.node, "--controller-url", "http://" + a.c.network.address(), "--cluster", a.c.name},
	}, &container.HostConfig{NetworkMode: "host", Binds: a.binds}, nil, nil, a.name)
	require.NoError(t, err)
	require.NoError(t, a.engine.ContainerStart(t.Context(), made.ID, container.StartOptions{}))
}

// log is what a container has written so far.
func (a containerAgent) log(t *testing.T, name string) string {
	t.Helper()
	out, err := a.engine.ContainerLogs(context.WithoutCancel(t.Context()), name, container.LogsOptions{ShowStdout: true, ShowStderr: true})
	if err != nil {
		return err.Error()
	}
	defer out.Close()
	var text strings.Builder
	if _, err := stdcopy.StdCopy(&text, &text, out); err != nil {
		return err.Error()
	}
	return text.String()
}

func (a containerAgent) remove(t *testing.T, name string) {
	t.Helper()
	err := a.engine.ContainerRemove(context.WithoutCancel(t.Context()), name, container.RemoveOptions{Force: true})
	if !errdefs.IsNotFound(err) {
		require.NoError(t, err)
	}
}

// kill is docker kill.
func (a containerAgent) kill(t *testing.T, name string) {
	t.Helper()
	require.NoError(t, a.engine.ContainerKill(t.Context(), name, "KILL"))
}

func (a containerAgent) inspect(t *testing.T, name string) container.InspectResponse {
	t.Helper()
	c, err := a.engine.ContainerInspect(t.Context(), name)
	require.NoError(t, err)
	return c
}

// killProcess ends a container's process behind the engine's back, which is a
// crash to the engine: what docker kill ends, it does not start again.
func (a containerAgent) killProcess(t *testing.T, name string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root, to kill a container's process")
	}
	pid := a.inspect(t, name).State.Pid
	require.Positive(t, pid)
	require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
}

// runsAgain waits until the engine has started a container's process anew.
func (a containerAgent) runsAgain(t *testing.T, name string, after container.InspectResponse) {
	t.Helper()
	eventually(t, 15*time.Second, name+" runs again", func() error {
		c := a.inspect(t, name)
		if !c.State.Running || c.State.Restarting || c.State.Pid == after.State.Pid || c.State.Pid == 0 {
			return fmt.Errorf("it is %s", c.State.Status)
		}
		return nil
	})
	require.Equal(t, after.ID, a.inspect(t, name).ID)
}

// TestAgentInContainerKilled_ContainersGoneByHardDeadline: the lease guard runs
// beside an agent's container and outlives it; the engine starts it again when
// it dies too (G1).
func TestAgentInContainerKilled_ContainersGoneByHardDeadline(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		then func(t *testing.T, a containerAgent)
	}{
		{"the guard lives", func(*testing.T, containerAgent) {}},
		{"the guard is asked to end", func(t *testing.T, a containerAgent) {
			for range 3 {
				require.NoError(t, a.engine.ContainerKill(t.Context(), a.guard, "TERM"))
			}
		}},
		{"the guard dies too", func(t *testing.T, a containerAgent) {
			before := a.inspect(t, a.guard)
			a.killProcess(t, a.guard)
			a.runsAgain(t, a.guard, before)
		}},
		{"the agent's container is removed, and the guard dies", func(t *testing.T, a containerAgent) {
			a.remove(t, a.name)
			before := a.inspect(t, a.guard)
			a.killProcess(t, a.guard)
			a.runsAgain(t, a.guard, before)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := startCluster(t, docker)
			a := newContainerAgent(t, c)
			a.start(t)
			c.awaitDrone(t, a.node)
			resp := c.ready(t, "k")
			a.kill(t, a.name)
			killed := time.Now()
			test.then(t, a)
			require.NotEmpty(t, c.incarnation(t, resp.BackendID), "the backend goes on without its agent")
			c.vanishes(t, resp.BackendID, time.Until(killed.Add(lease.Default().Hard+lease.KillTime)))
			t.Logf("gone %v after its agent", time.Since(killed).Round(time.Second))
			require.Greater(t, time.Since(killed), lease.Default().Hard-lease.Default().Renew-lease.KillTime, "not before its lease was over")
			a.awaitLog(t, a.guard, resp.BackendID) // it was the guard
		})
	}
}

// TestAgentInContainerMadeAgain: an agent that is upgraded, and so has another
// container and another image, finds its backends and its guard again (G10).
func TestAgentInContainerMadeAgain(t *testing.T) {
	t.Parallel()
	c := startCluster(t, docker)
	a := newContainerAgent(t, c)
	a.start(t)
	c.awaitDrone(t, a.node)
	resp := c.ready(t, "k", maxIdle(60))
	ws := openSocket(t, resp.URL)
	before, guard := c.incarnation(t, resp.BackendID), a.inspect(t, a.guard)

	a.start(t) // a new container of the same image
	a.awaitLog(t, a.name, "connected")
	require.Equal(t, guard.ID, a.inspect(t, a.guard).ID, "the guard stays")
	require.Equal(t, guard.State.Pid, a.inspect(t, a.guard).State.Pid)

	a.environment = []string{"PLANE_LOG_LEVEL=debug"}
	a.start(t) // as something else
	a.awaitLog(t, a.name, "connected")
	require.NotEqual(t, guard.ID, a.inspect(t, a.guard).ID, "the guard is as the agent is")

	// A guard that dies under a living agent, however that happens.
	a.kill(t, a.guard)
	eventually(t, 15*time.Second, "the guard runs again", func() error {
		if s := a.inspect(t, a.guard).State; !s.Running {
			return fmt.Errorf("it is %s", s.Status)
		}
		return nil
	})
	ws.livesFor(t, lease.Default().Hard+lease.KillTime) // past the first agent's deadlines
	require.Equal(t, before, c.incarnation(t, resp.BackendID))
}

// awaitLog waits until a container has said something.
func (a containerAgent) awaitLog(t *testing.T, name, text string) {
	t.Helper()
	eventually(t, 15*time.Second, name+" says "+text, func() error {
		if log := a.log(t, name); !strings.Contains(log, text) {
			return fmt.Errorf("so far:\n%s", log)
		}
		return nil
	})
}

// TestAgentInContainerIsToldWhatToMount: an agent whose state would end with its
// container, or whose guard could not see it, is refused at its start.
func TestAgentInContainerIsToldWhatToMount(t *testing.T) {
	t.Parallel()
	c := startCluster(t, docker)
	for _, test := range []struct {
		name  string
		binds []string
		want  string
	}{
		{"no volume", []string{engineSocket + ":" + engineSocket}, "-v /var/lib/plane:/var/lib/plane"},
		{"no socket", []string{c.droneName("one") + ":/var/lib/plane"}, "-v /var/run/docker.sock:/var/run/docker.sock"},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := newContainerAgent(t, c)
			a.binds = test.binds
			a.start(t)
			eventually(t, 15*time.Second, "it ends", func() error {
				if s := a.inspect(t, a.name).State; s.Running {
					return fmt.Errorf("it is %s", s.Status)
				}
				return nil
			})
			require.NotZero(t, a.inspect(t, a.name).State.ExitCode)
			require.Contains(t, a.log(t, a.name), test.want)
			_, err := a.engine.ContainerInspect(t.Context(), a.guard)
			require.True(t, errdefs.IsNotFound(err), "no guard was started: %v", err)
		})
	}
}

// TestContainersCountInTheMachinesBoot: a guard and an agent understand each
// other's deadlines whichever of them is in a container.
func TestContainersCountInTheMachinesBoot(t *testing.T) {
	t.Parallel()
	c := startCluster(t, docker)
	a := newContainerAgent(t, c)
	a.start(t)
	c.awaitDrone(t, a.node)
	here, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	require.NoError(t, err)
	// What the agent has written down of the boot that it sees.
	out, _, err := a.engine.CopyFromContainer(t.Context(), a.name, "/var/lib/plane")
	require.NoError(t, err)
	defer out.Close()
	state, err := io.ReadAll(out)
	require.NoError(t, err)
	require.Contains(t, string(state), `"boot_id":`+strconv.Quote(strings.TrimSpace(string(here))))
}
