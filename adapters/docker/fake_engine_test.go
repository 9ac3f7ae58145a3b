package docker_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/docker"
	"plane/system/placement"
	"plane/system/port"
)

// fakeEngine answers what no real engine can be made to do in a test. Paths are
// without the version.
func fakeEngine(t *testing.T, routes map[string]http.HandlerFunc, change func(*docker.Config)) *docker.Runtime {
	t.Helper()
	over := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path := r.URL.Path
		if rest, ok := strings.CutPrefix(path, "/v1.41"); ok {
			path = rest
		}
		switch handler, ok := routes[r.Method+" "+path]; {
		case ok:
			handler(w, r)
		case path == "/_ping":
			w.Header().Set("Api-Version", "1.41")
		case path == "/info":
			fmt.Fprint(w, `{"OSType":"linux","SystemTime":"2026-01-01T00:00:00Z","NCPU":6,"MemTotal":34359738368}`)
		default:
			select { // like a hung engine
			case <-r.Context().Done():
			case <-over:
			}
		}
	}))
	cfg := docker.Config{Host: "tcp://" + server.Listener.Addr().String(), Drone: "dr-fake", IP: loopback}
	if change != nil {
		change(&cfg)
	}
	t.Cleanup(func() { close(over); server.Close() })
	return reopen(t, cfg)
}

func TestMachineIsTheEngines(t *testing.T) {
	require.Equal(t, placement.Capacity{MilliCPUs: 6000, MemoryBytes: 32 << 30}, fakeEngine(t, nil, nil).Machine())
}

func TestHungEngineMakesCallsFail(t *testing.T) {
	r := fakeEngine(t, nil, func(c *docker.Config) { c.CallTimeout = 50 * time.Millisecond })
	ctx := t.Context()
	spec := specFor(t, "hung", executable(t, nil, nil))
	_, start := r.Start(ctx, spec)
	_, inspect := r.Inspect(ctx, "hung")
	_, list := r.List(ctx)
	_, exits := r.Exits(ctx)
	_, stats := r.Stats(ctx, "hung")
	for method, err := range map[string]error{
		"Start": start, "Inspect": inspect, "List": list, "Exits": exits, "Stats": stats, "Stop": r.Stop(ctx, "hung"),
		"Kill": r.Kill(ctx, "hung"), "Remove": r.Remove(ctx, "hung"), "Pull": r.Pull(ctx, spec, func(string) {}),
	} {
		require.Error(t, err, method)
		require.NotErrorIs(t, err, port.ErrNoContainer, method)
	}
	require.ErrorContains(t, inspect, "the engine has not answered in 50ms")
}

func pullThrough(answer http.HandlerFunc) map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"GET /images/plane-test/backend:latest/json": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"message":"No such image"}`)
		},
		"POST /images/create": answer,
	}
}

func TestPullTellsProgress(t *testing.T) {
	r := fakeEngine(t, pullThrough(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"status":"Pulling from library/app","id":"1"}
			{"status":"Downloading","id":"aa","progressDetail":{"current":500000,"total":2000000}}
			{"status":"Status: Downloaded newer image"}`)
	}), nil)
	var told []string
	require.NoError(t, r.Pull(t.Context(), specFor(t, "p", executable(t, nil, nil)), func(s string) { told = append(told, s) }))
	require.Equal(t, []string{"0 of 1 layers, 500kB of 2MB"}, told)
}

func TestPullThatStallsFails(t *testing.T) {
	r := fakeEngine(t, pullThrough(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, `{"status":"Downloading","id":"aa"}`)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}), func(c *docker.Config) { c.PullStall = 50 * time.Millisecond })
	err := r.Pull(t.Context(), specFor(t, "p", executable(t, nil, nil)), func(string) {})
	require.ErrorContains(t, err, "no progress for 50ms")
	require.NotErrorIs(t, err, port.ErrBadExecutable)
}

func TestPullTellsWhatTheRegistryRefuses(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"at once": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, `{"message":"pull access denied for app, user said hunter2"}`)
		},
		"on the way": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"status":"Pulling"}{"errorDetail":{"message":"unauthorized: hunter2 is wrong"},"error":"unauthorized"}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var auth string
			r := fakeEngine(t, pullThrough(func(w http.ResponseWriter, r *http.Request) {
				auth = r.Header.Get("X-Registry-Auth")
				answer(w, r)
			}), nil)
			err := r.Pull(t.Context(), specFor(t, "p", executable(t, nil, map[string]any{
				"credentials": map[string]string{"username": "u", "password": "hunter2"},
			})), func(string) {})
			require.ErrorIs(t, err, port.ErrBadExecutable)
			require.NotContains(t, err.Error(), "hunter2")
			require.NotEmpty(t, auth)
		})
	}
}

func TestPruneKeepsWhatIsUsed(t *testing.T) {
	var mu sync.Mutex
	var removed []string
	remove := func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		removed = append(removed, r.URL.Path[strings.LastIndex(r.URL.Path, "/images/")+len("/images/"):])
		fmt.Fprint(w, `[]`)
	}
	routes := map[string]http.HandlerFunc{
		"GET /images/plane-test/backend:latest/json": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"Id":"wanted"}`) },
		"GET /containers/json":                       func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `[{"Id":"c","ImageID":"running"}]`) },
		"GET /images/json": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `[{"Id":"running","RepoTags":["a:1"]},{"Id":"wanted","RepoTags":["b:1"]},{"Id":"old","RepoTags":["c:1","c:2"]},{"Id":"nameless","RepoTags":["<none>:<none>"]}]`)
		},
		"DELETE /images/c:1": remove, "DELETE /images/c:2": remove, "DELETE /images/nameless": remove,
		"DELETE /images/a:1": remove, "DELETE /images/b:1": remove,
	}
	off := fakeEngine(t, routes, nil)
	require.NoError(t, off.Prune(t.Context()))
	require.Empty(t, removed, "it is not configured")
	r := fakeEngine(t, routes, func(c *docker.Config) { c.PruneImages = true })
	require.NoError(t, r.Pull(t.Context(), specFor(t, "p", executable(t, nil, nil)), func(string) {}))
	require.NoError(t, r.Prune(t.Context()))
	require.Equal(t, []string{"c:1", "c:2", "nameless"}, removed)
}
