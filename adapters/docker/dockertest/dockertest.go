// Package dockertest gives tests what they need of a real engine: an image of
// the test backend, and an end to every container that a test has made.
package dockertest

import (
	"context"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"

	"plane/adapters/docker"
	"plane/scenarios/testprogram"
)

// Tag is the image of the test backend.
const Tag = "plane-test/backend:latest"

// Engine skips the test when no engine answers, and says why.
func Engine(t testing.TB) *client.Client {
	t.Helper()
	if err := docker.Available(t.Context()); err != nil {
		t.Skipf("needs a container engine: %v", err)
	}
	engine, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := engine.Close(); err != nil {
			t.Error(err)
		}
	})
	return engine
}

// Image returns Tag once the engine has the image; it is left there for the next
// run.
func Image(t testing.TB) string {
	t.Helper()
	Engine(t)
	err := docker.BuildImage(t.Context(), Tag, []string{"/testbackend"},
		docker.File{Path: "/testbackend", Source: testprogram.Path(t), Mode: 0o755},
		docker.File{Path: "/tmp", Mode: 0o1777})
	if err != nil {
		t.Fatal(err)
	}
	return Tag
}

// RemoveContainers ends and removes all containers of a drone when the test is
// over.
func RemoveContainers(t testing.TB, drone string) {
	t.Helper()
	engine := Engine(t)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		// One that somebody else removes at this moment counts as left until it
		// is gone.
		for removing := true; removing; {
			left, err := engine.ContainerList(ctx, container.ListOptions{
				All: true, Filters: filters.NewArgs(filters.Arg("label", docker.DroneLabel+"="+drone)),
			})
			if err != nil {
				t.Errorf("list what is left: %v", err)
				return
			}
			for _, c := range left {
				err := engine.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true, RemoveVolumes: true})
				if err != nil && !errdefs.IsConflict(err) && !errdefs.IsNotFound(err) {
					t.Errorf("remove %s: %v", c.Names, err)
					return
				}
			}
			removing = len(left) > 0
		}
	})
}
