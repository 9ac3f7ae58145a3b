// Package httpapi is the controller's HTTP surface: the paths of the protocol
// under /pub, which may face the internet, and under /ctrl, which must not,
// with the sockets of drones, proxies and DNS receivers among the latter.
//
// It owns no state. New gives a handler that any number of requests may use at
// once; what it promises on top of port.ControllerAPI:
//
//   - a request whose body is not of the right shape changes nothing and gets
//     an InvalidRequest that names the field;
//   - every error answer is a protocol.APIError whose id is in one log line;
//   - with forward auth, nothing under /ctrl is reached, not even to be told
//     that it does not exist, before the auth service has agreed. That hangs on
//     the routes themselves and not on how a path is spelled, and a path that is
//     not in its simplest form leads nowhere;
//   - web pages of other origins cannot make a browser call /ctrl.
package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/gorilla/mux"

	"plane/system/backend"
	"plane/system/name"
	"plane/system/port"
	"plane/system/protocol"
)

// Config is what the surface needs besides the controller. All but ForwardAuth
// has to be set.
type Config struct {
	Version protocol.Version
	Log     *slog.Logger
	// ForwardAuth is asked before anything under /ctrl is served; nil: nobody
	// is.
	ForwardAuth *url.URL
	// Sessions is the life of streams and sockets, which would last for ever: they
	// end with it, while other requests may still be finished.
	Sessions context.Context
	// Accept turns a request into a session. When it fails it has answered.
	Accept func(w http.ResponseWriter, r *http.Request) (port.Conn, error)
}

type server struct {
	Config
	api  port.ControllerAPI
	auth *forwardAuth // nil: none
}

// New makes the handler.
func New(cfg Config, api port.ControllerAPI) http.Handler {
	s := &server{Config: cfg, api: api}
	if cfg.ForwardAuth != nil {
		s.auth = newForwardAuth(cfg.ForwardAuth)
	}
	routes := s.routes()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p := r.URL.Path; p != path.Clean(p) || !strings.HasPrefix(p, "/") {
			s.fail(w, r, notFound("there is no such path: write it without empty parts, dots and a slash at the end"))
			return
		}
		routes.ServeHTTP(w, r)
	})
}

// handler answers a request, or returns the error to answer with.
type handler func(w http.ResponseWriter, r *http.Request) error

func (s *server) routes() *mux.Router {
	r := mux.NewRouter().SkipClean(true)
	pub := func(path string, h handler) {
		r.Handle("/pub"+path, cors(s.handle(h))).Methods(with(http.MethodGet)...)
	}
	ctrl := func(method, path string, h handler) {
		r.Handle("/ctrl"+path, s.guarded(s.handle(h))).Methods(with(method)...)
	}
	const b, cluster = "/b/{backend}", "/c/{cluster}"
	pub("/health", s.health)
	pub(b+"/status", s.backendStatus)
	pub(b+"/status-stream", s.statusStream)
	pub(cluster+b+"/status", s.backendStatus)
	pub(cluster+b+"/status-stream", s.statusStream)

	ctrl("GET", "/status", s.status)
	ctrl("POST", "/connect", s.connect)
	ctrl("POST", b+"/soft-terminate", s.terminate(backend.Soft))
	ctrl("POST", b+"/hard-terminate", s.terminate(backend.Hard))
	ctrl("POST", cluster+b+"/soft-terminate", s.terminate(backend.Soft))
	ctrl("POST", cluster+b+"/hard-terminate", s.terminate(backend.Hard))
	ctrl("POST", "/b/revoke", s.revoke)
	ctrl("POST", "/revoke", s.revoke)
	ctrl("POST", cluster+"/d/{drone}/drain", s.drain)
	ctrl("GET", cluster+"/state", s.clusterState)
	ctrl("GET", b+"/metrics", s.metrics)
	ctrl("GET", b+"/metrics-stream", s.metricsStream)
	ctrl("GET", cluster+"/backends", s.backends)
	ctrl("GET", cluster+"/drone-socket", s.droneSocket)
	ctrl("GET", cluster+"/proxy-socket", s.proxySocket)
	ctrl("GET", "/dns-socket", s.dnsSocket)

	r.NotFoundHandler = s.elsewhere(notFound("there is no such path"))
	r.MethodNotAllowedHandler = s.elsewhere(&statusError{
		status: http.StatusMethodNotAllowed,
		body:   protocol.APIError{Kind: protocol.InvalidRequest, Message: "this path does not take that method"},
	})
	return r
}

// with adds HEAD to GET.
func with(method string) []string {
	if method == http.MethodGet {
		return []string{http.MethodGet, http.MethodHead}
	}
	return []string{method}
}

// elsewhere answers what no route takes: preflights under /pub, and else the
// error; under /ctrl only once the request is authorised.
func (s *server) elsewhere(err error) http.Handler {
	refuse := s.handle(func(http.ResponseWriter, *http.Request) error { return err })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case under("/ctrl", r.URL.Path):
			s.guarded(refuse).ServeHTTP(w, r)
		case under("/pub", r.URL.Path):
			cors(refuse).ServeHTTP(w, r)
		default:
			refuse.ServeHTTP(w, r)
		}
	})
}

func under(dir, p string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }

func (s *server) handle(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := h(w, r); err != nil {
			s.fail(w, r, err)
		}
	})
}

// cors lets pages of any origin read what is under /pub.
func cors(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "*")
		if r.Method == http.MethodOptions {
			h.Set("Access-Control-Allow-Methods", "GET, POST")
			h.Set("Access-Control-Allow-Headers", "Content-Type")
			h.Set("Access-Control-Max-Age", "3600")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// guarded lets only authorised requests through, and none that a browser sends
// for a page of another origin.
func (s *server) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := new(http.CrossOriginProtection).Check(r); err != nil {
			s.fail(w, r, &statusError{status: http.StatusForbidden,
				body: protocol.APIError{Kind: protocol.InvalidRequest, Message: "/ctrl is not for web pages of other origins"}})
			return
		}
		if s.auth != nil {
			if err := s.auth.check(r); err != nil {
				s.fail(w, r, err)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

func answer(w http.ResponseWriter, body any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b) // fails only when the client is gone
	return nil
}

func (s *server) health(w http.ResponseWriter, r *http.Request) error {
	if err := s.api.Health(r.Context()); err != nil {
		return &statusError{status: http.StatusInternalServerError, cause: err,
			body: protocol.APIError{Kind: protocol.DatabaseError, Message: "the store does not answer"}}
	}
	return answer(w, map[string]string{"status": "ok"})
}

type serverStatus struct {
	Status  string `json:"status"`
	Version string `json:"version"`
	Hash    string `json:"hash"`
}

func (s *server) status(w http.ResponseWriter, _ *http.Request) error {
	return answer(w, serverStatus{Status: "ok", Version: s.Version.Version, Hash: s.Version.GitHash})
}

func (s *server) connect(w http.ResponseWriter, r *http.Request) error {
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	req, err := decodeConnect(body)
	if err != nil {
		return invalid(err)
	}
	resp, err := s.api.Connect(r.Context(), req)
	if err != nil {
		return err
	}
	return answer(w, resp)
}

func (s *server) terminate(kind backend.Kind) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		id, err := backendOf(r)
		if err != nil {
			return err
		}
		if err := s.api.Terminate(r.Context(), id, kind); err != nil {
			return err
		}
		return answer(w, nil)
	}
}

func (s *server) revoke(w http.ResponseWriter, r *http.Request) error {
	body, err := readBody(w, r)
	if err != nil {
		return err
	}
	req, err := decodeRevoke(body)
	if err != nil {
		return invalid(err)
	}
	if err := s.api.Revoke(r.Context(), req); err != nil {
		return err
	}
	return answer(w, "Token revoked successfully")
}

func (s *server) drain(w http.ResponseWriter, r *http.Request) error {
	cluster, err := clusterOf(r)
	if err != nil {
		return err
	}
	drone := mux.Vars(r)["drone"]
	if err := name.Validate(name.Drone, drone); err != nil {
		return notFound("there is no such drone: " + err.Error())
	}
	result, err := s.api.Drain(r.Context(), cluster, drone)
	if err != nil {
		return err
	}
	return answer(w, result)
}

func (s *server) clusterState(w http.ResponseWriter, r *http.Request) error {
	cluster, err := clusterOf(r)
	if err != nil {
		return err
	}
	state, err := s.api.ClusterState(r.Context(), cluster)
	if err != nil {
		return err
	}
	return answer(w, state)
}

func (s *server) backends(w http.ResponseWriter, r *http.Request) error {
	cluster, err := clusterOf(r)
	if err != nil {
		return err
	}
	req, err := decodeBackends(r.URL.RawQuery)
	if err != nil {
		return invalid(err)
	}
	page, err := s.api.Backends(r.Context(), cluster, req)
	if err != nil {
		return err
	}
	return answer(w, page)
}

func (s *server) backendStatus(w http.ResponseWriter, r *http.Request) error {
	id, err := backendOf(r)
	if err != nil {
		return err
	}
	entry, err := s.api.Status(r.Context(), id)
	if err != nil {
		return err
	}
	return answer(w, entry)
}

func (s *server) droneSocket(w http.ResponseWriter, r *http.Request) error {
	cluster, err := clusterOf(r)
	if err != nil {
		return err
	}
	pool := r.URL.Query().Get("pool")
	return s.socket(w, r, func(ctx context.Context, conn port.Conn) error {
		return s.api.ServeDrone(ctx, cluster, pool, conn)
	})
}

func (s *server) proxySocket(w http.ResponseWriter, r *http.Request) error {
	cluster, err := clusterOf(r)
	if err != nil {
		return err
	}
	return s.socket(w, r, func(ctx context.Context, conn port.Conn) error {
		return s.api.ServeProxy(ctx, cluster, conn)
	})
}

func (s *server) dnsSocket(w http.ResponseWriter, r *http.Request) error {
	return s.socket(w, r, s.api.ServeDNS)
}

func (s *server) socket(w http.ResponseWriter, r *http.Request, serve func(context.Context, port.Conn) error) error {
	ctx, cancel := s.session(r)
	defer cancel()
	conn, err := s.Accept(w, r)
	if err != nil {
		s.Log.Info("socket refused", "path", r.URL.Path, "error", err)
		return nil // Accept has answered
	}
	defer conn.Close("session over")
	if err := serve(ctx, conn); err != nil {
		s.Log.Info("socket closed", "path", r.URL.Path, "error", err)
	}
	return nil
}

// session is a request's context that ends with Sessions as well.
func (s *server) session(r *http.Request) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(r.Context())
	stop := context.AfterFunc(s.Sessions, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}

func backendOf(r *http.Request) (string, error) {
	id := mux.Vars(r)["backend"]
	if err := name.Validate(name.Backend, id); err != nil {
		return "", notFound("there is no such backend: " + err.Error())
	}
	return id, nil
}

func clusterOf(r *http.Request) (string, error) {
	cluster, err := name.ParseCluster(mux.Vars(r)["cluster"])
	if err != nil {
		return "", &protocol.APIError{Kind: protocol.InvalidClusterName, Message: err.Error()}
	}
	return cluster.String(), nil
}
