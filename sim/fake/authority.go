package fake

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"plane/sim/world"
	"plane/system/port"
)

// Inspector is told what the authority and the proxies' disks see.
type Inspector interface {
	// Ordered is called when a proxy begins an order, with what it keeps on disk
	// (nil: nothing) and from when on it was told to renew that (zero: it was not).
	Ordered(proxy string, kept *port.Certificate, suggested time.Time)
	// Unseen is called when the authority was shown a challenge that is not there
	// although nothing but another proxy can have taken it away.
	Unseen(proxy, value string)
	// Issued is called for every certificate, with the key that it is for.
	Issued(proxy, key string)
	// Hasty is called when a proxy asks while it was told not to.
	Hasty(proxy string, early time.Duration)
}

// Authority is a certificate authority: slow, down, refusing, limiting how often
// it is asked, and losing answers after it has issued, as the weather will. It may
// want certificates to be renewed early. It looks challenges up by way of the DNS
// receivers, and goes by the true time.
type Authority struct {
	env       *Env
	rnd       *world.Rand
	db        *Database // which knows what proxies have given up
	resolver  *Resolver
	cluster   string
	see       Inspector
	life      time.Duration
	one       bool      // the DNS receiver is of 0.5.x, and tells one value
	downUntil time.Time // true time
	issued    int
	left      map[string]time.Time // until when each incarnation is to leave it alone, in true time

	renewals *world.Rand
	early    bool                // it has renewal information
	windows  map[string]*renewal // by the certificate's chain
}

// renewal is when a certificate is to be renewed, and who was told so, when.
type renewal struct {
	port.Suggestion
	told map[string]time.Time // by incarnation, in true time
}

// NewAuthority makes one whose certificates live that long; early says whether it
// wants most of them to be renewed before two thirds of that. Needs the lock.
func NewAuthority(env *Env, db *Database, resolver *Resolver, cluster string, life time.Duration, oneValue, early bool, see Inspector) *Authority {
	return &Authority{
		env: env, rnd: env.Stream("authority"), db: db, resolver: resolver, cluster: cluster, life: life, one: oneValue, see: see,
		left:     map[string]time.Time{},
		renewals: env.Stream("renewals"), early: early, windows: map[string]*renewal{},
	}
}

// Life is how long its certificates live.
func (a *Authority) Life() time.Duration { return a.life }

// Issuances is how many certificates it has issued. Needs the lock.
func (a *Authority) Issuances() int { return a.issued }

// Fail takes the authority down for a while. Needs the lock.
func (a *Authority) Fail() {
	away := a.rnd.Between(time.Second, 5*time.Minute)
	a.env.Tell("authority", "is down for %v", away.Round(time.Millisecond))
	a.downUntil = a.env.Now().Add(away)
}

// Heal ends what Fail began. Needs the lock.
func (a *Authority) Heal() { a.downUntil = a.env.Now() }

// Issuer is a proxy's way to the authority; it implements port.Issuer. What the
// proxy keeps is on the disk.
func (a *Authority) Issuer(node world.Node, disk *CertDisk) port.Issuer {
	return &issuer{a: a, node: node, disk: disk}
}

type issuer struct {
	a    *Authority
	node world.Node
	disk *CertDisk
}

// call asks the authority for something that it says at once.
func (i *issuer) call(ctx context.Context, what string, apply func() error) error {
	return i.callLong(ctx, what, func(tell func(error)) { tell(apply()) })
}

// callLong asks it for something that it has to find out first.
func (i *issuer) callLong(ctx context.Context, what string, apply func(tell func(error))) error {
	a := i.a
	i.node.Enter()
	a.env.Lock()
	w := a.env.Weather
	fails := a.rnd.Chance(w.AuthorityFails)
	before, after := a.rnd.Soon(5*time.Millisecond, 200*time.Millisecond), a.rnd.Soon(5*time.Millisecond, 200*time.Millisecond)
	if a.rnd.Chance(w.AuthoritySlow) {
		before = a.rnd.Between(0, time.Minute)
	}
	a.env.Unlock()
	said := &answer[none]{}
	err := a.env.callLong(ctx, i.node, before, after, func(done func()) {
		tell := func(err error) {
			said.err = err
			done()
		}
		if fails || a.env.Now().Before(a.downUntil) {
			tell(fmt.Errorf("%s: %w", what, port.ErrAuthorityAway))
			return
		}
		apply(tell)
	})
	if err != nil {
		return err
	}
	a.env.Lock()
	defer a.env.Unlock()
	return said.err
}

func (i *issuer) incarnation() string { return fmt.Sprint(i.node.Name(), " ", i.node.Incarnation()) }

// Order implements port.Issuer.
func (i *issuer) Order(ctx context.Context, o port.Order, challenges port.Challenges) (port.Certificate, error) {
	one, err := challenges.OneAtATime(ctx)
	if err != nil {
		return port.Certificate{}, err
	}
	if err := i.call(ctx, "order", i.begin); err != nil {
		return port.Certificate{}, err
	}
	var values []string
	for range o.Names {
		values = append(values, fmt.Sprintf("%s-%016x", i.node.Name(), i.node.Random().Uint64()))
	}
	batches := [][]string{values}
	if one {
		batches = slices.Collect(slices.Chunk(values, 1))
	}
	for _, batch := range batches {
		if err := i.meet(ctx, challenges, batch); err != nil {
			return port.Certificate{}, err
		}
	}
	return i.finish(ctx, o)
}

// begin takes an order, or tells the proxy to leave the authority alone.
func (i *issuer) begin() error {
	a, now := i.a, i.a.env.Now()
	if i.node.Alive() { // else it is what was asked long before, and comes late
		if told := a.left[i.incarnation()]; now.Before(told) {
			a.see.Hasty(i.node.Name(), told.Sub(now))
		}
		a.see.Ordered(i.node.Name(), i.disk.certificate, a.suggested(i.disk.certificate))
	}
	if a.rnd.Chance(a.env.Weather.AuthorityLimits) {
		wait := a.rnd.Between(time.Second, 10*time.Minute)
		a.left[i.incarnation()] = now.Add(wait)
		return fmt.Errorf("order: %w", &port.RateLimitError{RetryAfter: wait})
	}
	return nil
}

// meet shows some values and has the authority look at them.
func (i *issuer) meet(ctx context.Context, challenges port.Challenges, values []string) error {
	a := i.a
	shown := map[string]time.Time{}
	for _, v := range values {
		defer challenges.Withdraw(v)
		a.env.Lock()
		shown[v] = a.env.Now() // at the earliest: it may be there long before that is known here
		a.env.Unlock()
		if err := challenges.Present(ctx, v); err != nil {
			return err
		}
	}
	for _, v := range values {
		err := i.callLong(ctx, "validate", func(tell func(error)) {
			a.resolver.lookUp(a.cluster, func(found []string, failed error) { tell(i.validate(ctx, v, shown[v], found, failed)) })
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// unspoiled is for how long a value that was shown must be there, whatever
// becomes of the proxy's session: controllers keep it for ten minutes, and no
// less than five when the last one that set it was long before.
const unspoiled = 5 * time.Minute

// validate looks for a value in what was found. It may do so when the process that
// ordered has died or given the order up: then whatever the proxy has set since may
// be in front of the value, and a receiver that tells one value tells that. The same
// goes for an earlier value of the proxy that comes late, by a call that had been
// given up; and a release that comes late takes what was shown before it.
func (i *issuer) validate(ctx context.Context, value string, shown time.Time, found []string, failed error) error {
	a := i.a
	if failed != nil {
		return fmt.Errorf("%w: %w", port.ErrRefused, failed)
	}
	if len(found) > 0 && (found[0] == value || !a.one && slices.Contains(found, value)) {
		return nil
	}
	overtaken := a.one && len(found) > 0 && a.db.late[found[0]] && strings.HasPrefix(found[0], i.node.Name()+"-")
	waited := i.node.Alive() && ctx.Err() == nil && !overtaken
	if waited && a.env.Now().Sub(shown) < unspoiled && !a.db.released[i.node.Name()].After(shown) {
		a.see.Unseen(i.node.Name(), value)
	}
	return fmt.Errorf("%w: the challenge is not there", port.ErrRefused)
}

// finish has the authority issue for a key that the proxy makes.
func (i *issuer) finish(ctx context.Context, o port.Order) (port.Certificate, error) {
	a := i.a
	key := fmt.Sprintf("%016x%016x", i.node.Random().Uint64(), i.node.Random().Uint64())
	c := port.Certificate{Key: port.Secret(keyMark + key), Names: o.Names}
	err := i.call(ctx, "issue", func() error {
		a.issued++
		a.see.Issued(i.node.Name(), key)
		c.Chain = fmt.Append(nil, "certificate ", a.issued, " of ", i.node.Name())
		c.NotBefore = a.env.Now().Truncate(time.Second)
		c.NotAfter = c.NotBefore.Add(a.life)
		a.window(c)
		a.env.Tell("authority", "issues certificate %d to %s", a.issued, i.node.Name())
		if a.rnd.Chance(a.env.Weather.AuthorityLies) {
			return fmt.Errorf("issue: %w: the answer is lost", port.ErrAuthorityAway)
		}
		return nil
	})
	if err != nil {
		return port.Certificate{}, err
	}
	return c, nil
}

// keyMark begins every private key, so that a log can be searched for
// them.
const keyMark = "hush-hush " // what sim/cluster looks for

// Suggest implements port.Issuer.
func (i *issuer) Suggest(ctx context.Context, c port.Certificate) (s port.Suggestion, err error) {
	err = i.call(ctx, "suggest", func() error {
		w := i.a.windows[string(c.Chain)]
		if w == nil {
			return port.ErrNoSuggestion
		}
		if _, again := w.told[i.incarnation()]; !again {
			w.told[i.incarnation()] = i.a.env.Now()
		}
		s = w.Suggestion
		return nil
	})
	return s, err
}

// window draws when a certificate is to be renewed: some time before two thirds of
// its life, and for some not at all.
func (a *Authority) window(c port.Certificate) {
	if !a.early || a.renewals.Chance(0.3) {
		return
	}
	start := c.NotBefore.Add(a.renewals.Between(a.life/4, a.life/3))
	a.windows[string(c.Chain)] = &renewal{
		Suggestion: port.Suggestion{Start: start, End: start.Add(a.renewals.Between(0, a.life/20)), AskAgain: a.life / 5},
		told:       map[string]time.Time{},
	}
}

// suggested is from when on a proxy was told to renew a certificate; zero: nobody
// was. Needs the lock.
func (a *Authority) suggested(c *port.Certificate) time.Time {
	if c == nil {
		return time.Time{}
	}
	if w := a.windows[string(c.Chain)]; w != nil && len(w.told) > 0 {
		return w.Start
	}
	return time.Time{}
}

// LeftUntil is until when a process is to leave it alone, in true time. Needs the
// lock.
func (a *Authority) LeftUntil(node world.Node) time.Time {
	i := issuer{node: node}
	return a.left[i.incarnation()]
}

// Overdue is for how long a process serves a certificate that it could have
// renewed as it was told to. Needs the lock.
func (a *Authority) Overdue(node world.Node, served port.Certificate) time.Duration {
	i := issuer{node: node}
	w := a.windows[string(served.Chain)]
	if w == nil || w.told[i.incarnation()].IsZero() {
		return 0
	}
	since := w.told[i.incarnation()]
	for _, t := range []time.Time{w.End, a.LeftUntil(node)} {
		if t.After(since) {
			since = t
		}
	}
	return a.env.Now().Sub(since)
}

// CertDisk is what a proxy keeps through crashes.
type CertDisk struct {
	certificate *port.Certificate
	account     port.Secret
	pause       *port.Pause
}

// Certificate is what is kept; nil: nothing. Needs the lock.
func (d *CertDisk) Certificate() *port.Certificate { return d.certificate }

// CertStore is a node's way to the disk; it implements port.CertStore. Its writes
// happen in the calling process: what has not been written when that dies never
// is.
func (a *Authority) CertStore(node world.Node, disk *CertDisk) port.CertStore {
	return &certStore{a, node, disk}
}

type certStore struct {
	a    *Authority
	node world.Node
	disk *CertDisk
}

// do waits for the disk, and may fail before or after its effect.
func (s *certStore) do(ctx context.Context, what string, effect func() error) error {
	s.node.Enter()
	env := s.a.env
	env.Lock()
	w, rnd := env.Weather, s.a.rnd
	fails, lies, pause := rnd.Chance(w.JournalFails), rnd.Chance(w.JournalLies), rnd.Soon(50*time.Microsecond, 20*time.Millisecond)
	env.Unlock()
	if err := s.node.Sleep(ctx, pause); err != nil {
		return err
	}
	env.Lock()
	defer env.Unlock()
	if fails {
		return fmt.Errorf("%s: %w", what, ErrInjected)
	}
	err := effect()
	if err == nil && lies && strings.HasPrefix(what, "save") {
		return fmt.Errorf("%s: %w: done", what, ErrInjected)
	}
	return err
}

// Load implements port.CertStore.
func (s *certStore) Load(ctx context.Context) (c port.Certificate, err error) {
	err = s.do(ctx, "load", func() error {
		if s.disk.certificate == nil {
			return port.ErrNotFound
		}
		c = *s.disk.certificate
		return nil
	})
	return c, err
}

// Save implements port.CertStore.
func (s *certStore) Save(ctx context.Context, c port.Certificate) error {
	return s.do(ctx, "save", func() error {
		s.disk.certificate = &c
		return nil
	})
}

// Account implements port.CertStore.
func (s *certStore) Account(ctx context.Context) (account port.Secret, err error) {
	err = s.do(ctx, "account", func() error {
		if account = s.disk.account; account == nil {
			return port.ErrNotFound
		}
		return nil
	})
	return account, err
}

// SaveAccount implements port.CertStore.
func (s *certStore) SaveAccount(ctx context.Context, account port.Secret) error {
	return s.do(ctx, "save account", func() error {
		s.disk.account = account
		return nil
	})
}

// Pause implements port.CertStore.
func (s *certStore) Pause(ctx context.Context) (p port.Pause, err error) {
	err = s.do(ctx, "pause", func() error {
		if s.disk.pause == nil {
			return port.ErrNotFound
		}
		p = *s.disk.pause
		return nil
	})
	return p, err
}

// SavePause implements port.CertStore.
func (s *certStore) SavePause(ctx context.Context, p port.Pause) error {
	return s.do(ctx, "save pause", func() error {
		s.disk.pause = &p
		return nil
	})
}
