package check

import (
	"maps"
	"slices"
	"strings"
	"time"

	"plane/sim/fake"
	"plane/system/name"
	"plane/system/port"
)

// Token is what a client got from a connect.
type Token struct {
	Token   string
	Backend string
	User    string
	Issued  time.Time // true time of the answer

	RevokeAsked time.Time // true time; zero: never
	Revoked     time.Time // true time of the revoke's answer; zero: never
}

// Use is an open upgraded connection.
type Use struct {
	Token     *Token
	Proxy     string
	Since     time.Time
	container *fake.Container
	gone      port.EventCount
	unused    time.Duration // for how long nobody had used the backend before
}

// Times that G8 and the connection token promise, on clocks that may be 2 % off.
const (
	revokeSoon   = time.Second + 100*time.Millisecond
	revokeCutOff = 30*time.Second*102/98 + 500*time.Millisecond
	tokenLife    = time.Hour*102/98 + time.Minute
)

// Issue notes a token that a client was given.
func (b *Book) Issue(token, backendID, user string) *Token {
	t := b.tokens[token]
	if t == nil {
		t = &Token{Token: token, Backend: backendID, User: user, Issued: b.env.Now()}
		b.tokens[token] = t
	}
	return t
}

// Arrive is called when a request has come through a proxy to a container.
// soundSince is since when that proxy has been in good touch with a controller
// and the store: zero when it is not. sent is when the proxy let it pass.
func (b *Book) Arrive(t *Token, proxy string, c *fake.Container, sent, soundSince time.Time) {
	if c.BackendID != t.Backend { // G7
		b.Violate("G7", "proxy %s leads a request for %s to %s at %s", proxy, t.Backend, c.BackendID, c.Address)
	}
	if !t.Revoked.IsZero() { // G8
		limit := revokeCutOff
		if !soundSince.IsZero() && soundSince.Before(t.RevokeAsked) {
			limit = revokeSoon
		}
		if late := sent.Sub(t.Revoked); late > limit {
			b.Violate("G8", "proxy %s lets a request with a token of %s for %s pass, %v after the revoke was answered", proxy, t.User, t.Backend, late)
		}
	}
	if age := sent.Sub(t.Issued); age > tokenLife {
		b.Violate("G8", "proxy %s lets a request with a token of %s pass that is %v old", proxy, t.Backend, age)
	}
}

// Used notes a plain request that came to a container.
func (b *Book) Used(c *fake.Container) { b.usedUntil[c.BackendID] = b.env.Now() }

// Open notes an upgraded connection to a container. The event count advances
// when that ends.
func (b *Book) Open(t *Token, proxy string, c *fake.Container, gone port.EventCount) *Use {
	u := &Use{Token: t, Proxy: proxy, Since: b.env.Now(), container: c, gone: gone, unused: b.unusedFor(c)}
	b.uses = append(b.uses, u)
	return u
}

// unusedFor is how long nobody has used a container that runs.
func (b *Book) unusedFor(c *fake.Container) time.Duration {
	for _, u := range b.uses {
		if u.container == c {
			return 0
		}
	}
	return b.env.Now().Sub(later(c.StartedAt, b.usedUntil[c.BackendID]))
}

// Closed notes that a connection is over. closedByPlane is true when the proxy
// ended it: that is for revoked users and ended backends only (G9). A revoke is
// told to proxies by backend and user, so that one which comes late can close
// what the user has opened since.
func (b *Book) Closed(u *Use, closedByPlane bool) {
	b.uses = slices.DeleteFunc(b.uses, func(other *Use) bool { return other == u })
	b.usedUntil[u.container.BackendID] = b.env.Now()
	revoked := slices.ContainsFunc(b.TokensOf(u.Token.Backend, u.Token.User), func(t *Token) bool { return !t.RevokeAsked.IsZero() })
	if closedByPlane && u.container.Running && !revoked {
		row, err := b.ledger.Backend(u.Token.Backend)
		if err == nil && row.State.Status.Alive() {
			b.Violate("G9", "proxy %s closes a connection to %s, which is %s", u.Proxy, u.Token.Backend, row.State.Status)
		}
	}
}

// ProxyGone forgets the connections of a proxy that crashed.
func (b *Book) ProxyGone(proxy string) {
	b.uses = slices.DeleteFunc(b.uses, func(u *Use) bool { return u.Proxy == proxy })
}

// LookForRevoked finds open connections that a revoke should have closed.
func (b *Book) LookForRevoked(soundSince func(proxy string) time.Time) {
	now := b.env.Now()
	for _, u := range b.uses {
		since := soundSince(u.Proxy)
		if u.Token.Revoked.IsZero() || since.IsZero() {
			continue
		}
		limit := u.Token.Revoked.Add(revokeSoon)
		if since.After(u.Token.RevokeAsked) { // it heard of it late
			limit = later(u.Token.Revoked, since).Add(revokeCutOff)
		}
		if now.After(limit) {
			b.Violate("G8", "proxy %s keeps a connection of %s to %s open, %v after the revoke was answered", u.Proxy, u.Token.User, u.Token.Backend, now.Sub(u.Token.Revoked))
			u.Token.Revoked = time.Time{}
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// SweptIdle is called when the store has asked for the end of a backend because
// it was idle for its limit (G9). That is right as long as it was: a connection
// which was opened after the limit had passed may come too late, but not one
// that was there before, nor one that the sweep had time to hear of.
// proxySilent tells for how long the store has not heard of a proxy.
func (b *Book) SweptIdle(backendID string, limit time.Duration, proxySilent func(proxy string) time.Duration) {
	for _, u := range b.uses {
		if u.Token.Backend != backendID || !u.container.Running || proxySilent(u.Proxy) >= proxyGone {
			continue
		}
		open := b.env.Now().Sub(u.Since)
		wasIdle := u.unused >= limit*98/100
		if open > sweepDelay || open > keepAliveDelay && !wasIdle {
			b.Violate("G9", "backend %s is swept as idle; proxy %s has had a connection to it open for %v, and it had been unused for %v of %v before", backendID, u.Proxy, open, u.unused, limit)
			return
		}
	}
}

const (
	keepAliveDelay = 10 * time.Second  // for the first keep-alive to come through
	sweepDelay     = 25 * time.Second  // and for a sweep, which may be 15 s late, to see it
	proxyGone      = 105 * time.Second // a proxy silent for about 120 s counts as dead
)

// Token returns what is known of a token, or nil.
func (b *Book) Token(token string) *Token { return b.tokens[token] }

// TokensOf returns the tokens that a user was given for a backend, in order.
func (b *Book) TokensOf(backendID, user string) []*Token {
	var all []*Token
	for _, text := range slices.Sorted(maps.Keys(b.tokens)) {
		if t := b.tokens[text]; t.Backend == backendID && t.User == user && !t.Static() {
			all = append(all, t)
		}
	}
	return all
}

// Static reports whether the token belongs to its backend and to no user.
func (t *Token) Static() bool { return strings.HasPrefix(t.Token, name.StaticPrefix) }
