package route

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// Route is where a token leads; the fields are those of protocol.RouteInfo.
type Route struct {
	BackendID   string
	Address     string
	SecretToken string
	Cluster     string
	User        *string
	UserData    json.RawMessage
	Subdomain   *string
	ExpiresIn   *int64 // milliseconds
}

// Policy is how long and how much a Table remembers.
type Policy struct {
	// TrustFor is how long after a question was sent its answer may lead a
	// request to an address, in real time. It must not be longer than the time
	// for which a drone keeps a port from other backends.
	TrustFor time.Duration
	// Drift is how far the proxy's clock may be off, as a fraction.
	Drift float64
	// ConnectWithin is how long a request may take from being given a route to
	// being connected to the backend; TrustFor includes it.
	ConnectWithin time.Duration
	// RefreshAfter is the age from which a route that is used is asked anew,
	// beside its use.
	RefreshAfter time.Duration
	// AbsentFor is how long a token that leads nowhere is not asked again.
	AbsentFor time.Duration
	// UseFor is how long a plain request counts as a use of its backend, and
	// how often used backends are kept alive.
	UseFor time.Duration

	MaxRoutes  int // remembered routes
	MaxAbsent  int // remembered tokens that lead nowhere
	MaxLookups int // questions under way for tokens that never led anywhere yet
	MaxVoids   int // remembered removals and revocations, of each
}

// DefaultPolicy trusts a route for 30 s.
func DefaultPolicy() Policy {
	return Policy{
		TrustFor: 30 * time.Second, Drift: 0.02, ConnectWithin: 5 * time.Second,
		RefreshAfter: 10 * time.Second, AbsentFor: 10 * time.Second, UseFor: 7 * time.Second,
		MaxRoutes: 1 << 16, MaxAbsent: 1 << 16, MaxLookups: 1 << 13, MaxVoids: 1 << 14,
	}
}

// Validate refuses a policy under which no route could ever be used.
func (p Policy) Validate() error {
	if p.RefreshAfter <= 0 || p.usable() <= p.RefreshAfter {
		return fmt.Errorf("route policy: a route is usable for %v (trust %v, less drift and %v to connect), which must be longer than the %v after which it is refreshed",
			p.usable(), p.TrustFor, p.ConnectWithin, p.RefreshAfter)
	}
	if p.UseFor <= 0 || p.AbsentFor < 0 || min(p.MaxRoutes, p.MaxAbsent, p.MaxLookups, p.MaxVoids) < 1 {
		return errors.New("route policy: every time and every limit must be positive")
	}
	return nil
}

// usable is how long after its question was sent an answer may be given out, on
// the proxy's clock.
func (p Policy) usable() time.Duration { return p.early(p.TrustFor) - p.ConnectWithin }

// early shortens a real time so that a slow clock does not overrun it.
func (p Policy) early(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (1 - p.Drift))
}

// ErrRevoked ends the uses of a token that was revoked.
var ErrRevoked = errors.New("token revoked")

// Effects is what a change of the table makes necessary outside of it.
type Effects struct {
	wake []Waker
	end  []context.CancelCauseFunc
	// Ask says that there are questions to be sent, see Table.TakeAsks.
	Ask bool
}

// Waker wakes the task that waits in a lookup.
type Waker interface{ Advance() }

// Do wakes and ends what has to be. It must not be called under a lock.
func (e Effects) Do() {
	for _, end := range e.end {
		end(ErrRevoked)
	}
	for _, w := range e.wake {
		w.Advance()
	}
}

// Table is what a proxy knows; see the package's comment.
type Table struct {
	policy Policy

	mu        sync.Mutex
	routes    *lru[cached]
	byBackend map[string]map[string]struct{} // the tokens in routes
	absent    *lru[time.Time]                // until when
	voids     *voids
	lookups   map[string]*lookup
	unknown   int      // lookups that count against MaxLookups
	asks      []string // tokens of lookups to be sent, in order
	connected bool
	lostAt    time.Time // when not connected: since when
	session   uint64    // of how many
	uses      *uses
}

// cached is a route with the time in which it may be used.
type cached struct {
	Route
	sent    time.Time // when its question was
	until   time.Time // no new use from then on
	expires time.Time // the earliest moment at which the token can expire; zero: never
	session uint64
}

// NewTable makes an empty table of a proxy that is not connected.
func NewTable(policy Policy) *Table {
	t := &Table{policy: policy, byBackend: map[string]map[string]struct{}{}, lookups: map[string]*lookup{}}
	t.routes = newLRU(policy.MaxRoutes, t.unindex)
	t.absent = newLRU(policy.MaxAbsent, func(string, time.Time) {})
	t.voids = newVoids(policy.MaxVoids)
	t.uses = newUses(policy.UseFor)
	return t
}

// Known is what a table can say of a token.
type Known int

// A token is not known well enough, leads somewhere, or leads nowhere.
const (
	Unknown Known = iota
	Present
	Absent
)

// Find says where the token leads, if that is known. ask is true when the
// answer has become old enough for a new question, see TakeAsks.
func (t *Table) Find(token string, now time.Time) (r Route, known Known, ask bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if c, ok := t.routes.get(token); ok {
		if !now.Before(c.until) {
			return Route{}, Unknown, false
		}
		if c.session != t.session || !now.Before(c.sent.Add(t.policy.RefreshAfter)) {
			ask = t.refresh(token)
		}
		return c.Route, Present, ask
	}
	if until, ok := t.absent.get(token); ok {
		if now.Before(until) {
			return Route{}, Absent, false
		}
		t.absent.remove(token)
	}
	return Route{}, Unknown, false
}

func (t *Table) remember(token string, c cached) {
	t.absent.remove(token)
	t.forget(token)
	t.routes.put(token, c)
	tokens := t.byBackend[c.BackendID]
	if tokens == nil {
		tokens = map[string]struct{}{}
		t.byBackend[c.BackendID] = tokens
	}
	tokens[token] = struct{}{}
}

func (t *Table) forget(token string) {
	if c, ok := t.routes.get(token); ok {
		t.routes.remove(token)
		t.unindex(token, c)
	}
}

func (t *Table) unindex(token string, c cached) {
	tokens := t.byBackend[c.BackendID]
	delete(tokens, token)
	if len(tokens) == 0 {
		delete(t.byBackend, c.BackendID)
	}
}

// Removed takes all routes to the backend out. Its open uses go on: the backend
// ends them when it ends.
func (t *Table) Removed(backend string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.voids.remove(backend)
	for token := range t.byBackend[backend] {
		t.routes.remove(token)
	}
	delete(t.byBackend, backend)
}

// Revoked takes the user's routes to the backend out and ends the uses.
func (t *Table) Revoked(backend, user string) Effects {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.voids.revoke(backend, user)
	for token := range maps.Clone(t.byBackend[backend]) {
		if c, ok := t.routes.get(token); ok && c.User != nil && *c.User == user {
			t.forget(token)
		}
	}
	var e Effects
	if b := t.uses.backends[backend]; b != nil {
		for _, id := range slices.Sorted(maps.Keys(b.uses)) {
			if u := b.uses[id]; u.user != nil && *u.user == user {
				e.end = append(e.end, u.end)
			}
		}
	}
	return e
}

// Connected notes that a session with a controller has begun. What the table
// knows may have changed without its hearing of it: everything is to be asked
// anew when it is next used, and at once where a connection is open that may
// have been revoked.
func (t *Table) Connected() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.connected = true
	t.session++
	t.asks = slices.Sorted(maps.Keys(t.lookups))
	for _, token := range t.uses.revocable() {
		t.refresh(token)
	}
}

// Disconnected notes that the session is over. Questions under way are void;
// those that somebody waits for will be sent again.
func (t *Table) Disconnected(now time.Time) Effects {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.connected, t.lostAt, t.asks = false, now, nil
	var e Effects
	for _, token := range slices.Sorted(maps.Keys(t.lookups)) {
		l := t.lookups[token]
		l.sent, l.keep = false, false
		for _, w := range l.waiters {
			e.wake = append(e.wake, w.wake)
		}
		t.dropIfUnwanted(l)
	}
	return e
}

// Session reports whether a controller is connected, and if not, since when.
func (t *Table) Session() (connected bool, lostAt time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.connected, t.lostAt
}

// Size is how much a table holds.
type Size struct{ Routes, Absent, Lookups, Uses, Backends int }

// Size returns how much is held now.
func (t *Table) Size() Size {
	t.mu.Lock()
	defer t.mu.Unlock()
	return Size{t.routes.len(), t.absent.len(), len(t.lookups), t.uses.open, len(t.uses.backends)}
}
