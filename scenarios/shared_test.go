package scenarios

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/clock"
	"plane/system/backend"
	"plane/system/name"
	"plane/system/protocol"
)

// The parts of a cluster on a shared database.
const (
	sharedControllers = 3
	sharedProxies     = 2
)

// startShared starts three controllers on a database, and two proxies, without a
// drone. A load balancer stands before the controllers, for nodes and callers,
// and another before the proxies.
func startShared(t *testing.T, database string) *cluster {
	t.Helper()
	c := &cluster{runtime: processes, id: name.New(name.Backend, clock.Rand{})[:8], dir: workDir(t)}
	var controllers, proxies []string
	for range sharedControllers {
		controllers = append(controllers, fmt.Sprintf("127.0.0.1:%d", freePort(t)))
	}
	for range sharedProxies {
		proxies = append(proxies, fmt.Sprintf("127.0.0.1:%d", freePort(t)))
	}
	c.name = fmt.Sprintf("localhost:%d", freePort(t))
	newCutterAt(t, "127.0.0.1"+strings.TrimPrefix(c.name, "localhost"), proxies...)
	c.network, c.proxyLine = newCutter(t, controllers...), newCutter(t, controllers...)
	c.url = "http://" + newCutter(t, controllers...).address()
	c.prepare(t)

	for i, address := range controllers {
		p := c.newRole(t, fmt.Sprint("controller-", i), "controller", "--port", portOf(address), "--default-cluster", c.name, "--db", database)
		p.start(t)
		if i == 0 {
			c.controller = p
		} else {
			c.others = append(c.others, p)
		}
		eventually(t, 15*time.Second, p.name+" answers", func() error { return answers("http://"+address+"/pub/health", http.StatusOK) })
	}
	for i, address := range proxies {
		p := c.newRole(t, fmt.Sprint("proxy-", i), "proxy", "--name", fmt.Sprintf("px-%s-%d", c.id, i), "--controller-url", "http://"+c.proxyLine.address(),
			"--cluster", c.name, "--http-port", portOf(address))
		p.start(t)
		c.proxy = p
		eventually(t, 15*time.Second, p.name+" is ready", func() error { return answers("http://"+address+"/ready", http.StatusOK) })
	}
	return c
}

func portOf(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

// insist connects until it gets a clear answer: after an unclear failure the
// same is asked again (G12).
func (c *cluster) insist(ctx context.Context, key string, wishes ...wish) (protocol.ConnectResponse, error) {
	for {
		resp, err := c.api.Connect(ctx, c.request(key, wishes...))
		var refused *protocol.APIError
		if err == nil || ctx.Err() != nil || errors.As(err, &refused) && refused.Kind.HTTPStatus() < http.StatusInternalServerError {
			return resp, err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// visitors connect to their keys again and again, and note which backends they
// are given.
type visitors struct {
	stop context.CancelFunc
	done sync.WaitGroup
	keys int

	mu       sync.Mutex
	backends map[string]map[string]int // by key: how often which backend was given
	longest  time.Duration             // that one had to wait
	refused  error
}

// visit starts a visitor for each key.
func (c *cluster) visit(t *testing.T, keys []string) *visitors {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	v := &visitors{stop: stop, keys: len(keys), backends: map[string]map[string]int{}}
	for _, key := range keys {
		v.done.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				resp, err := c.insist(ctx, key)
				if ctx.Err() == nil {
					v.note(key, resp.BackendID, time.Since(began), err)
				}
				time.Sleep(200 * time.Millisecond)
			}
		})
	}
	t.Cleanup(func() { stop(); v.done.Wait() })
	return v
}

func (v *visitors) note(key, id string, took time.Duration, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err != nil {
		v.refused = errors.Join(v.refused, fmt.Errorf("key %s: %w", key, err))
		return
	}
	if v.backends[key] == nil {
		v.backends[key] = map[string]int{}
	}
	v.backends[key][id]++
	v.longest = max(v.longest, took)
}

// served fails while a visitor has not been given anything.
func (v *visitors) served() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.backends) < v.keys {
		return fmt.Errorf("%d of %d keys were given", len(v.backends), v.keys)
	}
	return nil
}

// leave ends the visits and requires that each key led to one backend, always
// the same, and that all backends are different ones. It returns them by key.
func (v *visitors) leave(t *testing.T) map[string]string {
	t.Helper()
	v.stop()
	v.done.Wait()
	require.NoError(t, v.refused, "a visitor was refused")
	visits, one, holder := 0, map[string]string{}, map[string]string{}
	for key, given := range v.backends {
		require.Len(t, given, 1, "key %s led to several backends", key)
		for id, n := range given {
			require.Empty(t, holder[id], "backend %s was given for another key than %s too", id, key)
			one[key], holder[id], visits = id, key, visits+n
		}
	}
	t.Logf("%d visits to %d keys; the longest wait was %v", visits, len(one), v.longest.Round(time.Millisecond))
	return one
}

// keysRunning returns how many backends run for each key of the cluster.
func (c *cluster) keysRunning(t *testing.T) map[string]int {
	t.Helper()
	running := map[string]int{}
	for pid := range having(t, c.dir) {
		env, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ")) // it may have ended
		for entry := range strings.SplitSeq(string(env), "\x00") {
			if key, ok := strings.CutPrefix(entry, "SESSION_BACKEND_KEY="); ok {
				running[key]++
			}
		}
	}
	return running
}

// oneEach requires that no key has two backends on the machine (G1).
func (c *cluster) oneEach(t *testing.T) {
	t.Helper()
	for key, n := range c.keysRunning(t) {
		require.LessOrEqual(t, n, 1, "backends that run for key %s", key)
	}
}

// watch looks at the cluster for a while: nobody's WebSocket closes, and no key
// has two backends.
func (c *cluster) watch(t *testing.T, users []user, d time.Duration) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		c.oneEach(t)
		for _, u := range users {
			select {
			case <-u.ws.done:
				u.ws.lives(t) // says why it does not
			default:
			}
		}
	}
}

// followed is what was read of a status stream.
type followed struct {
	entries []protocol.StatusEntry
	cuts    int
	err     error
}

// follow reads a backend's status stream until the backend has terminated; when
// the stream is cut it goes on where it was.
func (c *cluster) follow(t *testing.T, id string) <-chan followed {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	result := make(chan followed, 1)
	go func() {
		defer cancel()
		var f followed
		last := backend.Status(0)
		for last != backend.Terminated && ctx.Err() == nil {
			err := c.api.StatusStream(ctx, id, last, func(e protocol.StatusEntry) error {
				f.entries, last = append(f.entries, e), e.Status
				return nil
			})
			if err != nil || last != backend.Terminated {
				f.cuts++
				time.Sleep(100 * time.Millisecond)
			}
		}
		f.err = ctx.Err()
		result <- f
	}()
	return result
}

// missedNothing ends a backend and requires that a stream that was followed all
// along has shown its whole history, each entry once (G3).
func (c *cluster) missedNothing(t *testing.T, id string, stream <-chan followed) {
	t.Helper()
	require.NoError(t, c.api.Terminate(t.Context(), id, backend.Soft))
	f := <-stream
	require.NoError(t, f.err, "the status stream of %s, so far %v", id, statuses(f.entries))
	seen := statuses(f.entries)
	require.Equal(t, c.history(t, id, 10*time.Second), f.entries)
	require.True(t, slices.IsSorted(seen), seen)
	require.Subset(t, seen, []backend.Status{backend.Scheduled, backend.Starting, backend.Ready, backend.Terminating, backend.Terminated})
	t.Logf("the status stream was cut %d times: %v", f.cuts, seen)
}
