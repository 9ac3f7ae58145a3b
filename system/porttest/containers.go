package porttest

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/port"
	"plane/system/protocol"
)

// RuntimeUnderTest is a ContainerRuntime without containers, and what the suite
// needs to use it.
type RuntimeUnderTest struct {
	Runtime port.ContainerRuntime
	Clock   port.Clock
	// Prefix begins the names of all backends, so that tests which share a
	// machine do not meet.
	Prefix string
	// Again returns the same drone's runtime as a restarted agent would open
	// it, while the first one may still be open.
	Again func(t *testing.T) port.ContainerRuntime
	// Sibling is the runtime of another drone on the same machine; nil where
	// there cannot be one.
	Sibling port.ContainerRuntime

	// Serving is an executable that answers HTTP and ends with 0 on SIGTERM.
	Serving json.RawMessage
	// Stubborn is the same and ignores SIGTERM.
	Stubborn json.RawMessage
	// Exiting ends by itself at once, with a code.
	Exiting func(code int) json.RawMessage
	// Hungry takes memory until the engine kills it; nil where there is no
	// limit.
	Hungry json.RawMessage
	// Malformed can never be started.
	Malformed json.RawMessage

	// Port returns a port that nobody has.
	Port func(t *testing.T) int
	// TakenPort returns a port that another program has; nil where there is
	// none.
	TakenPort func(t *testing.T) int
	// AwaitServing blocks until the address answers HTTP.
	AwaitServing func(ctx context.Context, address string) error
	// Environ asks what serves at the address for its environment; nil where
	// nothing really runs.
	Environ func(ctx context.Context, address string) (map[string]string, error)
}

// patience bounds what a real engine may take for anything in the suite.
const patience = time.Minute

// ContainerRuntime holds a runtime to the words of its port. open is called for
// each test.
func ContainerRuntime(t *testing.T, open func(t *testing.T) RuntimeUnderTest) {
	for _, test := range []struct {
		name string
		run  func(*runtimeTest)
	}{
		{"a malformed executable is refused", (*runtimeTest).refusesMalformed},
		{"a started container serves where it says", (*runtimeTest).serves},
		{"the environment is what the protocol says", (*runtimeTest).tellsEnvironment},
		{"starting twice gives the same container", (*runtimeTest).startsOnce},
		{"many starts at once give one container", (*runtimeTest).startsOnceInParallel},
		{"an ended container is not started again", (*runtimeTest).doesNotRevive},
		{"a taken port is told", (*runtimeTest).tellsTakenPort},
		{"pulling twice is harmless", (*runtimeTest).pullsTwice},
		{"stop ends a container in good order", (*runtimeTest).stops},
		{"stop neither waits nor kills", (*runtimeTest).stopsWithoutWaiting},
		{"kill blocks until the end", (*runtimeTest).kills},
		{"an exit code is kept", (*runtimeTest).keepsExitCode},
		{"running out of memory is told", (*runtimeTest).tellsOutOfMemory},
		{"what is gone is told by every method", (*runtimeTest).tellsGone},
		{"remove kills what runs", (*runtimeTest).removesRunning},
		{"list is whole and in order", (*runtimeTest).lists},
		{"containers outlive the agent", (*runtimeTest).outlivesAgent},
		{"drones do not see each other's containers", (*runtimeTest).keepsApart},
		{"exits are told", (*runtimeTest).tellsExits},
		{"exits obeys its context", (*runtimeTest).exitsObeysContext},
		{"stats measures what runs", (*runtimeTest).measures},
		{"prune keeps what is used", (*runtimeTest).prunes},
		{"an ended context ends every call", (*runtimeTest).obeysContext},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			test.run(&runtimeTest{T: t, Assertions: require.New(t), RuntimeUnderTest: open(t), ctx: ctx})
		})
	}
}

type runtimeTest struct {
	*testing.T
	*require.Assertions
	RuntimeUnderTest
	ctx context.Context
}

func (t *runtimeTest) spec(id string, executable json.RawMessage) port.ContainerSpec {
	backendID := t.Prefix + id
	renew := t.Clock.Now().Add(30 * time.Second)
	return port.ContainerSpec{
		BackendID: backendID, Executable: executable, FencingToken: 1700000000042,
		Deadlines: protocol.Deadlines{RenewAt: renew, SoftTerminateAt: renew.Add(10 * time.Second), HardTerminateAt: renew.Add(20 * time.Second)},
		Key:       protocol.Key{Name: "key of " + backendID}, Port: t.Port(t.T),
	}
}

func (t *runtimeTest) start(id string, executable json.RawMessage) port.Container {
	t.Helper()
	spec := t.spec(id, executable)
	t.NoError(t.Runtime.Validate(spec))
	t.NoError(t.Runtime.Pull(t.ctx, spec, func(string) {}))
	c, err := t.Runtime.Start(t.ctx, spec)
	t.NoError(err)
	t.Equal(spec.BackendID, c.BackendID)
	return c
}

// serving starts a container and waits until it answers, and so until it has
// its signal handlers.
func (t *runtimeTest) serving(id string, executable json.RawMessage) port.Container {
	t.Helper()
	c := t.start(id, executable)
	t.NoError(t.AwaitServing(t.ctx, c.Address))
	return c
}

// ended blocks until the container has ended.
func (t *runtimeTest) ended(id string) port.Container {
	t.Helper()
	for {
		c, err := t.Runtime.Inspect(t.ctx, t.Prefix+id)
		t.NoError(err)
		if c.Started && !c.Running {
			return c
		}
		t.NoError(t.Clock.Sleep(t.ctx, 5*time.Millisecond))
	}
}

func (t *runtimeTest) refusesMalformed() {
	spec := t.spec("malformed", t.Malformed)
	t.ErrorIs(t.Runtime.Validate(spec), port.ErrBadExecutable)
	t.ErrorIs(t.Runtime.Pull(t.ctx, spec, func(string) {}), port.ErrBadExecutable)
	_, err := t.Runtime.Start(t.ctx, spec)
	t.ErrorIs(err, port.ErrBadExecutable)
	list, err := t.Runtime.List(t.ctx)
	t.NoError(err)
	t.Empty(list)
}

func (t *runtimeTest) serves() {
	spec := t.spec("serves", t.Serving)
	t.NoError(t.Runtime.Pull(t.ctx, spec, func(string) {}))
	c, err := t.Runtime.Start(t.ctx, spec)
	t.NoError(err)
	t.True(c.Running)
	t.True(c.Started)
	t.Nil(c.ExitCode)
	t.False(c.OOM)
	t.NotEmpty(c.ID)
	t.NoError(t.AwaitServing(t.ctx, c.Address))
	seen, err := t.Runtime.Inspect(t.ctx, t.Prefix+"serves")
	t.NoError(err)
	t.Equal(c, seen)
}

func (t *runtimeTest) tellsEnvironment() {
	if t.Environ == nil {
		t.Skip("nothing really runs here")
	}
	spec := t.spec("environment", withEnv(t.T, t.Serving, map[string]string{
		"GREETING": "hello there", "PORT": "1", "SESSION_BACKEND_ID": "mine", "SESSION_BACKEND_KEY": "mine", "SESSION_BACKEND_STATIC_TOKEN": "mine",
	}))
	spec.StaticToken = "s.token"
	c, err := t.Runtime.Start(t.ctx, spec)
	t.NoError(err)
	t.NoError(t.AwaitServing(t.ctx, c.Address))
	env, err := t.Environ(t.ctx, c.Address)
	t.NoError(err)
	t.Equal("hello there", env["GREETING"])
	t.NotEqual("1", env["PORT"])
	t.Equal(t.Prefix+"environment", env["SESSION_BACKEND_ID"])
	t.Equal("key of "+t.Prefix+"environment", env["SESSION_BACKEND_KEY"])
	t.Equal("1700000000042", env["SESSION_BACKEND_FENCING_TOKEN"])
	t.Equal("s.token", env["SESSION_BACKEND_STATIC_TOKEN"])
}

// withEnv adds to the environment that an executable asks for.
func withEnv(t *testing.T, executable json.RawMessage, env map[string]string) json.RawMessage {
	t.Helper()
	var e map[string]any
	require.NoError(t, json.Unmarshal(executable, &e))
	all, _ := e["env"].(map[string]any)
	if all == nil {
		all = map[string]any{}
	}
	for k, v := range env {
		all[k] = v
	}
	e["env"] = all
	out, err := json.Marshal(e)
	require.NoError(t, err)
	return out
}

func (t *runtimeTest) startsOnce() {
	spec := t.spec("once", t.Serving)
	first, err := t.Runtime.Start(t.ctx, spec)
	t.NoError(err)
	second, err := t.Runtime.Start(t.ctx, spec)
	t.NoError(err)
	t.Equal(first, second)
	spec.Port = t.Port(t.T) // a retry that has forgotten the first one's port
	third, err := t.Runtime.Start(t.ctx, spec)
	t.NoError(err)
	t.Equal(first, third)
}

func (t *runtimeTest) startsOnceInParallel() {
	spec := t.spec("parallel", t.Serving)
	type result struct {
		c   port.Container
		err error
	}
	results := make(chan result)
	const calls = 4
	for range calls {
		go func() {
			c, err := t.Runtime.Start(t.ctx, spec)
			results <- result{c, err}
		}()
	}
	var all [calls]result // wait for all of them, or one would outlive the test
	for i := range all {
		all[i] = <-results
	}
	for _, r := range all {
		t.NoError(r.err)
		t.Equal(all[0].c.ID, r.c.ID)
	}
	list, err := t.Runtime.List(t.ctx)
	t.NoError(err)
	t.Len(list, 1)
}

func (t *runtimeTest) doesNotRevive() {
	spec := t.spec("revive", t.Exiting(5))
	first, err := t.Runtime.Start(t.ctx, spec)
	t.NoError(err)
	gone := t.ended("revive")
	again, err := t.Runtime.Start(t.ctx, spec)
	t.NoError(err)
	t.Equal(first.ID, again.ID)
	t.Equal(gone, again)
	t.False(again.Running)
}

func (t *runtimeTest) tellsTakenPort() {
	if t.TakenPort == nil {
		t.Skip("no other programs here")
	}
	spec := t.spec("taken", t.Serving)
	spec.Port = t.TakenPort(t.T)
	_, err := t.Runtime.Start(t.ctx, spec)
	t.ErrorIs(err, port.ErrPortTaken)
	spec.Port = t.Port(t.T)
	c, err := t.Runtime.Start(t.ctx, spec)
	t.NoError(err)
	t.True(strings.HasSuffix(c.Address, ":"+strconv.Itoa(spec.Port)), c.Address)
	t.NoError(t.AwaitServing(t.ctx, c.Address))
}

func (t *runtimeTest) pullsTwice() {
	spec := t.spec("pull", t.Serving)
	for range 2 {
		t.NoError(t.Runtime.Pull(t.ctx, spec, func(string) {}))
	}
}
