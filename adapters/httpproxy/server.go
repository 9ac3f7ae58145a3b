package httpproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Limits of what clients may do before a request is understood.
const (
	MaxHeaderBytes = 64 << 10
	HeaderTimeout  = 10 * time.Second
	IdleTimeout    = 2 * time.Minute // of a connection between two requests
)

// errStopping ends what is still open when a server stops.
var errStopping = errors.New("server is stopping")

// Serve answers the listener's requests with the handler until ctx ends. Then it
// accepts nothing more, gives what is under way the time drain, upgraded
// connections too, closes the rest, and returns nil. It returns an error when
// the listener breaks.
func Serve(ctx context.Context, listener net.Listener, handler http.Handler, drain time.Duration, log *slog.Logger) error {
	base, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(errStopping)
	var open sync.WaitGroup // with upgraded connections, which http.Server forgets
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			open.Add(1)
			defer open.Done()
			handler.ServeHTTP(w, r)
		}),
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: HeaderTimeout,
		IdleTimeout:       IdleTimeout,
		MaxHeaderBytes:    MaxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	broken := make(chan error, 1)
	go func() { broken <- server.Serve(listener) }()
	select {
	case err := <-broken:
		return fmt.Errorf("serve %s: %w", listener.Addr(), errors.Join(err, server.Close()))
	case <-ctx.Done():
	}
	patience, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	err := server.Shutdown(patience)
	if err == nil && waited(patience, &open) {
		return nil
	}
	stop(errStopping)
	if err := server.Close(); err != nil {
		log.Debug("closing a connection failed", "error", err)
	}
	open.Wait()
	return nil
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
