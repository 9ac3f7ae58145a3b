package certificate

import (
	"context"
	"errors"
	"strings"
	"time"

	"plane/system/port"
)

// RenewAt is when a certificate is to be renewed: after two thirds of its life,
// whatever that is, or when the authority suggests it, should that be earlier
// (zero: it suggests nothing).
func RenewAt(l port.Life, suggested time.Time) time.Time {
	at := l.NotBefore.Add(l.Span() / 3 * 2)
	if !suggested.IsZero() && suggested.Before(at) {
		return suggested
	}
	return at
}

// within is the part of an authority's window that lies in the certificate's
// life: one that is wider than a short life says nothing with its ends. A window
// before or after the life stays as it is.
func within(s port.Suggestion, l port.Life) port.Suggestion {
	if s.End.Before(l.NotBefore) || s.Start.After(l.NotAfter) {
		return s
	}
	if s.Start.Before(l.NotBefore) {
		s.Start = l.NotBefore
	}
	if s.End.After(l.NotAfter) {
		s.End = l.NotAfter
	}
	return s
}

// reckoning is what is known of the authority's time. Own clocks are all that
// there is to tell it: the wall clock, which may be wrong and be stepped, and the
// other one, which only counts. A certificate that has just been issued tells
// more: its life has begun, by its authority's clock, and not long ago.
//
// The later of the two clocks is believed: a wall clock that is stepped back
// keeps no certificate beyond its time, and one that was stepped ahead costs one
// order, since what that brings shows that the wall clock is wrong; from then on
// only the other one counts, until the next certificate.
type reckoning struct {
	anchor time.Time // the authority's time at since
	since  time.Time // on the own clock
	wall   bool      // the wall clock may be right
}

// fresh is the reckoning of a certificate that was issued just now.
func fresh(l port.Life, now, wall time.Time) reckoning {
	if wall.After(l.NotBefore.Add(l.Span() / 3)) {
		return reckoning{anchor: l.NotBefore, since: now}
	}
	return kept(l, now, wall)
}

// kept is that of a certificate that was issued at some time before now.
func kept(l port.Life, now, wall time.Time) reckoning {
	if wall.Before(l.NotBefore) {
		wall = l.NotBefore
	}
	return reckoning{anchor: wall, since: now, wall: true}
}

// at is the authority's time.
func (r reckoning) at(now, wall time.Time) time.Time {
	counted := r.anchor.Add(now.Sub(r.since))
	if r.wall && wall.After(counted) {
		return wall
	}
	return counted
}

// Bounds of the waits between orders that fail. An authority that is away costs
// nobody anything; one that refuses counts how often: 15 minutes are four tries
// an hour, where a common limit is five.
const (
	firstWait   = 5 * time.Second
	mostAway    = 2 * time.Minute
	mostRefused = 15 * time.Minute
	leastMost   = 10 * time.Second
)

// retryWait is how long to wait after so many orders in a row have failed, the
// last one with err. The waits double up to a bound, which is less for a short
// life (of the certificate that is to be renewed; 0: there is none), and never
// below what the authority asks for. spread, in [0,1), keeps proxies apart.
func retryWait(failures int, life time.Duration, err error, spread float64) time.Duration {
	most := mostRefused
	if errors.Is(err, port.ErrAuthorityAway) || errors.Is(err, context.DeadlineExceeded) {
		most = mostAway
	}
	wait := firstWait
	if life > 0 {
		most = min(most, max(life/12, leastMost))
		wait = min(wait, max(life/60, time.Second))
	}
	for i := 1; i < failures && wait < most; i++ {
		wait *= 2
	}
	wait = times(min(wait, most), 0.75+spread/2)
	return max(wait, asked(err, spread))
}

// asked is how long the authority asks to be left alone by an error, if it does.
func asked(err error, spread float64) time.Duration {
	var limited *port.RateLimitError
	if !errors.As(err, &limited) {
		return 0
	}
	return times(limited.RetryAfter, 1.03+spread/10) // this machine's clock may run 2 % fast
}

// remaining is what is left of a pause; all of it where the wall clock has been
// stepped back before its beginning.
func remaining(p port.Pause, wall time.Time) time.Duration {
	return min(p.Until.Sub(wall), p.Until.Sub(p.Since))
}

func times(d time.Duration, factor float64) time.Duration {
	return time.Duration(float64(d) * factor)
}

// askWait is how long an authority's suggestion, or that it could not give one,
// is good for. Nothing makes it shorter than an authority asks for that limits how
// often it is asked.
func askWait(s port.Suggestion, err error, life time.Duration, spread float64) time.Duration {
	wait := s.AskAgain
	if err != nil {
		wait = time.Hour
	}
	wait = min(max(wait, min(time.Minute, life/10)), 24*time.Hour, max(life/3, time.Second))
	return max(wait, asked(err, spread))
}

// calm is for how long after a renewal the authority's suggestion to renew again
// is not followed, lest one that always says "now" is.
func calm(life time.Duration) time.Duration {
	return max(life/90, min(10*time.Minute, life/6))
}

// lookWait is how often the clocks are looked at.
func lookWait(life time.Duration) time.Duration {
	return min(max(life/60, time.Second), time.Minute)
}

// missing returns a name that the certificate is not for, if there is one.
func missing(c port.Certificate, names []string) (string, bool) {
	for _, want := range names {
		found := false
		for _, have := range c.Names {
			found = found || strings.EqualFold(have, want)
		}
		if !found {
			return want, true
		}
	}
	return "", false
}
