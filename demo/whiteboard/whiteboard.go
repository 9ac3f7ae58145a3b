// Package whiteboard is Plane's demo backend: a whiteboard that everyone with
// the link draws on together.
//
// It owns one board, which lives in this process and nowhere else: the
// drawing ends with the process. That is the point of the demo, a process per
// key. The page shows the key, the backend and the fencing token it was
// started with, and who is there.
//
// It promises that everyone on the board ends up with the same strokes in the
// same order, whatever was drawn at once: the hub puts everything in one
// order, and the page takes over what the hub says. Memory, message sizes,
// queues and the number of people are bounded. A browser that does not keep
// up is disconnected, and comes back to a fresh copy of the board; it never
// holds the others up.
//
// It needs nothing but its own binary: page, style and script are embedded,
// and every URL in them is relative, because the proxy serves the board
// behind a path of its own. The identity in x-verified-username is believed,
// since only the proxy can reach a backend.
//
// A handler may be called from any number of goroutines at once.
package whiteboard

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path"
	"strings"
	"time"
)

//go:embed static
var embedded embed.FS

const (
	headerTimeout   = 10 * time.Second
	idleTimeout     = 2 * time.Minute
	shutdownTimeout = 3 * time.Second
)

// facts are what the board says about the process it runs in.
type facts struct {
	Key          string
	Backend      string
	FencingToken string
}

// board is the HTTP face of one hub.
type board struct {
	hub   *hub
	facts facts
	mux   http.Handler
}

// Handler serves a new, empty board. It reads the variables that Plane sets in
// a backend through env, which is os.Getenv outside of tests.
func Handler(env func(string) string) http.Handler {
	return newBoard(env)
}

// Serve serves a new board on addr until ctx ends, then tells everyone on it
// to go away and returns nil. An empty addr means the port that Plane has
// asked for in PORT, on every address, or 8080.
func Serve(ctx context.Context, addr string) error {
	if addr == "" {
		addr = net.JoinHostPort("", or(os.Getenv("PORT"), "8080"))
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listen for the whiteboard: %w", err)
	}
	return serve(ctx, ln, newBoard(os.Getenv))
}

func serve(ctx context.Context, ln net.Listener, b *board) error {
	srv := &http.Server{Handler: b, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout}
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(ln) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve the whiteboard: %w", err)
	case <-ctx.Done():
	}
	// The server does not know the sockets any more, the hub does.
	b.hub.close()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := srv.Shutdown(grace); err != nil {
		_ = srv.Close()
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the whiteboard: %w", err)
	}
	return nil
}

func newBoard(env func(string) string) *board {
	b := &board{
		hub: newHub(defaultLimits),
		facts: facts{
			Key:          env("SESSION_BACKEND_KEY"),
			Backend:      env("SESSION_BACKEND_ID"),
			FencingToken: env("SESSION_BACKEND_FENCING_TOKEN"),
		},
	}
	static, err := fs.Sub(embedded, "static")
	if err != nil {
		panic(err) // the directory is compiled in
	}
	files := http.FileServerFS(static)
	page := render(static, b.facts)

	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		if to := missingSlash(r); to != "" {
			w.Header().Set("Location", to)
			w.WriteHeader(http.StatusPermanentRedirect)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(page))
	})
	mux.HandleFunc("GET /ws", b.serveSocket)
	for _, pattern := range []string{"GET /{file}", "GET /js/{file}"} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if r.PathValue("file") == "index.html" {
				http.NotFound(w, r)
				return
			}
			w.Header().Set("Cache-Control", "no-cache")
			files.ServeHTTP(w, r)
		})
	}
	b.mux = mux
	if token := env("SESSION_BACKEND_STATIC_TOKEN"); token != "" {
		// The proxy leaves a static token in the path. Readiness probes come
		// without it.
		b.mux = stripOptional("/"+token, mux)
	}
	return b
}

func (b *board) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; "+
		"img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer") // the path holds the token
	b.mux.ServeHTTP(w, r)
}

// missingSlash says where the page of r really is when it was asked for
// without the slash that its relative URLs need: the proxy takes "/TOKEN" for
// "/TOKEN/" and hands either on as "/". It is "" when there is nothing to do.
func missingSlash(r *http.Request) string {
	original := r.Header.Get("X-Verified-Path")
	if original == "" || strings.HasSuffix(original, "/") {
		return ""
	}
	return "./" + path.Base(original) + "/"
}

func stripOptional(prefix string, next http.Handler) http.Handler {
	stripped := http.StripPrefix(prefix, next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == prefix:
			w.Header().Set("Location", "./"+path.Base(prefix)+"/")
			w.WriteHeader(http.StatusPermanentRedirect)
		case strings.HasPrefix(r.URL.Path, prefix+"/"):
			stripped.ServeHTTP(w, r)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func render(static fs.FS, f facts) []byte {
	page := template.Must(template.ParseFS(static, "index.html"))
	var out bytes.Buffer
	if err := page.Execute(&out, f); err != nil {
		panic(err) // the template is compiled in
	}
	return out.Bytes()
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
