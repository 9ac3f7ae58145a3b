package docker_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	dockermount "github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/client"
	"github.com/stretchr/testify/require"

	"plane/adapters/docker"
	"plane/adapters/docker/dockertest"
	"plane/adapters/guard"
	"plane/scenarios/testprogram"
	"plane/system/port"
)

var _ guard.Engine = (*docker.Runtime)(nil)

// family is a container and the name of its sibling. Both end with the test.
type family struct {
	engine        *client.Client // also good when the test is over
	r             *docker.Runtime
	like, sibling string
	directory     string // of this machine, which is /state in the container
	volume        string // which is /volume, read-only
}

func newFamily(t *testing.T) family {
	t.Helper()
	image := dockertest.Image(t)
	r, cfg := open(t, nil)
	f := family{engine: dockertest.Engine(t), r: r, like: cfg.Drone + ".like", sibling: cfg.Drone + ".sibling", directory: t.TempDir(), volume: cfg.Drone}
	t.Cleanup(func() {
		f.remove(t, f.like)
		f.remove(t, f.sibling)
		require.NoError(t, f.engine.VolumeRemove(context.WithoutCancel(t.Context()), f.volume, true))
	})
	f.makeAnother(t, image)
	return f
}

// makeAnother replaces the container that the sibling is to be like.
func (f family) makeAnother(t *testing.T, image string, env ...string) {
	t.Helper()
	f.remove(t, f.like)
	made, err := f.engine.ContainerCreate(t.Context(), &container.Config{
		Image: image, Env: append(env, "PORT=0"), User: "1234:4321", Labels: map[string]string{"com.docker.compose.project": "p"},
	}, &container.HostConfig{
		Binds:       []string{f.directory + ":/state"},
		GroupAdd:    []string{"999"},
		NetworkMode: "host",
		Mounts: []dockermount.Mount{
			{Type: dockermount.TypeVolume, Source: f.volume, Target: "/volume", ReadOnly: true},
			{Type: dockermount.TypeTmpfs, Target: "/scratch"},
		},
	}, nil, nil, f.like)
	require.NoError(t, err)
	require.NoError(t, f.engine.ContainerStart(t.Context(), made.ID, container.StartOptions{}))
}

func (f family) remove(t *testing.T, name string) {
	t.Helper()
	err := f.engine.ContainerRemove(context.WithoutCancel(t.Context()), name, container.RemoveOptions{Force: true})
	if !errdefs.IsNotFound(err) {
		require.NoError(t, err)
	}
}

func (f family) look(t *testing.T, name string) container.InspectResponse {
	t.Helper()
	c, err := f.engine.ContainerInspect(t.Context(), name)
	require.NoError(t, err)
	return c
}

var command = []string{"/testbackend", "one", "two"}

// started is the sibling, which has to run the command after a call to start it.
func (f family) started(t *testing.T, when string, cmd []string) container.InspectResponse {
	t.Helper()
	require.NoError(t, f.r.StartSibling(t.Context(), f.sibling, f.like, cmd), when)
	c := f.look(t, f.sibling)
	require.True(t, c.State.Running, when)
	require.False(t, c.State.Paused, when)
	require.Equal(t, cmd, append([]string{c.Path}, c.Args...), when)
	return c
}

func TestSiblingIsLikeTheOther(t *testing.T) {
	f := newFamily(t)
	mounts, err := f.r.Mounts(t.Context(), f.like)
	require.NoError(t, err)
	require.Equal(t, []string{"/state", "/volume"}, mounts, "all that can be shared")

	c, like := f.started(t, "first", command), f.look(t, f.like)
	require.Equal(t, like.Image, c.Image)
	require.Equal(t, like.Config.Env, c.Config.Env)
	require.Equal(t, "1234:4321", c.Config.User)
	require.Equal(t, []string{"999"}, c.HostConfig.GroupAdd)
	require.True(t, c.HostConfig.NetworkMode.IsHost())
	require.Equal(t, container.RestartPolicyUnlessStopped, c.HostConfig.RestartPolicy.Name)
	require.NotContains(t, c.Config.Labels, "com.docker.compose.project", "nobody else looks after it")
	at := map[string]container.MountPoint{}
	for _, m := range c.Mounts {
		at[m.Destination] = m
	}
	require.Len(t, at, 2)
	require.Equal(t, f.directory, at["/state"].Source)
	require.True(t, at["/state"].RW)
	require.Equal(t, f.volume, at["/volume"].Name)
	require.False(t, at["/volume"].RW)
	list, err := f.r.List(t.Context())
	require.NoError(t, err)
	require.Empty(t, list, "it is no backend")
}

func TestSiblingIsThereOnce(t *testing.T) {
	f := newFamily(t)
	first := f.started(t, "first", command)
	again := f.started(t, "it runs", command)
	require.Equal(t, first.ID, again.ID)
	require.Equal(t, first.State.Pid, again.State.Pid)

	f.makeAnother(t, dockertest.Tag)
	require.Equal(t, first.ID, f.started(t, "the other one was made again, the same", command).ID)

	require.NoError(t, f.engine.ContainerKill(t.Context(), f.sibling, "KILL"))
	require.Equal(t, first.ID, f.started(t, "it was killed", command).ID)

	require.NoError(t, f.engine.ContainerPause(t.Context(), f.sibling))
	f.started(t, "it was paused", command)
}

func TestSiblingOfSomethingElseIsReplaced(t *testing.T) {
	f := newFamily(t)
	last := f.started(t, "first", command)
	const tag = "plane-test/sibling:latest"
	t.Cleanup(func() {
		f.remove(t, f.like)
		f.remove(t, f.sibling)
		_, err := f.engine.ImageRemove(context.WithoutCancel(t.Context()), tag, image.RemoveOptions{PruneChildren: true})
		require.NoError(t, err)
	})
	another := []string{"/testbackend", "three"}
	for _, test := range []struct {
		of     string
		change func()
	}{
		{"command", func() {}},
		{"environment", func() { f.makeAnother(t, dockertest.Tag, "NEW=1") }},
		{"image", func() {
			require.NoError(t, docker.BuildImage(t.Context(), tag, []string{"/testbackend"},
				docker.File{Path: "/testbackend", Source: testprogram.Path(t), Mode: 0o755}, docker.File{Path: "/other", Mode: 0o755}))
			f.makeAnother(t, tag, "NEW=1")
		}},
	} {
		test.change()
		c := f.started(t, test.of, another)
		require.NotEqual(t, last.ID, c.ID, test.of)
		require.Equal(t, f.look(t, f.like).Image, c.Image, test.of)
		last = c
	}
}

func TestSiblingRefusals(t *testing.T) {
	f := newFamily(t)
	_, err := f.r.Mounts(t.Context(), f.sibling)
	require.ErrorIs(t, err, port.ErrNoContainer)
	require.ErrorIs(t, f.r.StartSibling(t.Context(), f.sibling, "plane-no-such-container", command), port.ErrNoContainer)

	require.ErrorContains(t, f.r.StartSibling(t.Context(), f.like, f.like, command), "remove it")
	require.True(t, f.look(t, f.like).State.Running, "a stranger's container is left alone")

	require.Error(t, f.r.StartSibling(t.Context(), f.sibling, f.like, []string{"/no-such-program"}))
	_, err = f.engine.ContainerInspect(t.Context(), f.sibling)
	require.True(t, errdefs.IsNotFound(err), "what cannot start is not left behind: %v", err)
}

func TestListenerOfASocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	pid, err := docker.Listener(t.Context(), path)
	require.NoError(t, err)
	require.EqualValues(t, os.Getpid(), pid)
	require.NoError(t, l.Close())
	_, err = docker.Listener(t.Context(), path)
	require.Error(t, err)
}
