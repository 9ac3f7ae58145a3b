// Package certificate keeps a proxy in possession of a valid certificate.
//
// A Keeper owns the certificate that is served and what is on disk. It promises
// that a certificate which is kept and good is served from the start, and none
// ordered; that one is renewed after two thirds of its life, whatever that is,
// or when its authority says so, or at once when it is to be ordered by other
// terms than those of the one that is kept; that while it has a valid one it never
// serves an expired one; and that it leaves an authority alone that asks for it, and
// others longer and longer while their orders fail. How long it is to leave it
// alone is kept through restarts. What is obtained is served even if it cannot be
// saved; saving is tried again.
//
// Run is called once; Current may be called from any task at any time. When the
// authority, the controller or the DNS is away, orders fail and are tried again
// for ever; Current says why there is no certificate, if there is none.
package certificate

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"plane/system/port"
)

// Config is what a Keeper is told at its start.
type Config struct {
	Names []string // that the certificate has to be for
	Terms port.Terms
	// OrderTimeout is how long one order may take, all its challenges included.
	OrderTimeout time.Duration
	Log          *slog.Logger
}

// DefaultOrderTimeout leaves room for an authority that looks for challenges
// several times, minutes apart, and for a controller that is away meanwhile.
const DefaultOrderTimeout = 10 * time.Minute

// suggestTimeout is how long asking when to renew may take.
const suggestTimeout = time.Minute

// World is what a Keeper works with.
type World struct {
	Clock      port.Clock
	Wall       port.WallClock
	Rand       port.Rand
	Issuer     port.Issuer
	Challenges port.Challenges
	Store      port.CertStore
}

// Keeper is described above. Make it with New, then Run it.
type Keeper struct {
	World
	cfg   Config
	state atomic.Pointer[state] // what Current tells

	// These belong to Run.
	held     *holding // nil: no certificate
	unsaved  bool
	failures int       // orders that failed in a row
	retryAt  time.Time // after a failure; zero: at once
	problem  error     // why the last order failed
}

// holding is a certificate that is at hand.
type holding struct {
	port.Certificate
	reckoning
	suggested time.Time // when the authority would renew it, on its clock; zero: it does not say
	calmUntil time.Time // on the own clock: not to follow that before
	askAt     time.Time // on the own clock; zero: not any more
}

type state struct {
	held    *holding
	problem error
	retryAt time.Time
}

// New makes a Keeper, which does nothing until Run.
func New(cfg Config, w World) (*Keeper, error) {
	if len(cfg.Names) == 0 || cfg.OrderTimeout <= 0 {
		return nil, errors.New("certificate: names and an order's time limit are needed")
	}
	k := &Keeper{World: w, cfg: cfg}
	k.state.Store(&state{problem: words("it is not loaded yet")})
	return k, nil
}

// Current returns the certificate to serve (empty: there is none), and says why
// there is none or, once it has expired, why there is no better one. The error's
// text is for everybody to read, the errors in it are not. Does not block.
func (k *Keeper) Current() (port.Certificate, error) {
	s := k.state.Load()
	switch {
	case s.held == nil:
		return port.Certificate{}, k.told(s, "no certificate yet")
	case k.expired(s.held):
		return s.held.Certificate, k.told(s, "the certificate expired at "+s.held.NotAfter.UTC().Format(time.RFC3339))
	}
	return s.held.Certificate, nil
}

// told is what is wrong, for everybody to read.
func (k *Keeper) told(s *state, what string) error {
	if s.problem == nil {
		return words(what)
	}
	text := what + ": " + reason(s.problem)
	if wait := s.retryAt.Sub(k.Clock.Now()); wait > 0 {
		text += "; the next try is in " + wait.Round(time.Second).String()
	}
	return &toldError{text, s.problem}
}

func (k *Keeper) now(h *holding) time.Time { return h.at(k.Clock.Now(), k.Wall.Wall()) }

func (k *Keeper) expired(h *holding) bool { return !k.now(h).Before(h.NotAfter) }

// Run keeps the certificate until the context ends; it returns the context's
// cause.
func (k *Keeper) Run(ctx context.Context) error {
	k.load(ctx)
	for ctx.Err() == nil {
		wait := max(k.look(ctx), leastLook)
		if err := k.Clock.Sleep(ctx, wait); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// leastLook is the least time between two looks at the clocks. They do not run
// equally fast, so that a time on one of them never comes by waiting for it on
// the other, but for a moment less each time.
const leastLook = 100 * time.Millisecond

// publish makes what has changed known to Current.
func (k *Keeper) publish() { k.state.Store(&state{k.held, k.problem, k.retryAt}) }

// loadTries is how often a store that can neither give a certificate nor say
// that there is none is asked, a second apart.
const loadTries = 5

// load takes up what is kept.
func (k *Keeper) load(ctx context.Context) {
	c, err := k.Store.Load(ctx)
	for range loadTries - 1 {
		if err == nil || errors.Is(err, port.ErrNotFound) || errors.Is(err, port.ErrBroken) || k.Clock.Sleep(ctx, time.Second) != nil {
			break
		}
		c, err = k.Store.Load(ctx)
	}
	name, lacks := missing(c, k.cfg.Names)
	switch {
	case ctx.Err() != nil:
		return
	case errors.Is(err, port.ErrNotFound):
		k.cfg.Log.Info("no certificate is kept; one will be ordered")
	case err != nil:
		k.cfg.Log.Warn("the certificate that is kept cannot be used; another one will be ordered", "error", err)
	case lacks:
		k.cfg.Log.Warn("the certificate that is kept is for other names; another one will be ordered", "missing", name, "names", c.Names)
	default:
		now := k.Clock.Now()
		k.held = &holding{Certificate: c, reckoning: kept(c.Life, now, k.Wall.Wall()), askAt: now}
		if k.outdated() {
			k.held.askAt = time.Time{}
			k.cfg.Log.Info("the certificate that is kept was ordered by other terms; it is served until there is another one", "kept", c.Terms, "now", k.cfg.Terms)
		}
		k.cfg.Log.Info("took up the certificate that is kept", "names", c.Names, "not_after", c.NotAfter, "renew_at", RenewAt(c.Life, time.Time{}))
	}
	k.problem = words("it is being ordered")
	k.resume(ctx)
	k.publish()
}

// resume takes up the pause that the authority has asked a process before this
// one for.
func (k *Keeper) resume(ctx context.Context) {
	p, err := k.Store.Pause(ctx)
	if err != nil && !errors.Is(err, port.ErrNotFound) {
		k.cfg.Log.Warn("it cannot be read for how long the authority is to be left alone", "error", err)
	}
	wall := k.Wall.Wall()
	left := remaining(p, wall)
	if err != nil || p.Directory != k.cfg.Terms.Directory || left <= 0 {
		return
	}
	k.retryAt, k.problem = k.Clock.Now().Add(left), &port.RateLimitError{RetryAfter: left}
	k.cfg.Log.Info("the authority has asked to be left alone for a while", "wait", left.Round(time.Second))
	if wall.Before(p.Since) { // or each start would begin with all of it
		k.pause(ctx, left)
	}
}

// pause keeps for how long the authority is to be left alone: a process that is
// started again and again would else ask at each start.
func (k *Keeper) pause(ctx context.Context, wait time.Duration) {
	now := k.Wall.Wall()
	if err := k.Store.SavePause(ctx, port.Pause{Directory: k.cfg.Terms.Directory, Since: now, Until: now.Add(wait)}); err != nil {
		k.cfg.Log.Warn("cannot keep for how long the authority is to be left alone: it would be asked after a restart", "error", err)
	}
}

// look does what is to be done now, and returns how long nothing else is.
func (k *Keeper) look(ctx context.Context) time.Duration {
	if k.unsaved {
		k.save(ctx)
	}
	if k.held != nil && !k.held.askAt.IsZero() && !k.Clock.Now().Before(k.held.askAt) {
		k.ask(ctx)
	}
	if k.due() && !k.Clock.Now().Before(k.retryAt) {
		k.order(ctx)
	}
	return k.wait()
}

// outdated reports whether what is held was ordered by other terms. Of one that
// Plane 0.5.x has ordered that is not known.
func (k *Keeper) outdated() bool {
	return k.held.Terms != (port.Terms{}) && k.held.Terms != k.cfg.Terms
}

// due reports whether a certificate is to be ordered.
func (k *Keeper) due() bool {
	h := k.held
	if h == nil || k.outdated() {
		return true
	}
	at := k.now(h)
	if !at.Before(RenewAt(h.Life, time.Time{})) {
		return true
	}
	return !h.suggested.IsZero() && !at.Before(h.suggested) && !k.Clock.Now().Before(h.calmUntil)
}

// wait is how long there is nothing to do, for all that is known; no longer than
// a step of the wall clock may stay unnoticed.
func (k *Keeper) wait() time.Duration {
	if k.held == nil {
		return k.retryAt.Sub(k.Clock.Now())
	}
	wait := lookWait(k.held.Span())
	if k.due() {
		return min(wait, k.retryAt.Sub(k.Clock.Now()))
	}
	// A look just at the time saves a short life the wait for the next one.
	left := RenewAt(k.held.Life, k.held.suggested).Sub(k.now(k.held))
	if left > 0 {
		wait = min(wait, left)
	}
	return wait
}

// order obtains a certificate, or notes why not and until when to wait.
func (k *Keeper) order(ctx context.Context) {
	o := port.Order{Names: k.cfg.Names}
	var life time.Duration
	if k.held != nil {
		life = k.held.Span()
		if terms := k.held.Terms; terms == (port.Terms{}) || terms.Directory == k.cfg.Terms.Directory {
			o.Replaces = &k.held.Certificate // another authority does not know it
		}
	}
	began := k.Clock.Now()
	limited, cancel := port.WithTimeout(ctx, k.Clock, k.cfg.OrderTimeout)
	defer cancel()
	c, err := k.Issuer.Order(limited, o, k.Challenges)
	if err != nil && ctx.Err() != nil {
		return
	}
	if err == nil {
		err = k.refuse(c)
	}
	if err != nil {
		k.failures++
		wait := retryWait(k.failures, life, err, k.Rand.Float64())
		k.retryAt, k.problem = k.Clock.Now().Add(wait), err
		k.publish()
		if asked(err, 0) > 0 {
			k.pause(ctx, wait)
		}
		k.cfg.Log.Warn("cannot get a certificate; trying again", "error", err, "wait", wait.Round(time.Millisecond), "failures", k.failures)
		return
	}
	c.Terms = k.cfg.Terms
	now := k.Clock.Now()
	k.held = &holding{
		Certificate: c, reckoning: fresh(c.Life, now, k.Wall.Wall()),
		askAt: now, calmUntil: now.Add(calm(c.Span())),
	}
	k.failures, k.retryAt, k.problem = 0, time.Time{}, nil
	k.publish() // first: a disk may hang
	k.save(ctx)
	k.cfg.Log.Info("got a certificate", "names", c.Names, "not_after", c.NotAfter, "renew_at", RenewAt(c.Life, time.Time{}), "took", now.Sub(began).Round(time.Millisecond))
	if !k.held.wall {
		k.cfg.Log.Error("this machine's clock is ahead: it shows a time at which the certificate that was just issued would be old; renewals go by how much time passes instead", "not_before", c.NotBefore, "clock", k.Wall.Wall())
	}
}

// refuse says what is wrong with a certificate that was issued, if anything.
func (k *Keeper) refuse(c port.Certificate) error {
	if name, lacks := missing(c, k.cfg.Names); lacks {
		return words("the certificate that was issued is not for " + name)
	}
	if c.Span() <= 0 {
		return words("the certificate that was issued has no life")
	}
	return nil
}

// save keeps what is held. It is done even if the process is to stop: what is lost
// counts with the authority all the same.
func (k *Keeper) save(ctx context.Context) {
	err := k.Store.Save(context.WithoutCancel(ctx), k.held.Certificate)
	k.unsaved = err != nil
	if err != nil {
		k.cfg.Log.Error("cannot keep the certificate on disk: after a restart another one would be ordered; trying again", "error", err)
	}
}

// ask asks the authority when it wants the certificate to be renewed.
func (k *Keeper) ask(ctx context.Context) {
	h := *k.held
	limited, cancel := port.WithTimeout(ctx, k.Clock, suggestTimeout)
	defer cancel()
	s, err := k.Issuer.Suggest(limited, h.Certificate)
	h.askAt = k.Clock.Now().Add(askWait(s, err, h.Span(), k.Rand.Float64()))
	switch {
	case ctx.Err() != nil:
		return
	case errors.Is(err, port.ErrNoSuggestion):
		h.askAt = time.Time{}
	case err != nil:
		k.cfg.Log.Debug("the authority does not say when to renew", "error", err)
	default:
		window := within(s, h.Life)
		if !h.suggested.Before(window.Start) && !h.suggested.After(window.End) {
			break // the time that was drawn from the window stands
		}
		h.suggested = window.Start.Add(times(window.End.Sub(window.Start), k.Rand.Float64()))
		if at := RenewAt(h.Life, time.Time{}); h.suggested.Before(at) {
			k.cfg.Log.Info("the authority wants the certificate to be renewed early", "renew_at", h.suggested, "otherwise_at", at)
		}
	}
	k.held = &h
	k.publish()
}
