package guard

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/port"
)

// bubble is a machine in a bubble.
type bubble struct {
	start time.Time
	boot  string
}

func (m bubble) SinceBoot() time.Duration { return time.Since(m.start) }
func (m bubble) BootID() string           { return m.boot }

// engine notes when it was asked to kill which backend, and obeys as it is told.
type engine struct {
	start time.Time
	obey  func(ctx context.Context, backendID string) error

	mu    sync.Mutex
	kills map[string][]time.Duration
}

func (e *engine) Kill(ctx context.Context, backendID string) error {
	e.mu.Lock()
	e.kills[backendID] = append(e.kills[backendID], time.Since(e.start))
	e.mu.Unlock()
	return e.obey(ctx, backendID)
}

func (e *engine) of(backendID string) []time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.kills[backendID])
}

func works(context.Context, string) error { return nil }

// inBubble runs a guard in virtual time, and says when it has ended.
func inBubble(t *testing.T, dir string, obey func(ctx context.Context, backendID string) error, test func(g *guard, e *engine, ended func() bool)) {
	synctest.Test(t, func(t *testing.T) {
		e := &engine{start: time.Now(), obey: obey, kills: map[string][]time.Duration{}}
		g, err := open(Config{Dir: dir, Machine: bubble{time.Now(), "this"}, Killer: e, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan struct{})
		go func() {
			defer close(over)
			err := g.run(ctx)
			if ctx.Err() == nil && err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		test(g, e, func() bool {
			synctest.Wait()
			select {
			case <-over:
				return true
			default:
				return false
			}
		})
		cancel()
		<-over
	})
}

const sec = time.Second

// pass lets virtual time pass.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestKillsAtTheDeadlineAndNotBefore(t *testing.T) {
	inBubble(t, t.TempDir(), works, func(g *guard, e *engine, _ func() bool) {
		require.NoError(t, g.set("later", "this", 20*sec))
		require.NoError(t, g.set("first", "this", 10*sec))
		pass(10*sec - 1)
		require.Empty(t, e.of("first"))
		pass(1)
		require.Equal(t, []time.Duration{10 * sec}, e.of("first"))
		require.Empty(t, e.of("later"))
		pass(10 * sec)
		require.Equal(t, 20*sec, e.of("later")[0])
	})
}

func TestALaterDeadlineReplacesTheEarlier(t *testing.T) {
	inBubble(t, t.TempDir(), works, func(g *guard, e *engine, _ func() bool) {
		require.NoError(t, g.set("b", "this", 10*sec))
		pass(9 * sec)
		require.NoError(t, g.set("b", "this", 30*sec))
		pass(21*sec - 1)
		require.Empty(t, e.of("b"))
		pass(1)
		require.Equal(t, []time.Duration{30 * sec}, e.of("b"))
	})
}

func TestAClearedBackendIsLeftAlone(t *testing.T) {
	inBubble(t, t.TempDir(), works, func(g *guard, e *engine, _ func() bool) {
		require.NoError(t, g.set("b", "this", 10*sec))
		require.NoError(t, g.clear("b"))
		require.NoError(t, g.clear("b"), "harmless twice")
		g.arrive()
		pass(time.Hour)
		require.Empty(t, e.of("b"))
	})
}

func TestKillIsRetriedUntilObeyed(t *testing.T) {
	failures := 3
	obey := func(ctx context.Context, backendID string) error {
		if backendID == "hangs" {
			<-ctx.Done()
			return ctx.Err()
		}
		if failures--; failures >= 0 {
			return errors.New("engine is down")
		}
		return nil
	}
	inBubble(t, t.TempDir(), obey, func(g *guard, e *engine, _ func() bool) {
		require.NoError(t, g.set("hangs", "this", sec))
		require.NoError(t, g.set("b", "this", 2*sec))
		pass(6 * sec)
		require.Equal(t, []time.Duration{2 * sec, 2500 * time.Millisecond, 3 * sec, 3500 * time.Millisecond}, e.of("b"),
			"one that hangs is in nobody's way")
		pass(7 * sec)
		require.Equal(t, []time.Duration{sec, 11500 * time.Millisecond}, e.of("hangs"), "an attempt has a time limit")
	})
}

func TestAStartThatComesLateIsKilledToo(t *testing.T) {
	dir := t.TempDir()
	gone := func(context.Context, string) error { return port.ErrNoContainer }
	inBubble(t, dir, gone, func(g *guard, e *engine, ended func() bool) {
		require.NoError(t, g.set("b", "this", 10*sec))
		pass(39 * sec)
		require.Equal(t, []time.Duration{10 * sec, 15 * sec, 20 * sec, 25 * sec, 30 * sec, 35 * sec}, e.of("b"))
		require.FileExists(t, filepath.Join(dir, "deadlines", "b"))
		pass(2 * sec)
		require.Len(t, e.of("b"), 7)
		require.NoFileExists(t, filepath.Join(dir, "deadlines", "b"), "it is over")
		require.False(t, ended())
		pass(10 * sec)
		require.True(t, ended(), "there is nothing left to guard, and nobody to guard for")
	})
}

func TestItStaysForItsAgent(t *testing.T) {
	inBubble(t, t.TempDir(), works, func(g *guard, _ *engine, ended func() bool) {
		g.arrive()
		pass(time.Hour)
		require.False(t, ended())
		g.leave()
		pass(9 * sec)
		require.False(t, ended())
		pass(sec)
		require.True(t, ended())
		require.ErrorIs(t, g.set("b", "this", time.Hour), errEnding)
	})
}

func TestTheTableOutlivesTheGuard(t *testing.T) {
	dir := t.TempDir()
	inBubble(t, dir, works, func(g *guard, _ *engine, _ func() bool) {
		require.NoError(t, g.set("b", "this", 10*sec))
		require.NoError(t, g.set("cleared", "this", 10*sec))
		require.NoError(t, g.clear("cleared"))
	})
	stale := filepath.Join(dir, "deadlines", "stale")
	require.NoError(t, os.WriteFile(stale, []byte(`{"boot":"another","deadline_ns":1}`), 0o600))
	half := filepath.Join(dir, "deadlines", ".b.123")
	require.NoError(t, os.WriteFile(half, []byte(`{"bo`), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "deadlines", "damaged"), []byte(`{"bo`), 0o600))
	inBubble(t, dir, works, func(_ *guard, e *engine, _ func() bool) {
		require.NoFileExists(t, stale, "its backend ended with the machine")
		require.NoFileExists(t, half)
		require.Len(t, e.of("damaged"), 1, "better ended than unguarded")
		pass(10 * sec)
		require.Equal(t, []time.Duration{10 * sec}, e.of("b"))
		require.Empty(t, e.of("cleared"))
		require.Empty(t, e.of("stale"))
	})
}

func TestSetRefuses(t *testing.T) {
	dir := t.TempDir()
	inBubble(t, dir, works, func(g *guard, _ *engine, _ func() bool) {
		require.ErrorContains(t, g.set("b", "another", sec), "another boot")
		require.ErrorContains(t, g.set("../b", "this", sec), "only a-z")
		require.NoError(t, os.RemoveAll(filepath.Join(dir, "deadlines")))
		require.ErrorIs(t, g.set("b", "this", sec), os.ErrNotExist, "what is not durable is not confirmed")
	})
}

// A request that was given up, and only then reaches the guard, has its effect
// before the next one, and its reply is not taken for the next one's.
func TestGivenUpRequestsStayInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		l := newLink(here)
		guard := json.NewDecoder(there)
		var first, second request
		soon, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go func() { _ = guard.Decode(&first) }()
		require.ErrorIs(t, l.exchange(soon, request{Op: opSet, Backend: "b"}), context.DeadlineExceeded)
		synctest.Wait()
		require.Equal(t, opSet, first.Op)

		done := make(chan error, 1)
		go func() { done <- l.exchange(t.Context(), request{Op: opClear, Backend: "b"}) }()
		synctest.Wait() // it is not sent yet
		out := json.NewEncoder(there)
		require.NoError(t, out.Encode(reply{Error: "to the first"}))
		require.NoError(t, guard.Decode(&second))
		require.Equal(t, opClear, second.Op)
		require.NoError(t, out.Encode(reply{}))
		require.NoError(t, <-done)
		require.NoError(t, there.Close())
		<-l.gone
	})
}

func TestContainerID(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for _, test := range []struct{ name, mountinfo, cgroup, want string }{
		{"a plain machine", "29 1 254:0 / / rw - ext4 /dev/vda rw\n", "0::/user.slice/session-1.scope\n", ""},
		{"a machine with containers", "300 29 0:50 / /var/lib/docker/containers/" + id + "/mounts/shm rw - tmpfs shm rw\n", "0::/init.scope\n", ""},
		{"by its mounts", "642 615 254:0 /var/lib/docker/containers/" + id + "/resolv.conf /etc/resolv.conf rw - ext4 /dev/vda rw\n", "0::/\n", id},
		{"by its mounts, in podman", "642 615 0:24 /containers/storage/overlay-containers/" + id + "/userdata/hosts /etc/hosts rw - tmpfs none rw\n", "0::/\n", id},
		{"by cgroup v1", "", "12:pids:/docker/" + id + "\n0::/\n", id},
		{"by systemd's cgroup", "", "0::/system.slice/docker-" + id + ".scope\n", id},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.want, containerID(test.mountinfo, test.cgroup))
		})
	}
}

// siblings is a container engine that notes what it starts.
type siblings struct {
	mounts  []string
	started []string
}

func (s *siblings) Mounts(context.Context, string) ([]string, error) { return s.mounts, nil }

func (s *siblings) StartSibling(_ context.Context, name, like string, cmd []string) error {
	s.started = append([]string{name, like}, cmd...)
	return nil
}

func TestSiblingLauncher(t *testing.T) {
	data, linked := t.TempDir(), filepath.Join(t.TempDir(), "linked")
	require.NoError(t, os.Symlink(data, linked))
	for _, test := range []struct {
		name    string
		mounts  []string
		missing string
	}{
		{"volumes at the paths", []string{"/etc/hosts", data + "/guard", "/run/sock"}, ""},
		{"volumes above", []string{data, "/run"}, ""},
		{"a volume by another name", []string{linked, "/run"}, ""},
		{"no volume", nil, "-v " + data + "/guard:" + data + "/guard -v /run/sock:/run/sock"},
		{"volumes beside", []string{data + "/guard2", data[:len(data)-1], "/run/sock"}, "-v " + data + "/guard:" + data + "/guard,"},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := &siblings{mounts: test.mounts}
			l := SiblingLauncher{
				Engine: e, Name: "guard", Self: "me", Command: []string{"/plane", Command, "x"},
				Shared: []string{data + "/guard", "/run/sock"},
			}
			err := l.Launch(t.Context())
			if test.missing != "" {
				require.ErrorContains(t, err, test.missing)
				require.Empty(t, e.started)
				return
			}
			require.NoError(t, err)
			require.Equal(t, []string{"guard", "me", "/plane", Command, "x"}, e.started)
		})
	}
}
