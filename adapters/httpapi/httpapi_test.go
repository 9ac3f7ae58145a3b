package httpapi_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"plane/adapters/httpapi"
	"plane/system/backend"
	"plane/system/port"
	"plane/system/protocol"
)

func TestEveryPath(t *testing.T) {
	for _, test := range []struct{ method, path, body, call, answer string }{
		{"GET", "/pub/health", "", "health", `{"status":"ok"}`},
		{"GET", "/pub/b/b1/status", "", "status b1", `{"status":"ready","time":1000}`},
		{"GET", "/pub/c/a.test/b/b1/status", "", "status b1", `{"status":"ready","time":1000}`},
		{"GET", "/ctrl/status", "", "", `{"status":"ok","version":"0.5.5","hash":"abc"}`},
		{"POST", "/ctrl/connect", `{}`, `connect {"key":null,"spawn_config":null,"user":null}`, ""},
		{"POST", "/ctrl/b/b1/soft-terminate", "", "terminate b1 soft", "null"},
		{"POST", "/ctrl/b/b1/hard-terminate", "", "terminate b1 hard", "null"},
		{"POST", "/ctrl/c/a.test/b/b1/soft-terminate", "", "terminate b1 soft", "null"},
		{"POST", "/ctrl/c/a.test/b/b1/hard-terminate", "", "terminate b1 hard", "null"},
		{"POST", "/ctrl/b/revoke", `{"backend_id":"b1","user":"ann"}`, "revoke b1 ann", `"Token revoked successfully"`},
		{"POST", "/ctrl/revoke", `{"backend_id":"b1","user":"ann"}`, "revoke b1 ann", `"Token revoked successfully"`},
		{"POST", "/ctrl/c/A.test:443/d/dr-1/drain", "", "drain a.test dr-1", `{"updated":true}`},
		{"GET", "/ctrl/c/localhost:9090/state", "", "state localhost:9090", `{"drones":[],"proxies":[]}`},
		{"GET", "/ctrl/b/b1/metrics", "", "metrics b1 forwarded=false as []", usageJSON(1)},
		{"GET", "/ctrl/c/A.test:443/backends", "", "backends a.test {Statuses:[] Live:false Drone: Key: Namespace:<nil> After: Limit:100} of namespace any", `{"backends":[],"next":null}`},
		{"GET", "/ctrl/c/a.test/backends?status=ready&status=waiting,terminated&live=true&drone=dr-1&key=a+b%26c&namespace=&after=b1&limit=7", "",
			`backends a.test {Statuses:[ready waiting terminated] Live:true Drone:dr-1 Key:a b&c Namespace:<nil> After:b1 Limit:7} of namespace ""`, ""},
		{"GET", "/ctrl/c/localhost:9090/drone-socket", "", `drone localhost:9090 ""`, ""},
		{"GET", "/ctrl/c/localhost:9090/drone-socket?pool=big", "", `drone localhost:9090 "big"`, ""},
		{"GET", "/ctrl/c/localhost:9090/proxy-socket", "", "proxy localhost:9090", ""},
		{"GET", "/ctrl/dns-socket", "", "dns", ""},
	} {
		t.Run(test.method+" "+test.path, func(t *testing.T) {
			s := newSurface(t, "")
			w := s.do(test.method, test.path, test.body)
			require.Equal(t, http.StatusOK, w.Code, w.Body)
			if test.call != "" {
				require.Equal(t, []string{test.call}, s.api.seen())
			}
			if test.answer != "" {
				require.Equal(t, test.answer, w.Body.String())
				require.Equal(t, "application/json", w.Header().Get("Content-Type"))
			}
		})
	}
}

func TestWhatLeadsNowhere(t *testing.T) {
	for _, test := range []struct {
		method, path string
		status       int
		kind         protocol.ErrorKind
	}{
		{"GET", "/", 404, protocol.NotFound},
		{"GET", "/pub", 404, protocol.NotFound},
		{"GET", "/ctrl", 404, protocol.NotFound},
		{"GET", "/CTRL/status", 404, protocol.NotFound},
		{"GET", "//ctrl/status", 404, protocol.NotFound},
		{"GET", "/ctrl//status", 404, protocol.NotFound},
		{"GET", "/ctrl/status/", 404, protocol.NotFound},
		{"GET", "/pub/../ctrl/status", 404, protocol.NotFound},
		{"GET", "/pub/%2e%2e/ctrl/status", 404, protocol.NotFound},
		{"GET", "/pub%2F..%2Fctrl/status", 404, protocol.NotFound},
		{"GET", "/pub/b/..%2f..%2fctrl/status", 404, protocol.NotFound},
		{"GET", "/pub/b/UPPER/status", 404, protocol.NotFound},
		{"GET", "/pub/b/" + strings.Repeat("x", 46) + "/status", 404, protocol.NotFound},
		{"POST", "/ctrl/c/a.test/d/b1/drain", 404, protocol.NotFound},
		{"GET", "/ctrl/c/a_b/state", 400, protocol.InvalidClusterName},
		{"GET", "/ctrl/c/a:0/drone-socket", 400, protocol.InvalidClusterName},
		{"GET", "/ctrl/connect", 405, protocol.InvalidRequest},
		{"DELETE", "/pub/health", 405, protocol.InvalidRequest},
	} {
		t.Run(test.method+" "+test.path, func(t *testing.T) {
			s := newSurface(t, "")
			w := s.do(test.method, test.path, "")
			require.Equal(t, test.status, w.Code, w.Body)
			require.Equal(t, test.kind, apiError(t, w).Kind)
			require.Empty(t, s.api.seen())
		})
	}
}

func TestBadParametersAreToldByName(t *testing.T) {
	for query, want := range map[string]string{
		"stauts=ready":           "stauts: there is no such parameter; want status, live",
		"status=ready,hot":       `status: no such backend status: "hot"`,
		"status=":                `status: no such backend status: ""`,
		"live=yes":               `live: want true or false, not "yes"`,
		"limit=many":             `limit: want a whole number, not "many"`,
		"limit=1e3":              "limit: want a whole number",
		"limit=1&limit=2":        "limit: is given more than once",
		"drone=":                 "drone: is empty",
		"key=":                   "key: is empty",
		"key=%zz":                "query: invalid URL escape",
		"a;b":                    "query: invalid semicolon",
		strings.Repeat("x", 999): strings.Repeat("x", 40) + "…: ",
	} {
		t.Run(query, func(t *testing.T) {
			s := newSurface(t, "")
			w := s.do("GET", "/ctrl/c/a.test/backends?"+query, "")
			require.Equal(t, http.StatusBadRequest, w.Code, w.Body)
			require.Equal(t, protocol.InvalidRequest, apiError(t, w).Kind)
			require.Contains(t, apiError(t, w).Message, want)
			require.Empty(t, s.api.seen())
		})
	}
}

func TestErrors(t *testing.T) {
	for name, test := range map[string]struct {
		err     error
		status  int
		kind    protocol.ErrorKind
		message string
	}{
		"a kind decides the status":           {&protocol.APIError{Kind: protocol.KeyHeld, Message: "held"}, 409, protocol.KeyHeld, "held"},
		"a wrapped kind too":                  {fmt.Errorf("x: %w", &protocol.APIError{Kind: protocol.NoDroneAvailable, Message: "none"}), 500, protocol.NoDroneAvailable, "none"},
		"what is not found":                   {fmt.Errorf("x: %w", port.ErrNotFound), 404, protocol.NotFound, "no such thing"},
		"the inside of the store is not told": {errors.New("password of the database is 1234"), 500, protocol.Other, "its log says why"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSurface(t, "")
			s.api.err = test.err
			w := s.do("POST", "/ctrl/b/b1/soft-terminate", "")
			require.Equal(t, test.status, w.Code)
			e := apiError(t, w)
			require.Equal(t, test.kind, e.Kind)
			require.Contains(t, e.Message, test.message)
			require.NotContains(t, e.Message, "1234")
			require.Len(t, e.ID, 14)
			require.Contains(t, s.log.String(), "id="+e.ID)
		})
	}
}

func TestHealthOfADeadStore(t *testing.T) {
	s := newSurface(t, "")
	s.api.err = errors.New("connection refused")
	w := s.do("GET", "/pub/health", "")
	require.Equal(t, http.StatusInternalServerError, w.Code)
	require.Equal(t, protocol.DatabaseError, apiError(t, w).Kind)
}

func TestOtherOrigins(t *testing.T) {
	s := newSurface(t, "")
	w := s.do("OPTIONS", "/pub/b/b1/status", "", "Origin", "https://app.test", "Access-Control-Request-Method", "GET")
	require.Equal(t, http.StatusNoContent, w.Code)
	require.Equal(t, "*", w.Header().Get("Access-Control-Allow-Origin"))
	require.Equal(t, "GET, POST", w.Header().Get("Access-Control-Allow-Methods"))
	require.Equal(t, "Content-Type", w.Header().Get("Access-Control-Allow-Headers"))
	for _, path := range []string{"/pub/b/b1/status", "/pub/none"} {
		require.Equal(t, "*", s.do("GET", path, "").Header().Get("Access-Control-Allow-Origin"), path)
	}
	require.Empty(t, s.do("OPTIONS", "/ctrl/connect", "").Header().Get("Access-Control-Allow-Origin"))

	before := len(s.api.seen())
	w = s.do("POST", "/ctrl/b/b1/hard-terminate", "", "Origin", "https://evil.test", "Sec-Fetch-Site", "cross-site")
	require.Equal(t, http.StatusForbidden, w.Code)
	require.Len(t, s.api.seen(), before)
}

func TestStatusStream(t *testing.T) {
	failed := true
	last := entry(backend.Terminated)
	last.TerminationReason, last.TerminationKind, last.ExitError = backend.External, backend.Soft, &failed
	const (
		scheduled  = "data: {\"status\":\"scheduled\",\"time\":1000}\nid: scheduled\n\n:\n\n"
		terminated = "data: {\"status\":\"terminated\",\"termination_reason\":\"external\",\"termination_kind\":\"soft\",\"exit_error\":true,\"time\":1000}\nid: terminated\n\n:\n\n"
	)
	for name, test := range map[string]struct {
		lastID string
		err    error
		status int
		body   string
	}{
		"all of it":              {"", nil, 200, scheduled + terminated},
		"after the first":        {"scheduled", nil, 200, terminated},
		"after the last":         {"terminated", nil, 204, ""},
		"no such backend":        {"", &protocol.APIError{Kind: protocol.NotFound, Message: "no such backend"}, 404, "no such backend"},
		"after what is no state": {"hot", nil, 400, "no such backend status"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSurface(t, "")
			s.api.entries, s.api.err = []protocol.StatusEntry{entry(backend.Scheduled), last}, test.err
			srv := newServer(t, s)
			req, err := http.NewRequest(http.MethodGet, srv+"/pub/b/b1/status-stream", nil)
			require.NoError(t, err)
			if test.lastID != "" {
				req.Header.Set("Last-Event-ID", test.lastID)
			}
			status, header, body := fetch(t, req)
			require.Equal(t, test.status, status, body)
			if status != http.StatusOK {
				require.Contains(t, body, test.body)
				return
			}
			require.Equal(t, test.body, body)
			require.Equal(t, "text/event-stream", header.Get("Content-Type"))
		})
	}
}

func usageJSON(memory int) string {
	return fmt.Sprintf(`{"backend_id":"b1","mem_used":%d,"mem_total":0,"mem_active":0,"mem_inactive":0,"mem_unevictable":0,"mem_limit":0,"cpu_used":0,"sys_cpu":0,"age_ms":5}`, memory)
}

func TestMetricsStream(t *testing.T) {
	s := newSurface(t, "")
	srv := httptest.NewServer(s)
	defer srv.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+"/ctrl/b/b1/metrics-stream", nil)
	require.NoError(t, err)
	status, header, body := fetch(t, req)
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "text/event-stream", header.Get("Content-Type"))
	require.Equal(t, "data: "+usageJSON(1)+"\n\n:\n\ndata: "+usageJSON(2)+"\n\n", body)

	s.api.err = &protocol.APIError{Kind: protocol.Unavailable, Message: "drone dr-1 is connected to no controller"}
	status, _, body = fetch(t, req)
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Contains(t, body, "dr-1 is connected to no controller")
	w := s.do("HEAD", "/ctrl/b/b1/metrics-stream", "")
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	w = s.do("GET", "/ctrl/b/B1/metrics-stream", "")
	require.Equal(t, http.StatusNotFound, w.Code)
}

// Another controller that asks says so, and for whom.
func TestMetricsAreAskedForInSomebodysName(t *testing.T) {
	s := newSurface(t, "")
	s.do("GET", "/ctrl/b/b1/metrics", "", "Authorization", "Bearer x", protocol.ForwardedHeader, "co-2")
	s.do("GET", "/ctrl/b/b1/metrics-stream", "", "Authorization", "Bearer x", protocol.ForwardedHeader, "co-2")
	require.Equal(t, []string{"metrics b1 forwarded=true as [Bearer x]", "metrics stream b1 forwarded=true as [Bearer x]"}, s.api.seen())
}

func TestOpenAPINamesEveryRoute(t *testing.T) {
	text, err := os.ReadFile("../../docs/openapi.yaml")
	require.NoError(t, err)
	var doc struct {
		Paths map[string]map[string]any `yaml:"paths"`
	}
	require.NoError(t, yaml.Unmarshal(text, &doc))
	var documented []string
	for path, methods := range doc.Paths {
		for method := range methods {
			if method != "parameters" {
				documented = append(documented, strings.ToUpper(method)+" "+path)
			}
		}
	}
	routes, err := httpapi.Routes()
	require.NoError(t, err)
	slices.Sort(documented)
	slices.Sort(routes)
	require.Equal(t, routes, documented)
}
