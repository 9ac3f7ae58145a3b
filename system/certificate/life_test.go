package certificate

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/port"
)

const day = 24 * time.Hour

var t0 = time.Date(2030, 5, 1, 12, 0, 0, 0, time.UTC)

func life(d time.Duration) port.Life { return port.Life{NotBefore: t0, NotAfter: t0.Add(d)} }

// Shortfall 11: 30 days before the end, which for a certificate of 6 days is
// always.
func TestShortfall11RenewalAfterTwoThirdsWhateverTheLife(t *testing.T) {
	for _, c := range []struct {
		name      string
		life      time.Duration
		suggested time.Duration // 0: nothing
		want      time.Duration
	}{
		{"90 days", 90 * day, 0, 60 * day},
		{"45 days", 45 * day, 0, 30 * day},
		{"6 days", 6 * day, 0, 4 * day},
		{"60 seconds", time.Minute, 0, 40 * time.Second},
		{"the authority wants it earlier", 90 * day, 2 * day, 2 * day},
		{"the authority wants it at once, as after a mass revocation", 90 * day, -day, -day},
		{"the authority would have it later", 90 * day, 80 * day, 60 * day},
		{"a root's life", 200 * 365 * day, 0, 200 * 365 * day / 3 * 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			var suggested time.Time
			if c.suggested != 0 {
				suggested = t0.Add(c.suggested)
			}
			require.Equal(t, t0.Add(c.want), RenewAt(life(c.life), suggested))
		})
	}
}

func TestAWindowIsCutToTheLife(t *testing.T) {
	for name, c := range map[string]struct{ start, end, wantStart, wantEnd int }{
		"inside":                        {2, 4, 2, 4},
		"wider, as around a short life": {-24, 24, 0, 6},
		"before it: renew at once":      {-24, -23, -24, -23},
		"after it":                      {7, 8, 7, 8},
	} {
		t.Run(name, func(t *testing.T) {
			days := func(from, to int) port.Suggestion {
				return port.Suggestion{Start: t0.AddDate(0, 0, from), End: t0.AddDate(0, 0, to)}
			}
			require.Equal(t, days(c.wantStart, c.wantEnd), within(days(c.start, c.end), life(6*day)))
		})
	}
}

func TestTheAuthoritysTime(t *testing.T) {
	const l = 90 * day
	own := time.Unix(5000, 0)
	for _, c := range []struct {
		name       string
		make       func(l port.Life, now, wall time.Time) reckoning
		wall, then time.Duration // the wall clock when it came, and now, from t0
		elapsed    time.Duration // on the own clock
		want       time.Duration
	}{
		{"fresh, clocks are right", fresh, time.Hour, time.Hour + day, day, time.Hour + day},
		{"fresh, the wall clock is behind", fresh, -1000 * day, -999 * day, day, day},
		{"fresh, and is then put right", fresh, -1000 * day, 5 * day, day, 5 * day},
		{"fresh, the wall clock is ahead", fresh, 1000 * day, 1001 * day, day, day},
		{"fresh, then the wall clock steps back", fresh, 0, -1000 * day, 30 * day, 30 * day},
		{"fresh, then the machine sleeps", fresh, 0, 30 * day, day, 30 * day},
		{"kept", kept, 50 * day, 51 * day, day, 51 * day},
		{"kept, expired", kept, 100 * day, 101 * day, day, 101 * day},
		{"kept, the wall clock is behind", kept, -10 * day, -9 * day, day, day},
		{"kept, then the wall clock steps back", kept, 50 * day, 0, day, 51 * day},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := c.make(life(l), own, t0.Add(c.wall))
			require.Equal(t, t0.Add(c.want), r.at(own.Add(c.elapsed), t0.Add(c.then)))
		})
	}
}

func TestRetryWaits(t *testing.T) {
	away := fmt.Errorf("order: %w", port.ErrAuthorityAway)
	refused := fmt.Errorf("order: %w", port.ErrRefused)
	limited := func(d time.Duration) error {
		return fmt.Errorf("order: %w", &port.RateLimitError{RetryAfter: d})
	}
	for _, c := range []struct {
		name     string
		failures int
		life     time.Duration
		err      error
		want     time.Duration // without spread: three quarters
	}{
		{"the first time", 1, 0, refused, 5 * time.Second},
		{"twice that", 2, 0, refused, 10 * time.Second},
		{"and again", 5, 0, refused, 80 * time.Second},
		{"up to four an hour", 1000, 0, refused, 15 * time.Minute},
		{"an authority that is away may be back any time", 1000, 0, away, 2 * time.Minute},
		{"so may be a controller", 1000, 0, context.DeadlineExceeded, 2 * time.Minute},
		{"what is not known counts as a refusal", 1000, 90 * day, errors.New("?"), 15 * time.Minute},
		{"a short life leaves no time", 1, time.Minute, refused, time.Second},
		{"nor later", 1000, time.Minute, refused, 10 * time.Second},
		{"limited without a time", 1, 0, limited(0), 5 * time.Second},
		{"limited for less than the wait", 1000, 0, limited(time.Second), 15 * time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want*3/4, retryWait(c.failures, c.life, c.err, 0))
			most := retryWait(c.failures, c.life, c.err, 0.999)
			require.Greater(t, most, c.want)
			require.Less(t, most, c.want*5/4)
		})
	}
	t.Run("never sooner than the authority says", func(t *testing.T) {
		for _, d := range []time.Duration{time.Hour, 40 * time.Hour} {
			for _, spread := range []float64{0, 0.5, 0.99} {
				require.Greater(t, retryWait(1, time.Minute, limited(d), spread), d*102/100, "on a clock that is 2 % fast")
			}
		}
	})
}

func TestAskWaits(t *testing.T) {
	limited := func(d time.Duration) error { return fmt.Errorf("ask: %w", &port.RateLimitError{RetryAfter: d}) }
	for name, c := range map[string]struct {
		again time.Duration
		err   error
		life  time.Duration
		want  time.Duration
	}{
		"as the authority says":             {6 * time.Hour, nil, 90 * day, 6 * time.Hour},
		"not all the time":                  {time.Second, nil, 90 * day, time.Minute},
		"daily at least":                    {10 * day, nil, 90 * day, day},
		"several times in a short life":     {6 * time.Hour, nil, time.Hour, 20 * time.Minute},
		"again in an hour when it is away":  {0, port.ErrAuthorityAway, 90 * day, time.Hour},
		"limited without a time":            {0, limited(0), 90 * day, time.Hour},
		"limited for less than an hour":     {0, limited(time.Minute), 90 * day, time.Hour},
		"limited for longer than that":      {0, limited(10 * time.Hour), 90 * day, 10 * time.Hour * 103 / 100},
		"limited for longer than a day":     {0, limited(5 * day), 90 * day, 5 * day * 103 / 100},
		"limited for most of a short life":  {0, limited(50 * time.Minute), time.Hour, 50 * time.Minute * 103 / 100},
		"limited for less than a third too": {0, limited(time.Minute), time.Hour, 20 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			got := askWait(port.Suggestion{AskAgain: c.again}, c.err, c.life, 0)
			require.InDelta(t, c.want.Seconds(), got.Seconds(), 0.001)
		})
	}
}

func TestNames(t *testing.T) {
	c := port.Certificate{Names: []string{"*.c1.Example", "C1.example"}}
	_, lacks := missing(c, []string{"c1.example", "*.c1.example"})
	require.False(t, lacks)
	name, lacks := missing(c, []string{"c1.example", "*.c2.example"})
	require.True(t, lacks)
	require.Equal(t, "*.c2.example", name)
}
