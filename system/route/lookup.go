package route

import (
	"context"
	"errors"
	"slices"
	"time"
)

// ErrTooManyLookups refuses a lookup of a new token while too many are under
// way. Tokens that led somewhere before are not refused.
var ErrTooManyLookups = errors.New("too many lookups under way")

// lookup is one question to a controller. There is at most one for a token, and
// it is sent once in a session: so its answer is the answer to it, and not to an
// earlier one.
type lookup struct {
	token   string
	waiters []*Waiter
	keep    bool // wanted even when nobody waits: a refresh
	counts  bool // against MaxLookups
	sent    bool // in this session, and not answered
	sentAt  time.Time
	seen    uint64 // the last removal or revocation when it was sent
}

// Waiter is one task's interest in a lookup.
type Waiter struct {
	token  string
	wake   Waker
	done   bool
	route  Route
	absent bool
}

// Join waits for the answer on a token: the question is put, unless it is under
// way. wake is advanced when there is something to see: an answer, or a change of
// the session. Every Waiter has to Leave.
func (t *Table) Join(token string, wake Waker) (w *Waiter, ask bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.lookups[token]
	if l == nil {
		if l, err = t.newLookup(token); err != nil {
			return nil, false, err
		}
		ask = t.connected
	}
	w = &Waiter{token: token, wake: wake}
	l.waiters = append(l.waiters, w)
	return w, ask, nil
}

// Result returns what the waiter was told, once it was: where the token leads,
// or that it leads nowhere.
func (t *Table) Result(w *Waiter) (r Route, absent, done bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return w.route, w.absent, w.done
}

// Leave ends the waiter's interest.
func (t *Table) Leave(w *Waiter) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.lookups[w.token]
	if w.done || l == nil {
		return
	}
	l.waiters = slices.DeleteFunc(l.waiters, func(other *Waiter) bool { return other == w })
	t.dropIfUnwanted(l)
}

// TakeAsks returns the tokens that a controller is to be asked for now. Their
// questions count as sent at now, which the caller must have taken before.
func (t *Table) TakeAsks(now time.Time) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	tokens := make([]string, 0, len(t.asks))
	for _, token := range t.asks {
		if l := t.lookups[token]; l != nil && !l.sent {
			l.sent, l.sentAt, l.seen = true, now, t.voids.last
			tokens = append(tokens, token)
		}
	}
	t.asks = nil
	return tokens
}

// Answered takes a controller's word on a token; nil is that it leads nowhere.
// An answer that nobody asked for is skipped. One that is from before a removal
// or revocation that concerns it, or that comes too late to be used, is asked
// for again.
func (t *Table) Answered(token string, r *Route, now time.Time) Effects {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.lookups[token]
	if l == nil || !l.sent {
		return Effects{}
	}
	if r == nil {
		e := t.leadsNowhere(l, now)
		e.end = t.revokedUses(token, now)
		return e
	}
	if r.ExpiresIn != nil && *r.ExpiresIn <= 0 {
		return t.leadsNowhere(l, now) // for new uses; open ones may go on
	}
	c := cached{Route: *r, sent: l.sentAt, until: l.sentAt.Add(t.policy.usable()), session: t.session}
	if r.ExpiresIn != nil {
		// It counts from the answer, which was after the question.
		c.expires = l.sentAt.Add(t.policy.early(time.Duration(*r.ExpiresIn) * time.Millisecond))
		if c.expires.Before(c.until) {
			c.until = c.expires
		}
	}
	if !now.Before(c.until) || t.voids.since(l.seen, *r) {
		l.sent, l.keep = false, false
		if t.dropIfUnwanted(l) {
			return Effects{}
		}
		t.asks = append(t.asks, token)
		return Effects{Ask: true}
	}
	t.remember(token, c)
	for _, u := range t.uses.ofToken(token) {
		u.session = t.session
	}
	return t.conclude(l, *r, false)
}

func (t *Table) leadsNowhere(l *lookup, now time.Time) Effects {
	t.forget(l.token)
	t.absent.put(l.token, now.Add(t.policy.AbsentFor))
	return t.conclude(l, Route{}, true)
}

// revokedUses are the uses that end because their token is not known any more.
// That alone does not say that it was revoked: it can have expired, or its
// backend has begun to end, which closes its connections itself and in its own
// time. So it counts as revoked only when it belongs to a user (no other can be
// revoked), cannot have expired, its backend is not known to be gone, and it was
// not known to be good in this session: else the revocation would have been told.
func (t *Table) revokedUses(token string, now time.Time) []context.CancelCauseFunc {
	var end []context.CancelCauseFunc
	for _, u := range t.uses.ofToken(token) {
		expired := !u.expires.IsZero() && !now.Before(u.expires)
		if u.user != nil && u.session != t.session && !expired && !t.voids.wasRemoved(u.backend) {
			end = append(end, u.end)
		}
	}
	return end
}

func (t *Table) conclude(l *lookup, r Route, absent bool) Effects {
	var e Effects
	for _, w := range l.waiters {
		w.done, w.route, w.absent = true, r, absent
		e.wake = append(e.wake, w.wake)
	}
	t.drop(l)
	return e
}

// refresh puts a question that nobody waits for; it reports whether there is
// something to send.
func (t *Table) refresh(token string) bool {
	if !t.connected {
		return false // after a reconnect everything is asked anew in any case
	}
	if l := t.lookups[token]; l != nil {
		l.keep = true
		return false
	}
	l, err := t.newLookup(token)
	if err != nil {
		return false // only a token that is neither cached nor used can be refused
	}
	l.keep = true
	return true
}

func (t *Table) newLookup(token string) (*lookup, error) {
	_, cached := t.routes.get(token)
	l := &lookup{token: token, counts: !cached && len(t.uses.byToken[token]) == 0}
	if l.counts {
		if t.unknown >= t.policy.MaxLookups {
			return nil, ErrTooManyLookups
		}
		t.unknown++
	}
	t.lookups[token] = l
	if t.connected {
		t.asks = append(t.asks, token)
	}
	return l, nil
}

// dropIfUnwanted forgets a question that nobody wants and that was not sent. One
// that was sent stays until it is answered, see lookup.
func (t *Table) dropIfUnwanted(l *lookup) bool {
	if len(l.waiters) > 0 || l.keep || l.sent {
		return false
	}
	t.drop(l)
	return true
}

func (t *Table) drop(l *lookup) {
	delete(t.lookups, l.token)
	if l.counts {
		t.unknown--
	}
}
