package httpproxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limits are what clients may do beyond what a handler sees. None of them
// bounds how long a request's body, its answer or an upgraded connection lasts.
type Limits struct {
	// Header is the time for a TLS handshake, and again for a request's header. Over
	// HTTP/2 it is Silence and Answer that end half a header: a connection with one
	// cannot say meanwhile that it is alive.
	Header time.Duration
	// Idle is the time between two requests of a connection.
	Idle time.Duration
	// HeaderBytes is the size of a request's header.
	HeaderBytes int
	// Streams is how many requests an HTTP/2 connection may have at once.
	Streams int
	// Resets is how many requests of an HTTP/2 connection may be cancelled in a
	// burst, and ResetsPerSecond how many for long. A connection with more is
	// closed: each costs the proxy and a backend far more than the client.
	Resets          int
	ResetsPerSecond float64
	// Silence is how long an HTTP/2 connection may say nothing until it is asked
	// whether it is alive, and Answer the time that it has to say so.
	Silence, Answer time.Duration
	// Write is the time in which any connection, an upgraded one too, has to take
	// some bytes if there are any for it.
	Write time.Duration
}

// DefaultLimits are generous to browsers and to slow networks.
func DefaultLimits() Limits {
	return Limits{
		Header: 10 * time.Second, Idle: 2 * time.Minute, HeaderBytes: 64 << 10,
		Streams: 250, Resets: 500, ResetsPerSecond: 20,
		Silence: 45 * time.Second, Answer: 15 * time.Second, Write: time.Minute,
	}
}

// Server takes the requests of listeners to a handler.
type Server struct {
	Handler http.Handler
	// TLS is how to serve TLS, see TLSConfig; nil: plain HTTP.
	TLS *tls.Config
	// Drain is how long open requests and connections may go on once the server
	// is to stop.
	Drain  time.Duration
	Limits Limits
	Log    *slog.Logger
}

// errStopping ends what is still open when a server stops.
var errStopping = errors.New("server is stopping")

// Serve answers the listener's requests until ctx ends. Then it accepts nothing
// more, gives what is under way the time Drain, upgraded connections too,
// closes the rest, and returns nil. It returns an error when the listener
// breaks.
func (s Server) Serve(ctx context.Context, listener net.Listener) error {
	base, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(errStopping)
	var open sync.WaitGroup // with upgraded connections, which http.Server forgets
	server := s.server(base, &open)
	broken := make(chan error, 1)
	listener = takers{listener, s.Limits.Write}
	go func() {
		if s.TLS != nil {
			broken <- server.ServeTLS(listener, "", "")
		} else {
			broken <- server.Serve(listener)
		}
	}()
	select {
	case err := <-broken:
		return fmt.Errorf("serve %s: %w", listener.Addr(), errors.Join(err, server.Close()))
	case <-ctx.Done():
	}
	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.Drain)
	defer cancel()
	err := server.Shutdown(patience)
	if err == nil && waited(patience, &open) {
		return nil
	}
	stop(errStopping)
	if err := server.Close(); err != nil {
		s.Log.Debug("closing a connection failed", "error", err)
	}
	open.Wait()
	return nil
}

// server makes the http.Server; open counts the requests that it handles, whose
// contexts are all below base.
func (s Server) server(base context.Context, open *sync.WaitGroup) *http.Server {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(s.TLS != nil)
	return &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			open.Add(1)
			defer open.Done()
			defer s.countReset(base, r)
			s.Handler.ServeHTTP(w, r)
		}),
		TLSConfig:         s.TLS,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       s.withOrigin,
		ReadHeaderTimeout: s.Limits.Header,
		IdleTimeout:       s.Limits.Idle,
		MaxHeaderBytes:    s.Limits.HeaderBytes,
		Protocols:         &protocols,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: s.Limits.Streams,
			SendPingTimeout:      s.Limits.Silence,
			PingTimeout:          s.Limits.Answer,
		},
		ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
}

// origin is the connection that a request came by.
type origin struct {
	conn   net.Conn
	resets *rate.Limiter
}

type originKey struct{}

func (s Server) withOrigin(ctx context.Context, conn net.Conn) context.Context {
	encrypted, ok := conn.(*tls.Conn)
	if !ok {
		return ctx // HTTP/1.1: a client that cancels loses its connection
	}
	resets := rate.NewLimiter(rate.Limit(s.Limits.ResetsPerSecond), s.Limits.Resets)
	return context.WithValue(ctx, originKey{}, &origin{encrypted.NetConn(), resets})
}

// encrypted reports whether the request came over TLS. In HTTP/2 its TLS field
// only says what the client calls the scheme.
func encrypted(r *http.Request) bool {
	return r.TLS != nil || r.Context().Value(originKey{}) != nil
}

// countReset closes the connection of a request that its client has cancelled,
// like too many before it.
func (s Server) countReset(base context.Context, r *http.Request) {
	if r.ProtoMajor < 2 || r.Context().Err() == nil || base.Err() != nil {
		return
	}
	o, ok := r.Context().Value(originKey{}).(*origin)
	if !ok || o.resets.Allow() {
		return
	}
	if err := o.conn.Close(); err == nil { // and not one that had gone before
		s.Log.Info("closed a connection whose client cancels too many requests", "client", clientAddress(r))
	}
}

// waited reports whether all were done before ctx ended.
func waited(ctx context.Context, all *sync.WaitGroup) bool {
	done := make(chan struct{})
	go func() {
		all.Wait()
		close(done)
	}()
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}
