package apiclient_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"plane/adapters/apiclient"
	"plane/system/backend"
	"plane/system/protocol"
)

// controller answers every request with one answer and notes the request.
type controller struct {
	status  int
	answer  string
	request *http.Request
	body    string
}

func (c *controller) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	c.request, c.body = r, string(b)
	if err != nil {
		c.status = http.StatusTeapot
	}
	w.WriteHeader(c.status)
	io.WriteString(w, c.answer) //nolint:errcheck // the client notices
}

func start(t *testing.T, status int, answer string) (*controller, *apiclient.Client) {
	c := &controller{status: status, answer: answer}
	srv := httptest.NewServer(c)
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL)
	require.NoError(t, err)
	u.User, u.Path = url.User("s3cret"), "/base/"
	client, err := apiclient.New(u.String(), protocol.Version{Version: "1.2.3"})
	require.NoError(t, err)
	return c, client
}

func TestCalls(t *testing.T) {
	for name, test := range map[string]struct {
		call              func(t *testing.T, c *apiclient.Client) (any, error)
		answer            string
		method, uri, body string
		want              any
	}{
		"health": {
			func(t *testing.T, c *apiclient.Client) (any, error) { return nil, c.Health(t.Context()) },
			`{"status":"ok"}`, "GET", "/base/pub/health", "", nil,
		},
		"server status": {
			func(t *testing.T, c *apiclient.Client) (any, error) { return c.ServerStatus(t.Context()) },
			`{"status":"ok","version":"v","hash":"h"}`, "GET", "/base/ctrl/status", "", apiclient.ServerStatus{Status: "ok", Version: "v", Hash: "h"},
		},
		"connect": {
			func(t *testing.T, c *apiclient.Client) (any, error) {
				return c.Connect(t.Context(), protocol.ConnectRequest{Key: &protocol.Key{Name: "k"}})
			},
			`{"backend_id":"b1","status":"ready"}`, "POST", "/base/ctrl/connect",
			`{"key":{"name":"k","namespace":"","tag":""},"spawn_config":null,"user":null}`,
			protocol.ConnectResponse{BackendID: "b1", Status: backend.Ready},
		},
		"terminate": {
			func(t *testing.T, c *apiclient.Client) (any, error) {
				return nil, c.Terminate(t.Context(), "b1", backend.Hard)
			},
			`null`, "POST", "/base/ctrl/b/b1/hard-terminate", "", nil,
		},
		"revoke": {
			func(t *testing.T, c *apiclient.Client) (any, error) {
				return nil, c.Revoke(t.Context(), protocol.RevokeRequest{BackendID: "b1", User: "ann"})
			},
			`"Token revoked successfully"`, "POST", "/base/ctrl/revoke", `{"backend_id":"b1","user":"ann"}`, nil,
		},
		"drain": {
			func(t *testing.T, c *apiclient.Client) (any, error) {
				return c.Drain(t.Context(), "localhost:9090", "dr-1")
			},
			`{"updated":true}`, "POST", "/base/ctrl/c/localhost:9090/d/dr-1/drain", "", protocol.DrainResult{Updated: true},
		},
		"cluster state": {
			func(t *testing.T, c *apiclient.Client) (any, error) { return c.ClusterState(t.Context(), "a/b") },
			`{"drones":[],"proxies":[]}`, "GET", "/base/ctrl/c/a%2Fb/state", "",
			protocol.ClusterState{Drones: []protocol.DroneState{}, Proxies: []protocol.NodeState{}},
		},
		"backends": {
			func(t *testing.T, c *apiclient.Client) (any, error) {
				return c.Backends(t.Context(), "a.test", protocol.BackendsRequest{})
			},
			`{"backends":[],"next":null}`, "GET", "/base/ctrl/c/a.test/backends", "", protocol.BackendsPage{Backends: []protocol.BackendEntry{}},
		},
		"backends that pass filters": {
			func(t *testing.T, c *apiclient.Client) (any, error) {
				none := ""
				page, err := c.Backends(t.Context(), "a.test", protocol.BackendsRequest{
					Statuses: []backend.Status{backend.Ready, backend.Waiting}, Live: true, Drone: "dr-1", Key: "a b&c", Namespace: &none, After: "b0", Limit: 2,
				})
				return *page.Next + " " + page.Backends[0].Status.String(), err
			},
			`{"backends":[{"id":"b1","status":"ready","time":5}],"next":"b1"}`, "GET",
			"/base/ctrl/c/a.test/backends?after=b0&drone=dr-1&key=a+b%26c&limit=2&live=true&namespace=&status=ready&status=waiting", "", "b1 ready",
		},
		"status": {
			func(t *testing.T, c *apiclient.Client) (any, error) {
				e, err := c.Status(t.Context(), "b1")
				return e.Status, err
			},
			`{"status":"ready","time":5}`, "GET", "/base/pub/b/b1/status", "", backend.Ready,
		},
	} {
		t.Run(name, func(t *testing.T) {
			srv, client := start(t, http.StatusOK, test.answer)
			have, err := test.call(t, client)
			require.NoError(t, err)
			require.Equal(t, test.want, have)
			require.Equal(t, test.method+" "+test.uri, srv.request.Method+" "+srv.request.RequestURI)
			require.Equal(t, test.body, srv.body)
			require.Equal(t, "Bearer s3cret", srv.request.Header.Get("Authorization"))
			require.Equal(t, "plane/1.2.3", srv.request.UserAgent())
		})
	}
}

func TestStatusStream(t *testing.T) {
	const stream = ": hello\n\n:\n\ndata: {\"status\":\"scheduled\",\"time\":1}\nid: scheduled\n\nid: ready\r\ndata: {\"status\":\"ready\",\r\ndata: \"time\":2}\r\n\r\n"
	srv, client := start(t, http.StatusOK, stream)
	var seen []backend.Status
	require.NoError(t, client.StatusStream(t.Context(), "b1", 0, func(e protocol.StatusEntry) error {
		seen = append(seen, e.Status)
		return nil
	}))
	require.Equal(t, []backend.Status{backend.Scheduled, backend.Ready}, seen)
	require.Empty(t, srv.request.Header.Get("Last-Event-ID"))

	enough := errors.New("enough")
	require.ErrorIs(t, client.StatusStream(t.Context(), "b1", backend.Loading, func(protocol.StatusEntry) error { return enough }), enough)
	require.Equal(t, "loading", srv.request.Header.Get("Last-Event-ID"))
}

func TestErrors(t *testing.T) {
	t.Run("of the API", func(t *testing.T) {
		_, client := start(t, http.StatusConflict, `{"id":"i","kind":"KeyHeld","message":"held with another tag"}`)
		_, err := client.Connect(t.Context(), protocol.ConnectRequest{})
		var api *protocol.APIError
		require.ErrorAs(t, err, &api)
		require.Equal(t, protocol.APIError{ID: "i", Kind: protocol.KeyHeld, Message: "held with another tag"}, *api)
	})
	t.Run("of something in between", func(t *testing.T) {
		_, client := start(t, http.StatusBadGateway, "<h1>nginx</h1>")
		err := client.Health(t.Context())
		require.ErrorContains(t, err, "502 Bad Gateway: <h1>nginx</h1>")
		require.NotContains(t, err.Error(), "s3cret")
	})
	t.Run("of what is no controller", func(t *testing.T) {
		_, client := start(t, http.StatusOK, "<h1>hello</h1>")
		_, err := client.ServerStatus(t.Context())
		require.ErrorContains(t, err, "the answer is not a controller's")
	})
	t.Run("when nobody listens", func(t *testing.T) {
		client, err := apiclient.New("http://s3cret@127.0.0.1:1", protocol.Version{})
		require.NoError(t, err)
		err = client.Health(t.Context())
		require.ErrorContains(t, err, "no answer from the controller at http://127.0.0.1:1")
		require.NotContains(t, err.Error(), "s3cret")
	})
	t.Run("for a name that is no name", func(t *testing.T) {
		_, client := start(t, http.StatusOK, "null")
		require.ErrorContains(t, client.Terminate(t.Context(), "..", backend.Soft), "not the name")
	})
	for _, bad := range []string{"ws://s3cret@host", "localhost:8080", "http://", "http://s3cret@a b"} {
		_, err := apiclient.New(bad, protocol.Version{})
		require.ErrorContains(t, err, "want http://host:port", bad)
		require.NotContains(t, err.Error(), "s3cret")
	}
}
