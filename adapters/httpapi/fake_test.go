package httpapi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/httpapi"
	"plane/system/backend"
	"plane/system/port"
	"plane/system/protocol"
)

// fakeAPI notes what it is asked for and answers with err when that is set.
type fakeAPI struct {
	err     error
	entries []protocol.StatusEntry // of the status stream
	endless bool                   // the status stream lasts
	mu      sync.Mutex
	calls   []string
}

func (f *fakeAPI) note(format string, args ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
	return f.err
}

func (f *fakeAPI) seen() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

func (f *fakeAPI) Health(context.Context) error { return f.note("health") }

func (f *fakeAPI) Connect(_ context.Context, req protocol.ConnectRequest) (protocol.ConnectResponse, error) {
	b, err := json.Marshal(req)
	return protocol.ConnectResponse{BackendID: "b1", Status: backend.Scheduled, URL: "http://localhost:9090/t/"}, errors.Join(err, f.note("connect %s", b))
}

func (f *fakeAPI) Terminate(_ context.Context, id string, kind backend.Kind) error {
	return f.note("terminate %s %s", id, kind)
}

func (f *fakeAPI) Revoke(_ context.Context, req protocol.RevokeRequest) error {
	return f.note("revoke %s %s", req.BackendID, req.User)
}

func (f *fakeAPI) Drain(_ context.Context, cluster, drone string) (protocol.DrainResult, error) {
	return protocol.DrainResult{Updated: true}, f.note("drain %s %s", cluster, drone)
}

func (f *fakeAPI) ClusterState(_ context.Context, cluster string) (protocol.ClusterState, error) {
	return protocol.ClusterState{Drones: []protocol.DroneState{}, Proxies: []protocol.NodeState{}}, f.note("state %s", cluster)
}

func (f *fakeAPI) Backends(_ context.Context, cluster string, req protocol.BackendsRequest) (protocol.BackendsPage, error) {
	namespace := "any"
	if req.Namespace != nil {
		namespace = strconv.Quote(*req.Namespace)
	}
	req.Namespace = nil
	return protocol.BackendsPage{Backends: []protocol.BackendEntry{}}, f.note("backends %s %+v of namespace %s", cluster, req, namespace)
}

func (f *fakeAPI) Status(_ context.Context, id string) (protocol.StatusEntry, error) {
	return entry(backend.Ready), f.note("status %s", id)
}

func (f *fakeAPI) StatusStream(ctx context.Context, id string, after backend.Status, send func(protocol.StatusEntry) error, idle func() error) error {
	if err := f.note("stream %s %d", id, after); err != nil {
		return err
	}
	if f.endless {
		if err := send(entry(backend.Scheduled)); err != nil {
			return err
		}
		<-ctx.Done()
		return context.Cause(ctx)
	}
	for _, e := range f.entries {
		if e.Status <= after {
			continue
		}
		if err := errors.Join(send(e), idle()); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeAPI) Metrics(_ context.Context, q port.MetricsQuery) (protocol.MetricsEntry, error) {
	return usage(1), f.note("metrics %s forwarded=%t as %s", q.BackendID, q.Forwarded, q.Caller["Authorization"])
}

func (f *fakeAPI) MetricsStream(_ context.Context, q port.MetricsQuery, send func(protocol.MetricsEntry) error, idle func() error) error {
	if err := f.note("metrics stream %s forwarded=%t as %s", q.BackendID, q.Forwarded, q.Caller["Authorization"]); err != nil {
		return err
	}
	return errors.Join(send(usage(1)), idle(), send(usage(2)))
}

func usage(memory uint64) protocol.MetricsEntry {
	return protocol.MetricsEntry{BackendMetrics: protocol.BackendMetrics{BackendID: "b1", MemUsed: memory}, AgeMillis: 5}
}

func (f *fakeAPI) ServeDrone(_ context.Context, cluster, pool string, _ port.Conn) error {
	return f.note("drone %s %q", cluster, pool)
}

func (f *fakeAPI) ServeProxy(_ context.Context, cluster string, _ port.Conn) error {
	return f.note("proxy %s", cluster)
}

func (f *fakeAPI) ServeDNS(context.Context, port.Conn) error { return f.note("dns") }

func entry(s backend.Status) protocol.StatusEntry {
	return protocol.StatusEntry{Status: s, Time: protocol.Millis{Time: time.UnixMilli(1000)}}
}

// noConn is a session that nobody uses.
type noConn struct{ port.Conn }

func (noConn) Close(string) {}

// surface is a handler on a fake, with what it logs.
type surface struct {
	http.Handler
	api *fakeAPI
	log *bytes.Buffer
}

func newSurface(t *testing.T, forwardAuth string) surface {
	return newSurfaceUntil(t.Context(), t, forwardAuth)
}

func newSurfaceUntil(ctx context.Context, t *testing.T, forwardAuth string) surface {
	s := surface{api: &fakeAPI{}, log: &bytes.Buffer{}}
	cfg := httpapi.Config{
		Version:  protocol.Version{Version: "0.5.5", GitHash: "abc"},
		Log:      slog.New(slog.NewTextHandler(s.log, nil)),
		Sessions: ctx,
		Accept:   func(http.ResponseWriter, *http.Request) (port.Conn, error) { return noConn{}, nil },
	}
	if forwardAuth != "" {
		u, err := url.Parse(forwardAuth)
		require.NoError(t, err)
		cfg.ForwardAuth = u
	}
	s.Handler = httpapi.New(cfg, s.api)
	return s
}

func (s surface) do(method, target, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://controller", strings.NewReader(body))
	u, err := url.ParseRequestURI(target)
	if err != nil {
		panic(err)
	}
	u.Host = "controller"
	r.URL, r.RequestURI = u, target
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w
}

func apiError(t *testing.T, w *httptest.ResponseRecorder) protocol.APIError {
	var e protocol.APIError
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &e), w.Body.String())
	return e
}
