// Package httpproxy is the proxy's data plane: it takes HTTP requests and
// upgraded connections to the backends that their tokens name. Where a token
// leads it asks a port.Router; it decides nothing itself and remembers nothing
// but idle connections.
//
// It forwards with httputil.ReverseProxy over one http.Transport, because these
// two have the corner cases of HTTP/1.1 behind them (hop-by-hop headers, early
// answers, 1xx, trailers, half-closed upgrades). What they do not do is done
// here: paths, Host and headers exactly as Plane's protocol wants them, requests
// and answers that stream at the same time, and connections that belong to one
// backend:
//
//   - A connection to a backend is reused for that backend only, never for
//     another one at the same address.
//   - A request is connected within Config.ConnectTimeout from the moment at
//     which the router allowed it, or not at all. That also holds when the
//     transport tries again because a reused connection turned out to be dead,
//     which it does only for requests that may be repeated. So a route is never
//     used past the time for which the router trusts it (G7).
//   - When the router ends a use (its token was revoked), both sides of it are
//     closed.
//
// There is no limit on the size of a body, the age of a connection or the pause
// between two bytes of one: only on the time to connect, to read a request's
// header, until a backend begins to answer, and until a client takes a byte that
// is there for it. What else clients may do is in Limits.
//
// A Server serves the Handler over TLS where it is told to, with the certificate
// that Certificates has at the time of each handshake: a new one is for new
// connections, and the open ones stay as they are.
//
// A Handler may be used by any number of servers at once. Tokens are in no log
// line. A Referer or Origin header goes through as it came: a Referer can name
// the token, to the backend that the token is for.
package httpproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"time"

	"plane/system/name"
	"plane/system/port"
	"plane/system/protocol"
	"plane/system/route"
)

// Config is what a data plane is told.
type Config struct {
	Cluster name.Cluster
	Version protocol.Version
	// RootRedirectURL is where / leads; empty: nowhere.
	RootRedirectURL string
	// Certificates is what the cluster is served with; nil: it is served without
	// TLS. The handler only looks whether there is one.
	Certificates Certificates
	// HSTS is for how long browsers are told to come by https only; 0: they are
	// not told, and what a backend says to them goes through.
	HSTS time.Duration
	// ConnectTimeout is how long connecting to a backend may take. It must not
	// be longer than the router's route.Policy.ConnectWithin.
	ConnectTimeout time.Duration
	// AnswerTimeout is how long a backend may take from the end of a request to
	// the header of its answer.
	AnswerTimeout time.Duration
	Log           *slog.Logger
}

// DefaultConfig has the default times: 5 s to connect, 300 s to answer.
func DefaultConfig(cluster name.Cluster, version protocol.Version, log *slog.Logger) Config {
	return Config{Cluster: cluster, Version: version, ConnectTimeout: 5 * time.Second, AnswerTimeout: 300 * time.Second, Log: log}
}

// Handler serves a cluster's requests.
type Handler struct {
	cfg       Config
	cluster   string
	server    string // the Server header
	router    port.Router
	proxy     *httputil.ReverseProxy
	transport *http.Transport
}

// New makes a handler.
func New(cfg Config, router port.Router) *Handler {
	h := &Handler{
		cfg: cfg, cluster: cfg.Cluster.String(), router: router,
		server: "Plane/" + cfg.Version.Version + "-" + cfg.Version.GitHash,
	}
	h.transport = newTransport(cfg)
	h.proxy = h.newReverseProxy()
	return h
}

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if protocol, ok := opensStream(r); ok {
		h.serveStream(w, r, protocol)
		return
	}
	h.serve(w, r)
}

func (h *Handler) serve(w http.ResponseWriter, r *http.Request) {
	path, ok := route.ParsePath(r.RequestURI)
	if !ok {
		h.refuse(w, r, http.StatusBadRequest, "The request names no path.")
		return
	}
	if path.Original == "/ready" {
		h.ready(w, r)
		return
	}
	match, label := route.MatchHost(r.Host, h.cfg.Cluster)
	switch {
	case match == route.HostMissing:
		h.refuse(w, r, http.StatusBadRequest, "The request has no Host header.")
	case path.Original == "/":
		h.root(w, r)
	case match == route.HostForeign:
		h.refuse(w, r, http.StatusForbidden, foreignHost)
	default:
		h.pass(w, r, path, match, label)
	}
}

// ready says whether requests can be served, and why not. The reason is for the
// person who set the proxy up, but everybody can read it.
func (h *Handler) ready(w http.ResponseWriter, r *http.Request) {
	if !h.router.Ready() {
		h.refuse(w, r, http.StatusServiceUnavailable, "No controller is connected.")
		return
	}
	if h.cfg.Certificates != nil {
		if _, err := h.cfg.Certificates.Current(); err != nil {
			h.refuse(w, r, http.StatusServiceUnavailable, "There is no valid certificate: "+err.Error())
			return
		}
	}
	h.mark(w.Header(), r, "")
	w.WriteHeader(http.StatusOK)
}

// mark sets what every answer carries; backend is empty when the answer is the
// proxy's own.
func (h *Handler) mark(header http.Header, r *http.Request, backend string) {
	route.SetAnswer(header, backend, h.server)
	if h.cfg.HSTS > 0 && encrypted(r) { // over plain HTTP anybody could have put it there
		header.Set("Strict-Transport-Security", "max-age="+strconv.FormatInt(int64(h.cfg.HSTS/time.Second), 10))
	}
}

func (h *Handler) root(w http.ResponseWriter, r *http.Request) {
	if h.cfg.RootRedirectURL == "" {
		h.refuse(w, r, http.StatusBadRequest, "The path names no backend.")
		return
	}
	h.mark(w.Header(), r, "")
	http.Redirect(w, r, h.cfg.RootRedirectURL, http.StatusMovedPermanently)
}

// errForbidden: the token exists, but not under this host name.
var errForbidden = errors.New("host name does not belong to the backend")

const foreignHost = "This host name is not served here."

// pass finds out where the request leads, and takes it there.
func (h *Handler) pass(w http.ResponseWriter, r *http.Request, path route.Path, match route.HostMatch, label string) {
	allowed := func(info protocol.RouteInfo) bool {
		return info.Cluster == h.cluster && route.HostAllows(match, label, info.Subdomain)
	}
	p := &passage{request: r, path: path, from: clientAddress(r)}
	ctx, done, err := h.admit(r, p, allowed)
	if err != nil {
		h.refuseRoute(w, r, err)
		return
	}
	defer done()
	h.proxy.ServeHTTP(h.writer(ctx, w, r), r.WithContext(context.WithValue(ctx, passageKey{}, p)))
}

// admit asks the router where the token leads and opens a use of it. A route can
// become void between the two; then it is asked for again.
func (h *Handler) admit(r *http.Request, p *passage, allowed func(protocol.RouteInfo) bool) (ctx context.Context, done func(), err error) {
	for range 3 {
		p.info, err = h.router.Route(r.Context(), p.path.Token)
		if err != nil {
			return nil, nil, err
		}
		if !allowed(p.info) {
			return nil, nil, errForbidden
		}
		p.connectBy = time.Now().Add(h.cfg.ConnectTimeout)
		ctx, done, err = h.router.Open(r.Context(), p.path.Token, p.info, wantsUpgrade(r)) //nolint:fatcontext // not nested
		if !errors.Is(err, port.ErrNotFound) {
			break
		}
	}
	return ctx, done, err
}

func (h *Handler) refuseRoute(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case r.Context().Err() != nil:
		panic(http.ErrAbortHandler) // the client is gone
	case errors.Is(err, errForbidden):
		h.refuse(w, r, http.StatusForbidden, "This backend has another host name.")
	case errors.Is(err, port.ErrNotFound):
		h.refuse(w, r, http.StatusGone, "This link leads nowhere: it has expired, or what it led to has ended.")
	case errors.Is(err, port.ErrUnavailable):
		w.Header().Set("Retry-After", "1")
		h.refuse(w, r, http.StatusServiceUnavailable, "It cannot be found out now where this link leads. Try again in a moment.")
	case errors.Is(err, context.DeadlineExceeded):
		h.refuse(w, r, http.StatusGatewayTimeout, "The backend did not start in time.")
	default:
		h.cfg.Log.Error("cannot route a request", "error", err)
		h.refuse(w, r, http.StatusInternalServerError, "Something went wrong in the proxy.")
	}
}

// refuse gives an answer of the proxy's own.
func (h *Handler) refuse(w http.ResponseWriter, r *http.Request, code int, text string) {
	h.mark(w.Header(), r, "")
	http.Error(w, fmt.Sprintf("%d: %s", code, text), code)
}

// RedirectHTTPS answers on the plain-HTTP port of an HTTPS cluster: the same
// host and target, over https. Only /ready is answered here as well: without a
// certificate there is no other port that could say so.
func (h *Handler) RedirectHTTPS() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, ok := route.ParsePath(r.RequestURI)
		if path.Original == "/ready" {
			h.ready(w, r)
			return
		}
		if !ok || r.Host == "" {
			h.refuse(w, r, http.StatusBadRequest, "The request names no host or no path.")
			return
		}
		host := r.Host // with this port, or whichever one led here
		if bare, _, err := net.SplitHostPort(host); err == nil {
			host = bare
			if strings.Contains(bare, ":") {
				host = "[" + bare + "]"
			}
		}
		if match, _ := route.MatchHost(host, h.cfg.Cluster); match == route.HostForeign {
			h.refuse(w, r, http.StatusForbidden, foreignHost)
			return
		}
		target := "https://" + host + path.Original
		if path.HasQuery {
			target += "?" + path.Query
		}
		h.mark(w.Header(), r, "")
		w.Header().Set("Location", target)
		w.WriteHeader(http.StatusMovedPermanently)
	})
}

// clientAddress is the address of the client, without its port.
func clientAddress(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr // not from a network listener
	}
	return host
}
