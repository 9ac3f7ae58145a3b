package route

import (
	"context"
	"maps"
	"slices"
	"time"
)

// Use is one open use of a backend.
type Use struct{ u *use }

type use struct {
	id       uint64
	token    string
	backend  string
	user     *string
	expires  time.Time // see cached
	session  uint64    // in which the token was last known to be good
	upgraded bool
	end      context.CancelCauseFunc
}

// usage is all use of one backend.
type usage struct {
	uses       map[uint64]*use
	plainUntil time.Time // the latest plain request counts until then
}

// uses are the open uses, by backend and by token. A backend stays from its
// first use on until it is found unused by Used, so that it is fresh once and
// not with each request; what it costs to keep it alive does not depend on how
// many connections it has.
type uses struct {
	useFor   time.Duration
	last     uint64
	open     int
	backends map[string]*usage
	byToken  map[string]map[uint64]*use
	fresh    []string // backends that came into use and were not told of yet
}

func newUses(useFor time.Duration) *uses {
	return &uses{useFor: useFor, backends: map[string]*usage{}, byToken: map[string]map[uint64]*use{}}
}

// Open notes a use of a route that was given out before; end will be called, at
// most once, when the use has to end. fresh is true when its backend came into
// use by it, see TakeFresh. ok is false when the route is void by now.
func (t *Table) Open(token string, r Route, upgraded bool, now time.Time, end context.CancelCauseFunc) (u Use, fresh, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, ok := t.routes.get(token)
	if !ok || !now.Before(c.until) || c.BackendID != r.BackendID || c.Address != r.Address {
		return Use{}, false, false
	}
	s := t.uses
	s.last++
	one := &use{id: s.last, token: token, backend: r.BackendID, user: c.User, expires: c.expires, session: c.session, upgraded: upgraded, end: end}
	return Use{one}, s.add(one, now), true
}

// Close ends a use. Harmless twice.
func (t *Table) Close(u Use) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.uses.remove(u.u)
}

// TakeFresh returns the backends that came into use since they were last told
// of, here or by Used.
func (t *Table) TakeFresh() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	fresh := t.uses.fresh
	t.uses.fresh = nil
	return fresh
}

// Used returns all backends that are in use, in order, and forgets the others.
func (t *Table) Used(now time.Time) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.uses.fresh = nil
	used := make([]string, 0, len(t.uses.backends))
	for backend, b := range t.uses.backends {
		if len(b.uses) == 0 && !now.Before(b.plainUntil) {
			delete(t.uses.backends, backend)
			continue
		}
		used = append(used, backend)
	}
	slices.Sort(used)
	return used
}

func (s *uses) add(u *use, now time.Time) (fresh bool) {
	b := s.backends[u.backend]
	if b == nil {
		b = &usage{uses: map[uint64]*use{}}
		s.backends[u.backend] = b
		s.fresh = append(s.fresh, u.backend)
		fresh = true
	}
	b.uses[u.id] = u
	s.open++
	if s.byToken[u.token] == nil {
		s.byToken[u.token] = map[uint64]*use{}
	}
	s.byToken[u.token][u.id] = u
	if !u.upgraded {
		b.plainUntil = now.Add(s.useFor)
	}
	return fresh
}

func (s *uses) remove(u *use) {
	b := s.backends[u.backend]
	if b == nil || b.uses[u.id] == nil {
		return
	}
	delete(b.uses, u.id)
	s.open--
	delete(s.byToken[u.token], u.id)
	if len(s.byToken[u.token]) == 0 {
		delete(s.byToken, u.token)
	}
}

func (s *uses) ofToken(token string) []*use {
	var of []*use
	for _, id := range slices.Sorted(maps.Keys(s.byToken[token])) {
		of = append(of, s.byToken[token][id])
	}
	return of
}

// revocable returns the tokens in use that belong to a user, in order.
func (s *uses) revocable() []string {
	var tokens []string
	for token, of := range s.byToken {
		for _, u := range of {
			if u.user != nil {
				tokens = append(tokens, token)
			}
			break // all uses of a token belong to the same user
		}
	}
	slices.Sort(tokens)
	return tokens
}
