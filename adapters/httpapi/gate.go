package httpapi

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"strings"
	"sync/atomic"

	"plane/system/protocol"
)

// Gate is what a controller serves while its database is not there yet: it is
// not healthy, and has no other answer than to try again, until Open puts the
// real surface in its place. It may be used from any number of goroutines.
type Gate struct{ surface atomic.Pointer[http.Handler] }

// Open lets requests through to the surface from now on.
func (g *Gate) Open(surface http.Handler) { g.surface.Store(&surface) }

// ServeHTTP implements http.Handler.
func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if surface := g.surface.Load(); surface != nil {
		(*surface).ServeHTTP(w, r)
		return
	}
	status := http.StatusServiceUnavailable
	if r.URL.Path == "/pub/health" {
		status = http.StatusInternalServerError
	}
	body, err := json.Marshal(protocol.APIError{
		ID: strings.ToLower(rand.Text()[:14]), Kind: protocol.DatabaseError, Message: "the controller waits for its database; its log says why",
	})
	if err != nil { // an APIError is three strings
		panic(err)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Retry-After", "1")
	w.WriteHeader(status)
	_, _ = w.Write(body) // fails only when the client is gone
}
