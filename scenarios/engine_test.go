package scenarios

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/stretchr/testify/require"

	dockeradapter "plane/adapters/docker"
	"plane/adapters/docker/dockertest"
)

// containers returns the names of the containers of a drone that run, by id.
func containers(t *testing.T, drone string) map[string]string {
	t.Helper()
	list, err := dockertest.Engine(t).ContainerList(t.Context(), container.ListOptions{
		Filters: filters.NewArgs(filters.Arg("label", dockeradapter.DroneLabel+"="+drone)),
	})
	require.NoError(t, err)
	found := map[string]string{}
	for _, c := range list {
		found[c.ID] = c.Labels[dockeradapter.BackendLabel]
	}
	return found
}

// containersOf returns the containers of a backend, ended ones included.
func containersOf(t *testing.T, backendID string) []container.Summary {
	t.Helper()
	list, err := dockertest.Engine(t).ContainerList(t.Context(), container.ListOptions{
		All: true, Filters: filters.NewArgs(filters.Arg("label", dockeradapter.BackendLabel+"="+backendID)),
	})
	require.NoError(t, err)
	return list
}

func engineAnswers(t *testing.T) bool { return dockeradapter.Available(t.Context()) == nil }

// incarnation tells one run of a backend from another: what the machine calls
// its container or process. It is empty when it does not run.
func (c *cluster) incarnation(t *testing.T, id string) string {
	t.Helper()
	if c.runtime == docker {
		list := containersOf(t, id)
		require.LessOrEqual(t, len(list), 1, "a backend has one container")
		for _, c := range list {
			if c.State == container.StateRunning {
				return c.ID
			}
		}
		return ""
	}
	for pid := range having(t, "SESSION_BACKEND_ID="+id) {
		return fmt.Sprint(pid)
	}
	return ""
}

// vanishes waits until nothing runs of the backend.
func (c *cluster) vanishes(t *testing.T, id string, within time.Duration) {
	t.Helper()
	eventually(t, within, "nothing runs of backend "+id, func() error {
		if c.incarnation(t, id) != "" {
			return errors.New("it runs")
		}
		return nil
	})
}
