package fake

import (
	"time"

	"plane/sim/world"
)

// unwatched is how far the store's clock goes on by itself since it was last
// read with Revocations, which every controller does twice a second. The wall
// clock of the database may be stepped in that time, or be another machine's
// after a fail-over: whatever it shows, no more than this is believed.
const unwatched = time.Second

// storeClock makes of the wall clocks that a database lives by the store's one
// clock: outages and steps, however large and in whatever direction, count as a
// second at most. It is slow rather than fast, since a lease that ends late
// costs patience and one that ends early costs G1.
//
// What it shows can go back, by less than unwatched: what was shown since the
// last tick is forgotten with a step back, or with the machine.
type storeClock struct {
	wall   world.Clockwork
	behind time.Duration // how far the store's clock is behind the wall clock
	last   time.Time     // what it showed at the last tick
}

func newStoreClock(wall world.Clockwork, truth time.Time) storeClock {
	return storeClock{wall: wall, last: wall.Local(truth)}
}

// at is what the clock shows.
func (c *storeClock) at(truth time.Time) time.Time {
	shown := c.wall.Local(truth).Add(-c.behind)
	switch most := c.last.Add(unwatched); {
	case shown.Before(c.last):
		return c.last
	case shown.After(most):
		return most
	}
	return shown
}

// tick believes what the clock shows now, and goes on from there.
func (c *storeClock) tick(truth time.Time) {
	c.last = c.at(truth)
	c.behind = c.wall.Local(truth).Sub(c.last)
}

// advance lets d pass.
func (c *storeClock) advance(d time.Duration) {
	c.last, c.behind = c.last.Add(d), c.behind-d
}
