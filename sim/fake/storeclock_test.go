package fake

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/sim/world"
)

func TestStoreClockBelievesNoStep(t *testing.T) {
	const day = 24 * time.Hour
	tests := map[string]struct {
		offset  time.Duration // of the wall clock that follows
		away    time.Duration // until anybody looks again
		elapsed time.Duration // on the store's clock by then
	}{
		"nothing happens":             {offset: 0, away: 500 * time.Millisecond, elapsed: 500 * time.Millisecond},
		"a step of a day ahead":       {offset: day, away: 500 * time.Millisecond, elapsed: time.Second},
		"a step of a day back":        {offset: -day, away: 500 * time.Millisecond, elapsed: 0},
		"an outage":                   {offset: 0, away: time.Hour, elapsed: time.Second},
		"another machine, behind":     {offset: -day, away: 20 * time.Second, elapsed: 0},
		"another machine, ahead":      {offset: day, away: 20 * time.Second, elapsed: time.Second},
		"another machine, just right": {offset: -20 * time.Second, away: 20500 * time.Millisecond, elapsed: 500 * time.Millisecond},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := newStoreClock(world.Clockwork{}, world.Epoch)
			began := c.at(world.Epoch)
			c.wall.Offset += test.offset
			then := world.Epoch.Add(test.away)
			require.Equal(t, test.elapsed, c.at(then).Sub(began))

			c.tick(then)
			later := then.Add(700 * time.Millisecond)
			require.Equal(t, test.elapsed+700*time.Millisecond, c.at(later).Sub(began), "it goes on as if nothing had happened")
		})
	}
}
