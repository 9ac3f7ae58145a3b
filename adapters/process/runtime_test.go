package process_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/clock"
	"plane/adapters/internal/proctest"
	"plane/adapters/process"
	"plane/system/port"
	"plane/system/porttest"
	"plane/system/protocol"
)

var _ port.ContainerRuntime = (*process.Runtime)(nil)

// TestMain makes the test program the supervisor and the backends too.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 {
		switch os.Args[1] {
		case process.SuperviseCommand:
			os.Exit(process.Supervise(os.Args[2]))
		case "backend":
			os.Exit(backend(os.Args[2:]))
		}
	}
	os.Exit(m.Run())
}

// backend is what the tests run.
func backend(args []string) int {
	switch args[0] {
	case "exit":
		code, err := strconv.Atoi(args[1])
		if err != nil {
			return 99
		}
		return code
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		return serve(nil)
	case "serving":
		stop := make(chan os.Signal, 1)
		signal.Notify(stop, syscall.SIGTERM)
		return serve(stop)
	case "parent":
		return family(args[1])
	case "chatty":
		for range 5 << 20 / 64 {
			fmt.Fprintln(os.Stdout, strings.Repeat("x", 63))
		}
		return 0
	}
	return 99
}

func serve(stop <-chan os.Signal) int {
	l, err := net.Listen("tcp", "127.0.0.1:"+os.Getenv("PORT"))
	if err != nil {
		return 98
	}
	go http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { //nolint:errcheck,gosec // test
		env := map[string]string{}
		for _, e := range os.Environ() {
			k, v, _ := strings.Cut(e, "=")
			env[k] = v
		}
		json.NewEncoder(w).Encode(env) //nolint:errcheck // test
	}))
	<-stop
	return 0
}

// family leaves children behind, one of them a daemon in a session of its own,
// which hold the write end of a named pipe open for as long as they live; then
// it ends with "quit", or waits.
func family(then string) int {
	for _, script := range []string{
		`exec 9>"$FIFO"; while :; do sleep 1000; done`,
		`exec 9>"$FIFO"; setsid sh -c 'while :; do sleep 1000; done' &`,
	} {
		cmd := exec.Command("sh", "-c", script)
		if cmd.Start() != nil {
			return 97
		}
	}
	if then == "quit" {
		// Once both have opened it, a reader is told so by one byte.
		f, err := os.OpenFile(os.Getenv("FIFO"), os.O_WRONLY, 0)
		if err != nil {
			return 96
		}
		fmt.Fprint(f, "x")
		return 3
	}
	return serve(nil)
}

type world struct {
	dir string
	ip  netip.Addr
}

func newWorld(t *testing.T) *world {
	w := &world{dir: t.TempDir(), ip: netip.MustParseAddr("127.0.0.1")}
	t.Cleanup(func() { endAll(t, w.dir) })
	return w
}

// endAll ends whatever a test has left.
func endAll(t *testing.T, dir string) {
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range left {
		require.NoError(t, process.Killer{Dir: dir}.Kill(context.Background(), e.Name()))
	}
}

func (w *world) open(t *testing.T) *process.Runtime {
	t.Helper()
	r, err := process.Open(process.Config{Dir: w.dir, IP: w.ip, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	require.NoError(t, err)
	t.Cleanup(r.Close)
	return r
}

func executable(t *testing.T, args ...string) json.RawMessage {
	t.Helper()
	self, err := os.Executable()
	require.NoError(t, err)
	b, err := json.Marshal(map[string]any{"command": append([]string{self, "backend"}, args...)})
	require.NoError(t, err)
	return b
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	require.NoError(t, err)
	defer l.Close() //nolint:errcheck // test
	return l.Addr().(*net.TCPAddr).Port
}

func spec(t *testing.T, id string, e json.RawMessage) port.ContainerSpec {
	return port.ContainerSpec{BackendID: id, Executable: e, Key: protocol.Key{Name: "key"}, FencingToken: 7, Port: freePort(t)}
}

func awaitServing(ctx context.Context, address string) error {
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodHead, "http://"+address, nil)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			return resp.Body.Close()
		}
		if err := clock.Sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

func environ(ctx context.Context, address string) (map[string]string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // test
	var env map[string]string
	return env, json.NewDecoder(resp.Body).Decode(&env)
}

func TestRuntime(t *testing.T) {
	porttest.ContainerRuntime(t, func(t *testing.T) porttest.RuntimeUnderTest {
		w, other := newWorld(t), newWorld(t)
		return porttest.RuntimeUnderTest{
			Runtime:   w.open(t),
			Clock:     clock.New(),
			Again:     func(t *testing.T) port.ContainerRuntime { return w.open(t) },
			Sibling:   other.open(t),
			Serving:   executable(t, "serving"),
			Stubborn:  executable(t, "stubborn"),
			Exiting:   func(code int) json.RawMessage { return executable(t, "exit", strconv.Itoa(code)) },
			Malformed: json.RawMessage(`{"image":"demo"}`),
			Port:      freePort,
			TakenPort: func(t *testing.T) int {
				l, err := net.Listen("tcp", "127.0.0.1:0")
				require.NoError(t, err)
				t.Cleanup(func() { l.Close() }) //nolint:errcheck // test
				return l.Addr().(*net.TCPAddr).Port
			},
			AwaitServing: awaitServing,
			Environ:      environ,
		}
	})
}

func TestUnstartableCommandsAreRefused(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	require.NoError(t, os.WriteFile(plain, []byte("no program"), 0o600))
	for name, command := range map[string]string{
		"no such file": filepath.Join(dir, "none"), "not in the PATH": "no-such-program-anywhere",
		"not executable": plain, "a directory": dir,
	} {
		t.Run(name, func(t *testing.T) {
			r := newWorld(t).open(t)
			e, err := json.Marshal(map[string]any{"command": []string{command, "secret"}})
			require.NoError(t, err)
			_, err = r.Start(t.Context(), spec(t, "b", e))
			require.ErrorIs(t, err, port.ErrBadExecutable)
			require.NotContains(t, err.Error(), "secret")
			c, err := r.Inspect(t.Context(), "b")
			require.NoError(t, err)
			require.False(t, c.Started)
		})
	}
}

func TestLookingDisturbsNoStart(t *testing.T) {
	w := newWorld(t)
	r := w.open(t)
	ctx, cancel := context.WithCancel(t.Context())
	looking := make(chan error)
	go func() {
		for ctx.Err() == nil {
			if _, err := r.List(ctx); err != nil && ctx.Err() == nil {
				looking <- err
				return
			}
		}
		looking <- nil
	}()
	for n := range 10 {
		c, err := r.Start(t.Context(), spec(t, fmt.Sprintf("b%d", n), executable(t, "serving")))
		require.NoError(t, err)
		require.True(t, c.Running)
	}
	cancel()
	require.NoError(t, <-looking)
}

func TestExitCodeIsLearnedByTheNextAgent(t *testing.T) {
	w := newWorld(t)
	first := w.open(t)
	c, err := first.Start(t.Context(), spec(t, "b", executable(t, "serving")))
	require.NoError(t, err)
	require.NoError(t, awaitServing(t.Context(), c.Address))
	first.Close()

	next := w.open(t)
	require.NoError(t, next.Stop(t.Context(), "b"))
	id, err := next.Exits(t.Context())
	require.NoError(t, err)
	require.Equal(t, "b", id)
	c, err = next.Inspect(t.Context(), "b")
	require.NoError(t, err)
	require.False(t, c.Running)
	require.Equal(t, 0, *c.ExitCode)
}

// fifo makes a named pipe and returns it opened for reading; the end of all
// processes that have it open for writing is its end of file.
func fifo(t *testing.T) (path string, open func() *bufio.Reader) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "fifo")
	require.NoError(t, syscall.Mkfifo(path, 0o600))
	return path, func() *bufio.Reader {
		f, err := os.Open(path) // blocks until one has it open for writing
		require.NoError(t, err)
		t.Cleanup(func() { f.Close() }) //nolint:errcheck // test
		return bufio.NewReader(f)
	}
}

func withFIFO(t *testing.T, e json.RawMessage, path string) json.RawMessage {
	t.Helper()
	var m map[string]any
	require.NoError(t, json.Unmarshal(e, &m))
	m["env"] = map[string]string{"FIFO": path}
	b, err := json.Marshal(m)
	require.NoError(t, err)
	return b
}

func TestNothingOfABackendOutlivesIt(t *testing.T) {
	for _, test := range []struct {
		name, then string
		end        func(t *testing.T, r *process.Runtime, dir string)
		code       *int
	}{
		{"it ends by itself", "quit", func(*testing.T, *process.Runtime, string) {}, new(3)},
		{"it is killed", "wait", func(t *testing.T, r *process.Runtime, _ string) {
			require.NoError(t, r.Kill(t.Context(), "b"))
		}, new(137)},
		{"its supervisor is killed", "wait", func(t *testing.T, r *process.Runtime, dir string) {
			require.NoError(t, syscall.Kill(supervisorOf(t, dir), syscall.SIGKILL))
		}, nil},
		{"its supervisor is stopped", "wait", func(t *testing.T, r *process.Runtime, dir string) {
			proctest.Freeze(t, supervisorOf(t, dir))
			require.NoError(t, r.Kill(t.Context(), "b"))
		}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			r := w.open(t)
			path, open := fifo(t)
			_, err := r.Start(t.Context(), spec(t, "b", withFIFO(t, executable(t, "parent", test.then), path)))
			require.NoError(t, err)
			alive := open()
			test.end(t, r, w.dir)
			id, err := r.Exits(t.Context())
			require.NoError(t, err)
			require.Equal(t, "b", id)
			c, err := r.Inspect(t.Context(), "b")
			require.NoError(t, err)
			require.False(t, c.Running)
			require.Equal(t, test.code, c.ExitCode)
			_, err = io.Copy(io.Discard, alive)
			require.NoError(t, err, "blocks until the last of the family is gone")
		})
	}
}

func supervisorOf(t *testing.T, dir string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "b", "started.json"))
	require.NoError(t, err)
	var p struct{ PID int }
	require.NoError(t, json.Unmarshal(b, &p))
	return p.PID
}

func TestOutputIsBoundedAndPrivate(t *testing.T) {
	w := newWorld(t)
	r := w.open(t)
	_, err := r.Start(t.Context(), spec(t, "b", executable(t, "chatty")))
	require.NoError(t, err)
	_, err = r.Exits(t.Context())
	require.NoError(t, err)
	var size int64
	require.NoError(t, filepath.WalkDir(filepath.Join(w.dir, "b"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && !d.IsDir() {
			size += info.Size()
		}
		require.Zero(t, info.Mode()&0o077, path)
		return err
	}))
	require.Greater(t, size, int64(1<<20))
	require.Less(t, size, int64(3<<20))
	c, err := r.Inspect(t.Context(), "b")
	require.NoError(t, err)
	require.Equal(t, 0, *c.ExitCode)
}

func TestEarlierBootsAreOver(t *testing.T) {
	w := newWorld(t)
	r := w.open(t)
	_, err := r.Start(t.Context(), spec(t, "b", executable(t, "serving")))
	require.NoError(t, err)
	path := filepath.Join(w.dir, "b", "started.json")
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, r.Kill(t.Context(), "b"))
	require.NoError(t, os.Remove(filepath.Join(w.dir, "b", "exit.json")))
	// The number may be anybody's in another boot.
	var p map[string]any
	require.NoError(t, json.Unmarshal(b, &p))
	p["PID"], p["Boot"] = os.Getpid(), "another"
	b, err = json.Marshal(p)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, b, 0o600))

	c, err := w.open(t).Inspect(t.Context(), "b")
	require.NoError(t, err)
	require.True(t, c.Started)
	require.False(t, c.Running)
	require.Nil(t, c.ExitCode)
	require.NoError(t, r.Kill(t.Context(), "b"))
}
