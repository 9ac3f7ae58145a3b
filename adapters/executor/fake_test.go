package executor_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"plane/system/protocol"
)

// fakeExecutor is an executor on a real socket. Its backends are HTTP servers of
// the test's process, and do what their image says: serving, stubborn, exit-N.
// It behaves, but for the kinds of requests that a test has misbehave.
type fakeExecutor struct {
	t    *testing.T
	path string

	mu        sync.Mutex
	listener  net.Listener
	conns     map[*fakeConn]bool
	backends  map[string]*fakeBackend
	misbehave map[string]func(c *fakeConn, q request)
	asked     map[string]int // how often each kind came
	port      int            // for the next backend; 0: any
}

type fakeBackend struct {
	image  string
	server *httptest.Server
	port   int
}

type fakeConn struct {
	net.Conn
	x       *fakeExecutor
	writing sync.Mutex
}

// request is a line from the agent.
type request struct {
	ID   string
	Kind string
	Body json.RawMessage
}

func (q request) backend() string {
	var args []json.RawMessage
	var id string
	if json.Unmarshal(q.Body, &args) != nil || len(args) == 0 || json.Unmarshal(args[0], &id) != nil {
		return ""
	}
	return id
}

func newFake(t *testing.T) *fakeExecutor {
	x := &fakeExecutor{
		t: t, path: filepath.Join(t.TempDir(), "x.sock"), conns: map[*fakeConn]bool{}, backends: map[string]*fakeBackend{},
		misbehave: map[string]func(*fakeConn, request){}, asked: map[string]int{},
	}
	x.listen()
	t.Cleanup(func() {
		x.stop()
		x.crash()
	})
	return x
}

func (x *fakeExecutor) listen() {
	l, err := net.Listen("unix", x.path)
	require.NoError(x.t, err)
	x.mu.Lock()
	x.listener = l
	x.mu.Unlock()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c := &fakeConn{Conn: conn, x: x}
			x.mu.Lock()
			x.conns[c] = true
			x.mu.Unlock()
			go c.serve()
		}
	}()
}

// stop ends the listening and all connections; backends go on.
func (x *fakeExecutor) stop() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.listener.Close() //nolint:errcheck,gosec // stopped before
	for c := range x.conns {
		c.Close() //nolint:errcheck,gosec // closed before
	}
	clear(x.conns)
}

// crash loses all backends without a word.
func (x *fakeExecutor) crash() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for id, b := range x.backends {
		b.server.CloseClientConnections()
		b.server.Close()
		delete(x.backends, id)
	}
}

// lose loses one.
func (x *fakeExecutor) lose(backendID string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.backends[backendID].server.Close()
	delete(x.backends, backendID)
}

func (x *fakeExecutor) runs(backendID string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.backends[backendID] != nil
}

func (x *fakeExecutor) count(kind string) int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.asked[kind]
}

// on has the next requests of the kind misbehave; nil ends that.
func (x *fakeExecutor) on(kind string, do func(c *fakeConn, q request)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.misbehave[kind] = do
}

func (c *fakeConn) serve() {
	in := bufio.NewReader(c)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var wrapped struct {
			ID      string                     `json:"id"`
			Message map[string]json.RawMessage `json:"message"`
		}
		if err := json.Unmarshal(line, &wrapped); err != nil || len(wrapped.Message) != 1 {
			c.x.t.Errorf("the agent sent %q", line)
			return
		}
		for kind, body := range wrapped.Message {
			c.x.mu.Lock()
			do := c.x.misbehave[kind]
			c.x.asked[kind]++
			c.x.mu.Unlock()
			if do == nil {
				do = (*fakeConn).behave
			}
			do(c, request{ID: wrapped.ID, Kind: kind, Body: body})
		}
	}
}

func (c *fakeConn) say(line string) {
	c.writing.Lock()
	defer c.writing.Unlock()
	fmt.Fprintln(c, line) //nolint:errcheck // the agent may be gone
}

func (c *fakeConn) answer(q request, result any) {
	body, err := json.Marshal(map[string]any{"id": q.ID, "message": map[string]any{q.Kind + "Result": result}})
	if err != nil {
		panic(err)
	}
	c.say(string(body))
}

// event tells all who are connected.
func (x *fakeExecutor) event(kind string, body any) {
	line, err := json.Marshal(map[string]any{"id": nil, "message": map[string]any{kind: body}})
	if err != nil {
		panic(err)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for c := range x.conns {
		c.say(string(line))
	}
}

func (c *fakeConn) behave(q request) {
	switch q.Kind {
	case "Prepare":
		c.answer(q, map[string]any{"Ok": nil})
	case "Spawn":
		b := c.x.spawn(q)
		c.answer(q, map[string]any{"Ok": map[string]any{"container_id": "c-" + q.ID, "port": b.port}})
		if code, exits := strings.CutPrefix(b.image, "exit-"); exits {
			n, err := strconv.Atoi(code)
			if err != nil {
				panic(err)
			}
			c.x.end(q.backend(), &n)
		}
	case "Terminate":
		c.terminate(q)
	case "WaitForBackend":
		if c.x.runs(q.backend()) {
			c.answer(q, map[string]any{"Ok": nil})
		} else {
			c.answer(q, map[string]any{"Err": map[string]any{"Other": "no such backend"}})
		}
	}
}

func (x *fakeExecutor) spawn(q request) *fakeBackend {
	var args []json.RawMessage
	var executable struct {
		Image string            `json:"image"`
		Env   map[string]string `json:"env"`
	}
	var key *protocol.AcquiredKey
	var static *string
	for i, into := range []any{nil, &executable, &key, &static} {
		err := json.Unmarshal(q.Body, &args)
		if err == nil && into != nil {
			err = json.Unmarshal(args[i], into)
		}
		if err != nil {
			x.t.Errorf("spawn request %s: %v", q.Body, err)
		}
	}
	session := protocol.Session{BackendID: q.backend(), Port: protocol.ContainerPort}
	if key != nil {
		session.KeyName, session.FencingToken = key.Key.Name, key.Token
	}
	if static != nil {
		session.StaticToken = *static
	}
	env := map[string]string{}
	for _, e := range session.Environ(executable.Env) {
		k, v, _ := strings.Cut(e, "=")
		env[k] = v
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(env) //nolint:errcheck,gosec // test
	}))
	b := &fakeBackend{image: executable.Image, server: server, port: server.Listener.Addr().(*net.TCPAddr).Port}
	x.mu.Lock()
	if x.port != 0 {
		b.port = x.port
	}
	if x.backends[q.backend()] != nil {
		x.t.Errorf("%s is spawned a second time while the first one runs", q.backend())
	}
	x.backends[q.backend()] = b
	x.mu.Unlock()
	x.event("MetricsMessage", protocol.BackendMetrics{BackendID: q.backend(), MemUsed: 1 << 20, MemTotal: 1 << 30, CPUUsed: 5, SysCPU: 100})
	return b
}

func (c *fakeConn) terminate(q request) {
	var args []json.RawMessage
	var hard bool
	if json.Unmarshal(q.Body, &args) != nil || len(args) != 2 || json.Unmarshal(args[1], &hard) != nil {
		c.x.t.Errorf("terminate request %s", q.Body)
	}
	c.x.mu.Lock()
	b := c.x.backends[q.backend()]
	c.x.mu.Unlock()
	c.answer(q, map[string]any{"Ok": b != nil})
	if b == nil || !hard && b.image == "stubborn" {
		return
	}
	code := 0
	if hard {
		code = 137
	}
	c.x.end(q.backend(), &code)
}

// end ends a backend, and tells it twice.
func (x *fakeExecutor) end(backendID string, code *int) {
	x.mu.Lock()
	b := x.backends[backendID]
	delete(x.backends, backendID)
	x.mu.Unlock()
	if b == nil {
		return
	}
	b.server.CloseClientConnections()
	b.server.Close()
	for range 2 {
		x.event("TerminateEvent", map[string]any{"backend_id": backendID, "exit_code": code})
	}
}
