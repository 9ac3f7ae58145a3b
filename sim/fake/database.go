package fake

import (
	"context"
	"fmt"
	"slices"
	"time"

	"plane/sim/world"
	"plane/system/ledger"
	"plane/system/port"
)

// Database is the store of a simulated cluster: a ledger that fails, is slow,
// fails over, and whose hints get lost, doubled, late and out of order. A call
// that it has received may commit although its caller has given up or died.
//
// The wall clock that it lives by is stepped, and another machine's after each
// fail-over; see storeClock for what the ledger sees of that.
type Database struct {
	env       *Env
	rnd       *world.Rand
	ledger    *ledger.Ledger
	clock     storeClock
	downUntil time.Time // true time
	listeners []*Listener
	// Watch is called, with the lock held, after each commit.
	Watch func(what string)

	failovers int
	renewed   map[string]time.Time // when each backend's lease was renewed last
	released  map[string]time.Time // when each proxy gave its challenges up last, in true time
	late      map[string]bool      // challenges that were added by a call that had been given up
	proxies   map[port.NodeID]string
}

// Renewed is what the store's clock showed when the backend's lease was renewed
// last; zero if it never was. Needs the lock.
func (d *Database) Renewed(backendID string) time.Time { return d.renewed[backendID] }

// NewDatabase makes an empty database.
func NewDatabase(env *Env, clock world.Clockwork) *Database {
	return &Database{
		renewed: map[string]time.Time{}, released: map[string]time.Time{}, late: map[string]bool{}, proxies: map[port.NodeID]string{}, env: env, rnd: env.Stream("database"), ledger: ledger.New(),
		clock: newStoreClock(clock, env.Now()),
	}
}

// Ledger is the truth; reading it needs the lock.
func (d *Database) Ledger() *ledger.Ledger { return d.ledger }

// Now is what the store's clock shows. Needs the lock.
func (d *Database) Now() time.Time { return d.clock.at(d.env.Now()) }

// Failover puts the database on another machine, after a while in which it does
// not answer. Needs the lock.
func (d *Database) Failover() {
	away := d.rnd.Between(500*time.Millisecond, 20*time.Second)
	d.env.Tell("database", "fails over; away for %v", away.Round(time.Millisecond))
	d.downUntil = d.env.Now().Add(away)
	d.failovers++
	if d.env.Weather.Drift {
		d.clock.wall.PPM = d.rnd.Int64N(40_001) - 20_000
	}
	d.Step(d.AnyStep())
	d.CutHints()
}

// Step steps the wall clock of the database's machine. Needs the lock.
func (d *Database) Step(by time.Duration) {
	d.env.Tell("database", "its machine's wall clock is stepped by %v", by)
	d.clock.wall.Offset += by
}

// AnyStep draws a step from milliseconds to days, ahead or back. Needs the lock.
func (d *Database) AnyStep() time.Duration {
	step := d.rnd.Between(0, time.Second)
	for range d.rnd.IntN(6) {
		step *= 10
	}
	if d.rnd.Chance(0.5) {
		step = -step
	}
	return step
}

// Up reports whether the database answers. Needs the lock.
func (d *Database) Up() bool { return !d.env.Now().Before(d.downUntil) }

// CutHints cuts every subscription. Needs the lock.
func (d *Database) CutHints() {
	for _, l := range d.listeners {
		l.cut()
	}
}

// Store is a node's way to the database; it implements port.Store.
type Store struct {
	db   *Database
	node world.Node
}

// Store gives a node its way to the database.
func (d *Database) Store(node world.Node) *Store { return &Store{d, node} }

// query sends one operation to the database.
func query[T any](ctx context.Context, s *Store, what string, op func(l *ledger.Ledger, now time.Time) (T, error)) (T, error) {
	d := s.db
	s.node.Enter()
	d.env.Lock()
	w := d.env.Weather
	fails, lies := d.rnd.Chance(w.StoreFails), d.rnd.Chance(w.StoreLies)
	before, after := d.rnd.Soon(300*time.Microsecond, 10*time.Millisecond), d.rnd.Soon(300*time.Microsecond, 10*time.Millisecond)
	if d.rnd.Chance(w.StoreSlow) {
		before = d.rnd.Between(0, 12*time.Second)
	}
	if d.rnd.Chance(w.StoreSlow) {
		after = d.rnd.Between(0, 12*time.Second)
	}
	failovers := d.failovers
	d.env.Unlock()
	return ask(ctx, d.env, s.node, before, after, func() (T, error) {
		var zero T
		// What the old machine had not committed dies with its connections.
		if fails || d.failovers != failovers || d.env.Now().Before(d.downUntil) {
			return zero, fmt.Errorf("store: %s: %w: not done", what, ErrInjected)
		}
		v, err := op(d.ledger, d.Now())
		d.publish(d.ledger.TakeHints())
		if d.Watch != nil {
			d.Watch(what)
		}
		if lies {
			return zero, fmt.Errorf("store: %s: %w: the answer is lost", what, ErrInjected)
		}
		return v, err
	})
}

func (d *Database) publish(hints []port.Hint) {
	w := d.env.Weather
	d.listeners = slices.DeleteFunc(d.listeners, func(l *Listener) bool { return !l.node.Alive() })
	for _, h := range hints {
		for _, l := range d.listeners {
			if d.rnd.Chance(w.HintLost) {
				continue
			}
			times := 1
			if d.rnd.Chance(w.HintTwice) {
				times = 2
			}
			for range times {
				late := d.rnd.Soon(time.Millisecond, 20*time.Millisecond)
				if d.rnd.Chance(w.HintLate) {
					late = d.rnd.Between(0, 10*time.Second)
				}
				epoch := l.epoch
				d.env.After(late, func() {
					if l.epoch == epoch {
						l.deliver(h)
					}
				})
			}
		}
	}
}

// Listener is a node's subscription to hints; it implements port.Listener.
type Listener struct {
	db      *Database
	node    world.Node
	arrived port.EventCount
	hints   []port.Hint
	broken  bool
	epoch   int // counts subscriptions
}

// Listen subscribes a node. Needs the lock.
func (d *Database) Listen(node world.Node) *Listener {
	l := &Listener{db: d, node: node, arrived: node.Tasks().EventCount()}
	d.listeners = append(d.listeners, l)
	return l
}

func (l *Listener) deliver(h port.Hint) {
	if l.node.Alive() && !l.broken {
		l.hints = append(l.hints, h)
		l.arrived.Advance()
	}
}

func (l *Listener) cut() {
	if l.node.Alive() {
		l.broken, l.hints = true, nil
		l.epoch++
		l.arrived.Advance()
	}
}

// Next implements port.Listener.
func (l *Listener) Next(ctx context.Context) (port.Hint, error) {
	for {
		l.node.Enter()
		seen := l.arrived.Read()
		h, ok, err := l.take()
		if ok || err != nil {
			return h, err
		}
		if err := l.arrived.Await(ctx, seen); err != nil {
			return port.Hint{}, err
		}
	}
}

func (l *Listener) take() (port.Hint, bool, error) {
	l.db.env.Lock()
	defer l.db.env.Unlock()
	switch {
	case l.broken && l.db.env.Now().Before(l.db.downUntil):
		return port.Hint{}, false, fmt.Errorf("listen: %w: the database is away", ErrInjected)
	case l.broken:
		l.broken = false
		l.hints = []port.Hint{{Topic: port.ResyncTopic}}
		return port.Hint{}, false, fmt.Errorf("listen: %w: cut", ErrInjected)
	case len(l.hints) == 0:
		return port.Hint{}, false, nil
	}
	h := l.hints[0]
	l.hints = l.hints[1:]
	return h, true, nil
}
