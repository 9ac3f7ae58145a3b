package httpproxy

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"plane/system/protocol"
	"plane/system/route"
)

// passage is one request on its way; it travels in the request's context.
type passage struct {
	request   *http.Request // the client's
	path      route.Path
	info      protocol.RouteInfo
	from      string    // the client's address
	connectBy time.Time // no connection is begun or completed later
}

type passageKey struct{}

func passageOf(ctx context.Context) *passage { return ctx.Value(passageKey{}).(*passage) }

// newTransport makes the transport. It finds idle connections by the URL's host,
// see poolKey, and connects to the address of the request's passage.
func newTransport(cfg Config) *http.Transport {
	var dialer net.Dialer
	var http1 http.Protocols
	http1.SetHTTP1(true)
	return &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			p := passageOf(ctx)
			ctx, cancel := context.WithDeadline(ctx, p.connectBy)
			defer cancel()
			conn, err := dialer.DialContext(ctx, network, p.info.Address)
			if err != nil {
				return nil, &unreachableError{err}
			}
			return conn, nil
		},
		Protocols:             &http1,
		DisableCompression:    true, // bodies go through as they are
		MaxIdleConnsPerHost:   32,
		IdleConnTimeout:       30 * time.Second,
		ResponseHeaderTimeout: cfg.AnswerTimeout,
		ExpectContinueTimeout: time.Second,
	}
}

// unreachableError: no connection to the backend.
type unreachableError struct{ err error }

func (e *unreachableError) Error() string { return "connect to backend: " + e.err.Error() }
func (e *unreachableError) Unwrap() error { return e.err }

// poolKey stands for the host in a backend's URLs, so that the transport keeps
// connections apart by backend and address. It is never resolved.
func poolKey(backend, address string) (string, error) {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return "", fmt.Errorf("backend %s: address: %w", backend, err)
	}
	ip := a.Addr().As16()
	return fmt.Sprintf("%s.%s:%d", backend, hex.EncodeToString(ip[:]), a.Port()), nil
}

// backendURL leads to the backend of the passage; path and query go as they
// came.
func backendURL(p *passage) (*url.URL, error) {
	host, err := poolKey(p.info.BackendID, p.info.Address)
	if err != nil {
		return nil, err
	}
	u := &url.URL{Scheme: "http", Host: host, RawQuery: p.path.Query, ForceQuery: p.path.HasQuery}
	if !strings.HasPrefix(p.path.Rest, "//") {
		u.Opaque = p.path.Rest
		return u, nil
	}
	// An opaque // would be taken for a host.
	if u.Path, err = url.PathUnescape(p.path.Rest); err != nil {
		return nil, fmt.Errorf("path: %w", err)
	}
	u.RawPath = p.path.Rest
	return u, nil
}

func (h *Handler) newReverseProxy() *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Transport: roundTripper{h.transport},
		Rewrite:   rewrite,
		ModifyResponse: func(res *http.Response) error {
			p := passageOf(res.Request.Context())
			h.mark(res.Header, p.request, p.info.BackendID)
			return nil
		},
		ErrorHandler:  h.failed,
		FlushInterval: -1, // at once, whatever the answer looks like
		BufferPool:    buffers{},
		ErrorLog:      slog.NewLogLogger(h.cfg.Log.Handler(), slog.LevelDebug),
	}
}

// rewrite makes the backend's request of the client's. Host, method, body and
// the other headers are there already.
func rewrite(pr *httputil.ProxyRequest) {
	p := passageOf(pr.In.Context())
	proto := "http"
	if encrypted(pr.In) {
		proto = "https"
	}
	route.SetIdentity(pr.Out.Header, route.Identity{
		Backend: p.info.BackendID, Secret: p.info.SecretToken, User: p.info.User, UserData: p.info.UserData,
		Path: p.path.Original, Client: p.from, Proto: proto,
	})
	route.StripIdentity(pr.Out.Trailer)
	if pr.Out.Body != nil && len(pr.In.Trailer) > 0 {
		pr.Out.Body = &trailingBody{ReadCloser: pr.Out.Body, in: pr.In, out: pr.Out}
	}
}

// roundTripper leads requests to the backend of their passage. It stands behind
// the ReverseProxy because only here an error can be returned.
type roundTripper struct{ *http.Transport }

func (t roundTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	u, err := backendURL(passageOf(r.Context()))
	if err != nil {
		return nil, err
	}
	r.URL = u // of the ReverseProxy's own copy of the request
	return t.Transport.RoundTrip(r)
}

// trailingBody hands the trailers of a request on: they are known once its body
// has been read.
type trailingBody struct {
	io.ReadCloser
	in, out *http.Request
}

func (b *trailingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		for key, values := range b.in.Trailer {
			if _, declared := b.out.Trailer[key]; declared {
				b.out.Trailer[key] = values
			}
		}
	}
	return n, err
}

// failed answers a request that the backend did not.
func (h *Handler) failed(w http.ResponseWriter, r *http.Request, err error) {
	p := passageOf(r.Context())
	if r.Context().Err() != nil {
		if errors.Is(context.Cause(r.Context()), route.ErrRevoked) {
			h.refuse(w, r, http.StatusGone, "This link was revoked.")
			return
		}
		panic(http.ErrAbortHandler) // the client is gone, or the server stops
	}
	log := h.cfg.Log.With("backend", p.info.BackendID, "error", err)
	var timeout net.Error
	var unreachable *unreachableError
	switch {
	case errors.As(err, &unreachable):
		log.Warn("backend cannot be reached")
		h.refuse(w, r, http.StatusBadGateway, "The backend cannot be reached.")
	case errors.As(err, &timeout) && timeout.Timeout():
		log.Warn("backend does not answer")
		h.refuse(w, r, http.StatusGatewayTimeout, "The backend does not answer.")
	default:
		log.Warn("backend broke a request off")
		h.refuse(w, r, http.StatusBadGateway, "The backend broke the request off.")
	}
}

// writer prepares the answer's side for streams: the server is to go on reading
// the request while the answer is written, and bytes that a client sent behind
// an upgrade request are not to be lost.
func (h *Handler) writer(use context.Context, w http.ResponseWriter, r *http.Request) http.ResponseWriter {
	if wantsUpgrade(r) {
		return upgradeWriter{w, use}
	}
	if err := http.NewResponseController(w).EnableFullDuplex(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		h.cfg.Log.Debug("a request cannot stream both ways", "error", err)
	}
	return w
}

func wantsUpgrade(r *http.Request) bool {
	if !r.ProtoAtLeast(1, 1) || r.Header.Get("Upgrade") == "" {
		return false
	}
	for _, line := range r.Header["Connection"] {
		for option := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(option), "upgrade") {
				return true
			}
		}
	}
	return false
}
