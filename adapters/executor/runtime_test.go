package executor_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/clock"
	"plane/adapters/executor"
	"plane/system/port"
	"plane/system/porttest"
	"plane/system/protocol"
)

var (
	_ port.ContainerRuntime = (*executor.Runtime)(nil)
	_ port.Prober           = (*executor.Runtime)(nil)
)

var localhost = netip.MustParseAddr("127.0.0.1")

func logger(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

func open(t *testing.T, x *fakeExecutor, file string) *executor.Runtime {
	t.Helper()
	return openWith(t, executor.Config{Socket: x.path, File: file, LateAnswer: time.Minute, Patience: 20 * time.Second})
}

func openWith(t *testing.T, c executor.Config) *executor.Runtime {
	t.Helper()
	c.IP, c.Log, c.VouchEvery = localhost, logger(t), time.Millisecond
	r, err := executor.Open(c)
	require.NoError(t, err)
	t.Cleanup(r.Close)
	return r
}

func image(name string) json.RawMessage { return json.RawMessage(`{"image":"` + name + `"}`) }

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close() //nolint:errcheck // test
	return l.Addr().(*net.TCPAddr).Port
}

func get(ctx context.Context, address string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address, nil)
	if err != nil {
		return nil, err
	}
	return http.DefaultClient.Do(req)
}

// TestRuntime leaves out what the protocol cannot: a taken port is the
// executor's own matter, and memory that ran out is not told.
func TestRuntime(t *testing.T) {
	porttest.ContainerRuntime(t, func(t *testing.T) porttest.RuntimeUnderTest {
		x, file := newFake(t), filepath.Join(t.TempDir(), "executor.json")
		r := open(t, x, file)
		return porttest.RuntimeUnderTest{
			Runtime:   r,
			Clock:     clock.New(),
			Prefix:    "b-",
			Again:     func(t *testing.T) port.ContainerRuntime { return open(t, x, file) },
			Sibling:   open(t, x, filepath.Join(t.TempDir(), "other.json")),
			Serving:   image("serving"),
			Stubborn:  image("stubborn"),
			Exiting:   func(code int) json.RawMessage { return image("exit-" + strconv.Itoa(code)) },
			Malformed: json.RawMessage(`{"command":["x"]}`),
			Port:      freePort,
			AwaitServing: func(ctx context.Context, address string) error {
				resp, err := get(ctx, address)
				if err != nil {
					return err
				}
				return resp.Body.Close()
			},
			Environ: func(ctx context.Context, address string) (map[string]string, error) {
				resp, err := get(ctx, address)
				if err != nil {
					return nil, err
				}
				defer resp.Body.Close() //nolint:errcheck // test
				var env map[string]string
				return env, json.NewDecoder(resp.Body).Decode(&env)
			},
		}
	})
}

// bench is an executor, a runtime on it, and the spec of a backend.
type bench struct {
	*require.Assertions
	x    *fakeExecutor
	r    *executor.Runtime
	file string
	spec port.ContainerSpec
	ctx  context.Context
}

func newBench(t *testing.T) *bench {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	hard := time.Now().Add(time.Minute)
	b := &bench{
		Assertions: require.New(t), x: newFake(t), file: filepath.Join(t.TempDir(), "executor.json"), ctx: ctx,
		spec: port.ContainerSpec{
			BackendID: "alfa", FencingToken: 7, Key: protocol.Key{Name: "key"}, StaticToken: "s.t0ken",
			Deadlines:  protocol.Deadlines{RenewAt: hard, SoftTerminateAt: hard, HardTerminateAt: hard},
			Executable: json.RawMessage(`{"image":"serving","env":{"A":"s3cret"},"credentials":{"username":"me","password":"p4ss"}}`),
		},
	}
	b.r = open(t, b.x, b.file)
	return b
}

func (b *bench) inspect() port.Container {
	c, err := b.r.Inspect(b.ctx, "alfa")
	b.NoError(err)
	return c
}

// gap blocks until there is a new connection.
func (b *bench) gap() {
	for err := error(nil); err == nil || !strings.Contains(err.Error(), "ends may have been missed"); {
		_, err = b.r.Exits(b.ctx)
		b.NoError(b.ctx.Err())
	}
	b.heard()
}

// heard blocks until the agent has read all that the executor has said.
func (b *bench) heard() { b.NoError(b.r.Pull(b.ctx, b.spec, func(string) {})) }

// exits blocks until Exits tells of the backend.
func (b *bench) exits(backendID string) {
	for {
		id, err := b.r.Exits(b.ctx)
		b.NoError(b.ctx.Err())
		if err == nil && id == backendID {
			return
		}
	}
}
