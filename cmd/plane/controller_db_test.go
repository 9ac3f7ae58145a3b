package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"plane/adapters/apiclient"
	"plane/adapters/postgres"
	"plane/adapters/postgres/pgtest"
	"plane/adapters/websocket"
	"plane/system/port"
	"plane/system/protocol"
)

// diary gathers what is logged, and tells who waits for a line.
type diary struct {
	slog.Handler
	mu      sync.Mutex
	text    bytes.Buffer
	written chan struct{} // closed and made anew with each line
}

func newDiary() *diary {
	j := &diary{written: make(chan struct{})}
	j.Handler = slog.NewTextHandler(j, nil)
	return j
}

func (j *diary) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	close(j.written)
	j.written = make(chan struct{})
	return j.text.Write(p)
}

// await blocks until something was logged.
func (j *diary) await(t *testing.T, what string) {
	t.Helper()
	for {
		j.mu.Lock()
		found, more := strings.Contains(j.text.String(), what), j.written
		j.mu.Unlock()
		if found {
			return
		}
		select {
		case <-more:
		case <-t.Context().Done():
			t.Fatalf("never logged: %s", what)
		case <-time.After(30 * time.Second):
			t.Fatalf("not logged in time: %s\n%s", what, j.text.String())
		}
	}
}

// runningTest is a controller that runs in this process.
type runningTest struct {
	*runningController
	log  *diary
	stop func() error // as a signal does; what run returned
	base string
}

func startController(t *testing.T, s controllerSettings) *runningTest {
	t.Helper()
	r := &runningTest{log: newDiary()}
	s.Bind, s.BestOf, s.CleanupBatch = "127.0.0.1:0", 2, defaultCleanupBatch
	ctx, cancel := context.WithCancelCause(context.Background())
	var err error
	r.runningController, err = prepareController(ctx, s, slog.New(r.log))
	require.NoError(t, err)
	r.base = "http://" + r.listener.Addr().String()
	ran := make(chan error, 1)
	go func() { ran <- r.run(ctx) }()
	r.stop = sync.OnceValue(func() error {
		cancel(errStopped)
		return <-ran
	})
	t.Cleanup(func() { _ = r.stop() })
	return r
}

func (r *runningTest) status(t *testing.T, path string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.base+path, nil)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close() //nolint:errcheck // only read from
	return resp.StatusCode
}

// relay passes connections on to another address.
func relay(t *testing.T, from, to string) {
	t.Helper()
	l, err := net.Listen("tcp", from)
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
				go func() {
					_, _ = io.Copy(pair[0], pair[1])
					_ = pair[0].Close()
					_ = pair[1].Close()
				}()
			}
		}
	}()
}

func TestAControllerWaitsForItsDatabase(t *testing.T) {
	database, err := url.Parse(pgtest.Database(t))
	require.NoError(t, err)
	there := database.Host
	database.Host = net.JoinHostPort("127.0.0.1", strconv.Itoa(int(freePort(t))))
	c := startController(t, controllerSettings{Name: "co-waits", DB: databaseSettings{URL: database.String()}})
	c.log.await(t, "cannot use the database yet; trying again")
	require.Equal(t, http.StatusInternalServerError, c.status(t, "/pub/health"))
	require.Equal(t, http.StatusServiceUnavailable, c.status(t, "/ctrl/status"))

	relay(t, database.Host, there)
	c.log.await(t, "controller serves")
	require.Equal(t, http.StatusOK, c.status(t, "/pub/health"))
	require.NotContains(t, c.log.text.String(), "everything is kept in memory")
	require.ErrorIs(t, c.stop(), errStopped)
	require.NotContains(t, c.log.text.String(), "level=ERROR")

	database.Host = there
	conn, err := pgx.Connect(t.Context(), database.String())
	require.NoError(t, err)
	defer conn.Close(t.Context()) //nolint:errcheck // test over
	var left int
	require.NoError(t, conn.QueryRow(t.Context(), "select count(*) from pg_stat_activity where application_name like '%co-waits%' and datname = current_database() and state <> 'idle'").Scan(&left))
	require.Zero(t, left)
}

func TestAControllerThatWaitsCanBeStopped(t *testing.T) {
	c := startController(t, controllerSettings{DB: databaseSettings{URL: "postgres://127.0.0.1:" + strconv.Itoa(int(freePort(t))) + "/plane"}})
	c.log.await(t, "cannot use the database yet; trying again")
	require.ErrorIs(t, c.stop(), errStopped)
}

func TestAControllerDoesNotWaitForWhatWaitingDoesNotChange(t *testing.T) {
	database, err := url.Parse(pgtest.Database(t))
	require.NoError(t, err)
	database.Path += "_not"
	var out, errs bytes.Buffer
	require.Equal(t, exitFailed, run([]string{"controller", "--port", "0", "--db", database.String()}, &out, &errs))
	require.Contains(t, errs.String(), "does not exist")
}

// remoteDrone is a drone's end of a session.
func remoteDrone(t *testing.T, base string) port.Conn {
	t.Helper()
	withToken, err := url.Parse(base)
	require.NoError(t, err)
	withToken.User = url.User("s3cret")
	d, err := websocket.NewDialer(websocket.Options{URL: withToken.String(), Path: websocket.DronePath("a.test", "")})
	require.NoError(t, err)
	conn, err := d.Dial(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close("test over") })
	require.NoError(t, conn.Send(t.Context(), protocol.EncodeHandshake(protocol.Handshake{Name: "dr-one"})))
	_, err = conn.Recv(t.Context())
	require.NoError(t, err)
	say(t, conn, protocol.Heartbeat{LocalTime: protocol.Millis{Time: time.UnixMilli(1_000_000)}})
	return conn
}

func say(t *testing.T, conn port.Conn, m protocol.FromDrone) {
	t.Helper()
	require.NoError(t, conn.Send(t.Context(), protocol.EncodeFromDrone(m)))
}

// Shortfall 12, on real parts: any controller is asked for what a backend uses,
// and the auth service is convinced at each of the two.
func TestStatisticsAreToldByAnyController(t *testing.T) {
	var asked sync.Map
	auth := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.Header.Get("X-Original-Path")+" "+r.Header.Get(protocol.ForwardedHeader), true)
		if r.Header.Get("Authorization") != "Bearer s3cret" {
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	defer auth.Close()
	settings := controllerSettings{DB: databaseSettings{URL: pgtest.Database(t)}, ForwardAuth: auth.URL}
	settings.Name = "co-one"
	one := startController(t, settings)
	settings.Name = "co-two"
	two := startController(t, settings)
	for _, c := range []*runningTest{one, two} {
		c.log.await(t, "controller serves")
	}
	drone := remoteDrone(t, one.base)
	client, err := apiclient.New(strings.Replace(two.base, "http://", "http://s3cret@", 1), version())
	require.NoError(t, err)
	spawned := connectOnce(t, client)
	say(t, drone, protocol.BackendMetrics{BackendID: spawned, MemUsed: 42})

	seen := make(chan uint64, 10)
	go func() {
		_ = client.MetricsStream(t.Context(), spawned, func(e protocol.MetricsEntry) error {
			seen <- e.MemUsed
			return nil
		})
	}()
	require.Equal(t, uint64(42), <-seen)
	say(t, drone, protocol.BackendMetrics{BackendID: spawned, MemUsed: 43})
	require.Equal(t, uint64(43), <-seen)
	entry, err := client.Metrics(t.Context(), spawned)
	require.NoError(t, err)
	require.Equal(t, uint64(43), entry.MemUsed)
	_, passedOn := asked.Load("/b/" + spawned + "/metrics co-two")
	require.True(t, passedOn, "the auth service was asked by the other controller, too")
	for _, c := range []*runningTest{one, two} {
		require.NotContains(t, c.log.text.String(), "s3cret")
	}

	var out, errs bytes.Buffer
	require.Zero(t, run([]string{"admin", "metrics", spawned, "--controller", strings.Replace(two.base, "http://", "http://s3cret@", 1)}, &out, &errs), errs.String())
	require.Regexp(t, `(?m)^TIME +MEMORY +LIMIT +ACTIVE +CPU \(OF MACHINE\)\n\d\d:\d\d:\d\d +43B +none +0B +unknown$`, out.String())
	require.ErrorIs(t, one.stop(), errStopped)
	_, err = client.Metrics(t.Context(), spawned)
	require.ErrorContains(t, err, "Unavailable: drone dr-one")
}

// connectOnce makes a backend, as soon as the drone's first heartbeat is
// recorded, which nothing tells of.
func connectOnce(t *testing.T, client *apiclient.Client) string {
	t.Helper()
	for {
		resp, err := client.Connect(t.Context(), protocol.ConnectRequest{
			SpawnConfig: &protocol.SpawnConfig{Cluster: unlessEmpty("a.test"), Executable: json.RawMessage(`{"image":"x"}`)},
		})
		var api *protocol.APIError
		if err != nil {
			require.ErrorAs(t, err, &api)
			require.Equal(t, protocol.NoDroneAvailable, api.Kind)
			continue
		}
		return resp.BackendID
	}
}

func TestWhereOthersReachAController(t *testing.T) {
	local, remote := databaseSettings{URL: "postgres://127.0.0.1/x"}, databaseSettings{URL: "postgres://db.internal/x"}
	for _, test := range []struct {
		name, given, listens string
		db                   databaseSettings
		want                 string
	}{
		{"what was given", "https://co-1.internal/base/", "0.0.0.0:8080", remote, "https://co-1.internal/base"},
		{"an address that others see", "", "10.0.0.4:8080", remote, "http://10.0.0.4:8080"},
		{"every address", "", "0.0.0.0:8080", remote, ""},
		{"every address of both kinds", "", "[::]:8080", local, ""},
		{"its own machine's, of a database elsewhere", "", "127.0.0.1:8080", remote, ""},
		{"all on one machine", "", "127.0.0.1:8080", local, "http://127.0.0.1:8080"},
	} {
		t.Run(test.name, func(t *testing.T) {
			address, err := net.ResolveTCPAddr("tcp", test.listens)
			require.NoError(t, err)
			db, err := test.db.config("co-1", nil)
			require.NoError(t, err)
			require.Equal(t, test.want, controllerSettings{PeerURL: test.given}.peerURL(address, db))
		})
	}
}

func TestMigrate(t *testing.T) {
	for range 2 {
		var out, errs bytes.Buffer
		require.Zero(t, run([]string{"migrate", "--db", pgtest.Database(t)}, &out, &errs), errs.String())
		require.Equal(t, "the database's schema is up to date\n", out.String())
	}
}

// What is typed first of all: nothing but the command.
func TestAControllerNeedsNoDatabase(t *testing.T) {
	c := startController(t, controllerSettings{DB: databaseSettings{MaxConnections: postgres.DefaultMaxConnections}}) // the flags' defaults
	require.Equal(t, http.StatusOK, c.status(t, "/pub/health"))
}
