package certificate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/clock"
	"plane/system/port"
)

var names = []string{"c1.example", "*.c1.example"}

// turn is taken by a test before time passes and by each call of the authority,
// so that what the one has set is there for the other: a bubble orders them, but
// not for the race detector.
var turn sync.Mutex

func takeTurn() {
	turn.Lock()
	defer turn.Unlock()
}

const theKey = "-----the private key-----"

// authority issues certificates in a bubble, whose time is the true time. It is
// the Issuer, the CertStore and the wall clock of its Keeper.
type authority struct {
	t     *testing.T
	life  time.Duration
	wrong time.Duration // by how much the wall clock is

	fail   error // of the next orders
	slow   time.Duration
	orders []time.Time
	issued int
	terms  port.Terms // that are wanted
	// replaced is what the last order was to replace.
	replaced *port.Certificate
	suggest  func(c port.Certificate) (port.Suggestion, error)

	disk     *port.Certificate
	pause    *port.Pause
	loadErr  error
	diskFull bool
	diskSlow time.Duration
	log      bytes.Buffer
}

func (a *authority) Wall() time.Time {
	takeTurn()
	return time.Now().Add(a.wrong)
}

func (a *authority) Order(_ context.Context, o port.Order, _ port.Challenges) (port.Certificate, error) {
	takeTurn()
	require.Equal(a.t, names, o.Names)
	a.orders = append(a.orders, time.Now())
	a.replaced = o.Replaces
	if a.fail != nil {
		return port.Certificate{}, a.fail
	}
	time.Sleep(a.slow) //nolint:forbidigo // the time of the bubble
	a.issued++
	return a.certificate(time.Now()), nil
}

func (a *authority) certificate(from time.Time) port.Certificate {
	return port.Certificate{
		Chain: fmt.Append(nil, "chain ", a.issued), Key: []byte(theKey), Names: names,
		Life: port.Life{NotBefore: from, NotAfter: from.Add(a.life)},
	}
}

func (a *authority) Suggest(_ context.Context, c port.Certificate) (port.Suggestion, error) {
	takeTurn()
	if a.suggest == nil {
		return port.Suggestion{}, port.ErrNoSuggestion
	}
	return a.suggest(c)
}

func (a *authority) Load(context.Context) (port.Certificate, error) {
	takeTurn()
	switch {
	case a.loadErr != nil:
		return port.Certificate{}, a.loadErr
	case a.disk == nil:
		return port.Certificate{}, port.ErrNotFound
	}
	return *a.disk, nil
}

func (a *authority) Save(ctx context.Context, c port.Certificate) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	time.Sleep(a.diskSlow) //nolint:forbidigo // the time of the bubble
	takeTurn()
	if a.diskFull {
		return errors.New("disk full")
	}
	a.disk = &c
	return nil
}

func (a *authority) Pause(context.Context) (port.Pause, error) {
	takeTurn()
	if a.pause == nil {
		return port.Pause{}, port.ErrNotFound
	}
	return *a.pause, nil
}

func (a *authority) SavePause(_ context.Context, p port.Pause) error {
	takeTurn()
	a.pause = &p
	return nil
}

func (a *authority) Account(context.Context) (port.Secret, error)   { panic("not the keeper's") }
func (a *authority) SaveAccount(context.Context, port.Secret) error { panic("not the keeper's") }

// with runs a test with an authority whose certificates live that long.
func with(t *testing.T, life time.Duration, test func(t *testing.T, a *authority)) {
	synctest.Test(t, func(t *testing.T) {
		a := &authority{t: t, life: life}
		test(t, a)
		require.NotContains(t, a.log.String(), theKey)
	})
}

// start starts a Keeper, which stop ends.
func (a *authority) start() (k *Keeper, stop func()) {
	log := slog.New(slog.NewTextHandler(&a.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	k, err := New(Config{Names: names, Terms: a.terms, OrderTimeout: time.Minute, Log: log}, World{
		Clock: clock.New(), Wall: a, Rand: clock.Rand{}, Issuer: a, Store: a,
	})
	require.NoError(a.t, err)
	_, err = k.Current()
	require.ErrorContains(a.t, err, "no certificate yet")
	tasks := clock.NewTasks(a.t.Context())
	tasks.Go("keeper", func(ctx context.Context) { _ = k.Run(ctx) })
	synctest.Wait()
	return k, tasks.Stop
}

func pass(d time.Duration) {
	takeTurn()
	time.Sleep(d) //nolint:forbidigo // the time of the bubble
	synctest.Wait()
}

func TestRenewalsComeAfterTwoThirdsOfTheLife(t *testing.T) {
	for _, life := range []time.Duration{time.Minute, time.Hour, 6 * day, 45 * day, 90 * day} {
		t.Run(life.String(), func(t *testing.T) {
			with(t, life, func(t *testing.T, a *authority) {
				k, stop := a.start()
				defer stop()
				for range 60 {
					c, err := k.Current()
					require.NoError(t, err)
					require.Less(t, time.Since(c.NotBefore), life*3/4)
					pass(life / 6)
				}
				require.Len(t, a.orders, 15+1)
			})
		})
	}
}

func TestARestartOrdersNothing(t *testing.T) {
	with(t, 6*day, func(t *testing.T, a *authority) {
		_, stop := a.start()
		pass(3 * day)
		stop()
		pass(day / 2)
		k, stop := a.start()
		_, err := k.Current()
		require.NoError(t, err, "at once")
		pass(day / 4)
		require.Len(t, a.orders, 1)
		pass(day / 2)
		require.Len(t, a.orders, 2, "two thirds are over")
		stop()
	})
}

func TestWhatWasOrderedByOtherTermsIsServedUntilThereIsAnother(t *testing.T) {
	had := port.Terms{Directory: "https://staging.example/dir", KeyType: "ec256"}
	for name, c := range map[string]struct {
		terms  port.Terms
		orders int
	}{
		"the same":                     {had, 1},
		"another authority":            {port.Terms{Directory: "https://ca.example/dir", KeyType: "ec256"}, 2},
		"another key":                  {port.Terms{Directory: had.Directory, KeyType: "rsa2048"}, 2},
		"another profile":              {port.Terms{Directory: had.Directory, KeyType: "ec256", Profile: "short"}, 2},
		"those of 0.5.x are not known": {port.Terms{}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			with(t, 6*day, func(t *testing.T, a *authority) {
				a.terms = had
				_, stop := a.start()
				stop()
				a.terms = c.terms
				if c.terms == (port.Terms{}) {
					a.disk.Terms, a.terms = port.Terms{}, had
				}
				a.slow = 30 * time.Second
				k, stop := a.start()
				defer stop()
				pass(time.Second)
				before, err := k.Current()
				require.NoError(t, err)
				require.Equal(t, "chain 1", string(before.Chain), "it is served meanwhile")
				pass(day)
				require.Len(t, a.orders, c.orders)
				if c.orders == 2 {
					require.Equal(t, c.terms, a.disk.Terms)
					require.Equal(t, c.terms.Directory == had.Directory, a.replaced != nil, "an authority knows its own")
				}
			})
		})
	}
}

func TestWhatIsIssuedWhileTheProcessStopsIsKept(t *testing.T) {
	with(t, 6*day, func(t *testing.T, a *authority) {
		a.slow = time.Minute
		_, stop := a.start()
		pass(time.Second)
		stop()
		require.NotNil(t, a.disk)
		_, stop = a.start()
		stop()
		require.Len(t, a.orders, 1)
	})
}

func TestWhatIsKeptAndOfNoUseIsOrderedAnew(t *testing.T) {
	for name, spoil := range map[string]func(a *authority){
		"broken":      func(a *authority) { a.loadErr = fmt.Errorf("/etc/cert.json: %w: no key", port.ErrBroken) },
		"unreadable":  func(a *authority) { a.loadErr = errors.New("permission denied") },
		"other names": func(a *authority) { a.disk.Names = []string{"c2.example", "*.c2.example"} },
		"no wildcard": func(a *authority) { a.disk.Names = []string{"c1.example"} },
		"expired":     func(a *authority) { pass(6*day + 1) },
		"nearly over": func(a *authority) { pass(4*day + 1) },
	} {
		t.Run(name, func(t *testing.T) {
			with(t, 6*day, func(t *testing.T, a *authority) {
				c := a.certificate(time.Now())
				a.disk = &c
				spoil(a)
				k, stop := a.start()
				defer stop()
				pass(5 * time.Second)
				c, err := k.Current()
				require.NoError(t, err)
				require.Len(t, a.orders, 1)
				require.Equal(t, c, *a.disk)
			})
		})
	}
}

func TestNoExpiredCertificateIsServedAndTheReasonIsTold(t *testing.T) {
	with(t, 6*day, func(t *testing.T, a *authority) {
		k, stop := a.start()
		defer stop()
		a.fail = fmt.Errorf("order: %w: %w", port.ErrRefused, &port.ProblemError{Kind: "dns", Words: "no TXT record at 10.0.0.1"})
		pass(5 * day)
		_, err := k.Current()
		require.NoError(t, err, "it is still good")
		pass(day)
		_, err = k.Current()
		require.ErrorContains(t, err, "expired at")
		require.ErrorContains(t, err, "the certificate authority refuses, its reason is dns")
		require.NotContains(t, err.Error(), "10.0.0.1")
		require.Contains(t, a.log.String(), "no TXT record at 10.0.0.1")
		a.fail = nil
		pass(20 * time.Minute)
		_, err = k.Current()
		require.NoError(t, err)
	})
}

// F7: the waits grow, and an authority that names a time is left alone.
func TestAnAuthorityThatFailsIsLeftAlone(t *testing.T) {
	with(t, 90*day, func(t *testing.T, a *authority) {
		a.fail = fmt.Errorf("order: %w", port.ErrRefused)
		k, stop := a.start()
		defer stop()
		pass(time.Hour)
		require.Less(t, len(a.orders), 13)
		before := len(a.orders)
		pass(6 * time.Hour)
		require.InDelta(t, 24, len(a.orders)-before, 4, "four an hour")
		_, err := k.Current()
		require.ErrorIs(t, err, port.ErrRefused)

		a.fail = fmt.Errorf("order: %w", &port.RateLimitError{RetryAfter: 40 * time.Hour})
		before = len(a.orders)
		pass(41 * time.Hour)
		require.Len(t, a.orders, before+1)
		a.fail = nil
		pass(6 * time.Hour)
		require.Equal(t, 1, a.issued)
	})
}

// F7: a restart is no reason to ask before the time, and neither are many.
func TestAPauseThatTheAuthorityAsksForOutlivesTheProcess(t *testing.T) {
	limited := fmt.Errorf("order: %w", &port.RateLimitError{RetryAfter: 2 * day, Detail: "too many certificates"})
	for name, c := range map[string]struct {
		change func(a *authority)
		within time.Duration // it orders again
		not    time.Duration // and not within this
	}{
		"as asked for":              {func(*authority) {}, 3 * day, 47 * time.Hour},
		"the wall clock steps back": {func(a *authority) { a.wrong = -100 * day }, 4 * day, 47 * time.Hour},
		"another authority":         {func(a *authority) { a.terms.Directory = "https://other.example/dir" }, time.Minute, 0},
	} {
		t.Run(name, func(t *testing.T) {
			with(t, 90*day, func(t *testing.T, a *authority) {
				a.terms.Directory = "https://ca.example/dir"
				a.fail = limited
				_, stop := a.start()
				pass(time.Minute)
				stop()
				require.Len(t, a.orders, 1)
				a.fail = nil
				c.change(a)
				began := time.Now()
				for len(a.orders) < 2 && time.Since(began) < c.within {
					k, stop := a.start()
					_, err := k.Current()
					var told *port.RateLimitError
					require.True(t, errors.As(err, &told) || len(a.orders) == 2, err)
					pass(time.Hour)
					stop()
				}
				require.Len(t, a.orders, 2)
				require.GreaterOrEqual(t, a.orders[1].Sub(a.orders[0]), c.not)
			})
		})
	}
}

func TestTheAuthoritysSuggestionIsFollowed(t *testing.T) {
	with(t, 90*day, func(t *testing.T, a *authority) {
		asked := 0
		start := time.Now()
		a.suggest = func(c port.Certificate) (port.Suggestion, error) {
			asked++
			from := c.NotBefore.Add(50 * day)
			if time.Since(start) > 10*day && c.NotBefore.Equal(start) { // it was revoked
				from = time.Now()
			}
			return port.Suggestion{Start: from, End: from.Add(2 * day), AskAgain: 6 * time.Hour}, nil
		}
		_, stop := a.start()
		defer stop()
		pass(10 * day)
		require.Len(t, a.orders, 1)
		require.InDelta(t, 41, asked, 1)
		pass(2*day + 7*time.Hour)
		require.Len(t, a.orders, 2, "long before two thirds")
		pass(47 * day) // the second one came on some day from the 10th to the 13th
		require.Len(t, a.orders, 2)
		pass(6 * day)
		require.Len(t, a.orders, 3)
	})
}

// F7.
func TestAnAuthorityThatLimitsHowOftenItSuggestsIsLeftAlone(t *testing.T) {
	with(t, 90*day, func(t *testing.T, a *authority) {
		asked := 0
		a.suggest = func(port.Certificate) (port.Suggestion, error) {
			asked++
			return port.Suggestion{}, fmt.Errorf("ask: %w", &port.RateLimitError{RetryAfter: 2 * day})
		}
		_, stop := a.start()
		defer stop()
		pass(2 * day)
		require.Equal(t, 1, asked)
		pass(day)
		require.Equal(t, 2, asked)
	})
}

func TestAnAuthorityThatAlwaysSuggestsNowIsNotFollowedForEver(t *testing.T) {
	with(t, 90*day, func(t *testing.T, a *authority) {
		a.suggest = func(port.Certificate) (port.Suggestion, error) {
			return port.Suggestion{Start: t0, End: t0}, nil
		}
		_, stop := a.start()
		defer stop()
		pass(5 * day)
		require.LessOrEqual(t, len(a.orders), 6)
	})
}

// A step of the wall clock costs one order or two, and never a certificate that
// has expired.
func TestTheWallClockSteps(t *testing.T) {
	for name, c := range map[string]struct {
		steps []time.Duration // one a day
		most  int             // orders, without the first
	}{
		"ahead and back":        {[]time.Duration{1000 * day, 0, 1000 * day, 0, 500 * day, 0, 1000 * day, 0}, 2},
		"back":                  {[]time.Duration{-1000 * day}, 1},
		"a little":              {[]time.Duration{time.Minute, -time.Minute, time.Hour, -time.Hour}, 1},
		"it was always ahead":   {nil, 1},
		"ahead, then much more": {[]time.Duration{100 * day, 200 * day, 300 * day, 400 * day, 500 * day, 600 * day}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			with(t, 30*day, func(t *testing.T, a *authority) {
				if c.steps == nil {
					a.wrong = 1000 * day
				}
				k, stop := a.start()
				defer stop()
				for n := range 29 {
					if n < len(c.steps) {
						a.wrong = c.steps[n]
					}
					pass(day)
					cert, err := k.Current()
					require.NoError(t, err)
					require.True(t, time.Now().Before(cert.NotAfter))
				}
				require.LessOrEqual(t, len(a.orders), 1+c.most)
			})
		})
	}
}

func TestACertificateThatCannotBeKeptIsServedAndKeptLater(t *testing.T) {
	with(t, 90*day, func(t *testing.T, a *authority) {
		a.diskFull = true
		k, stop := a.start()
		defer stop()
		_, err := k.Current()
		require.NoError(t, err)
		require.Nil(t, a.disk)
		a.diskFull = false
		pass(2 * time.Minute)
		require.NotNil(t, a.disk)
		require.Len(t, a.orders, 1)
	})
}

func TestADiskThatHangsKeepsNoCertificateFromBeingServed(t *testing.T) {
	with(t, 90*day, func(t *testing.T, a *authority) {
		a.diskSlow = day
		k, stop := a.start()
		defer stop()
		c, err := k.Current()
		require.NoError(t, err)
		require.Equal(t, "chain 1", string(c.Chain))
		require.Nil(t, a.disk)
		pass(0)
	})
}

func TestACertificateForOtherNamesIsNotTaken(t *testing.T) {
	with(t, 90*day, func(t *testing.T, a *authority) {
		k, err := New(Config{Names: names, OrderTimeout: time.Minute, Log: slog.New(slog.DiscardHandler)}, World{
			Clock: clock.New(), Wall: a, Rand: clock.Rand{}, Store: a, Issuer: misnaming{a},
		})
		require.NoError(t, err)
		tasks := clock.NewTasks(t.Context())
		defer tasks.Stop()
		tasks.Go("keeper", func(ctx context.Context) { _ = k.Run(ctx) })
		synctest.Wait()
		_, err = k.Current()
		require.ErrorContains(t, err, "not for *.c1.example")
	})
}

type misnaming struct{ *authority }

func (m misnaming) Order(ctx context.Context, o port.Order, c port.Challenges) (port.Certificate, error) {
	cert, err := m.authority.Order(ctx, o, c)
	cert.Names = cert.Names[:1]
	return cert, err
}
