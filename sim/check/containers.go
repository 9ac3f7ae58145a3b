package check

import (
	"errors"
	"time"

	"plane/sim/fake"
	"plane/system/backend"
	"plane/system/port"
)

// ContainerStarted implements fake.Witness.
func (b *Book) ContainerStarted(c *fake.Container) {
	key := nameOf(c.Key)
	if other := b.running[key]; other != nil { // G1
		b.Violate("G1", "key %s: %s starts on %s while %s runs on %s", c.Key.Name, c.BackendID, c.Machine.Name, other.BackendID, other.Machine.Name)
	}
	b.running[key] = c

	switch last, known := b.fencing[key]; { // G2
	case known && last.backend == c.BackendID && last.token != c.Fencing:
		b.Violate("G2", "backend %s was given fencing tokens %d and %d", c.BackendID, last.token, c.Fencing)
	case known && last.backend != c.BackendID && last.token >= c.Fencing:
		b.Violate("G2", "key %s: fencing token %d of %s comes after %d of %s", c.Key.Name, c.Fencing, c.BackendID, last.token, last.backend)
	default:
		b.fencing[key] = acquisition{c.BackendID, c.Fencing}
	}

	if b.starts[c.BackendID]++; b.starts[c.BackendID] > 1 { // G6
		b.Violate("G6", "backend %s is started for the %d. time", c.BackendID, b.starts[c.BackendID])
	}
	switch deadline, guarded := c.Machine.Guarded(c.BackendID); {
	case !guarded:
		b.Violate("G1", "backend %s starts and nothing guards it", c.BackendID)
	case b.env.Now().Sub(c.Machine.Clock.True(deadline)) > lateEffect:
		b.Violate("G6", "backend %s is started %v after its deadline", c.BackendID, b.env.Now().Sub(c.Machine.Clock.True(deadline)))
	}
	b.checkDrained(c)
}

// Starts is how often the backend's container was started.
func (b *Book) Starts(backendID string) int { return b.starts[backendID] }

// Started is how many backends have had a container.
func (b *Book) Started() int { return len(b.starts) }

// lateEffect is how long after a caller's end an engine may still do what it
// was asked.
const lateEffect = time.Second

// ContainerEnded implements fake.Witness.
func (b *Book) ContainerEnded(c *fake.Container) {
	if b.running[nameOf(c.Key)] == c {
		delete(b.running, nameOf(c.Key))
	}
	b.ended[c.BackendID] = b.storeNow()
	delete(b.orphans, c.BackendID)
	for _, u := range b.uses {
		if u.container == c {
			u.gone.Advance()
		}
	}
}

// ContainerStopped implements fake.Witness: the agent ends a container, softly or
// hard. It may do so because the store has asked for it, for a reason that it
// has written down or tried to, when the lease that it and the guard hold is
// over, and for what it does not know (G10).
func (b *Book) ContainerStopped(c *fake.Container, how string) {
	rec, known := c.Machine.Record(c.BackendID)
	if !known || !rec.State.Status.Alive() || b.askedToEnd(c.BackendID) {
		return
	}
	soft := rec.Deadlines.SoftTerminateAt
	if hard, ok := c.Machine.Confirmed(c.BackendID); ok {
		if guarded := hard.Add(-leaseTail); guarded.Before(soft) {
			soft = guarded
		}
	}
	if left := soft.Sub(c.Machine.Clock.Local(b.env.Now())); left > lateEffect {
		b.Violate("G10", "the agent on %s does %s on %s, which is %s and has %v of its lease left", c.Machine.Name, how, c.BackendID, rec.State.Status, left)
	}
}

// leaseTail is from a lease's soft deadline to its hard one, which is what the
// guard is told.
const leaseTail = 10 * time.Second

// askedToEnd reports whether the store wants the backend to end.
func (b *Book) askedToEnd(backendID string) bool {
	row, err := b.ledger.Backend(backendID)
	if err != nil || !row.State.Status.Alive() {
		return true
	}
	for id := port.NodeID(1); id <= maxNodes; id++ {
		for _, a := range b.ledger.PendingActions(id) {
			if a.Action.BackendID == backendID && a.Action.Action.Terminate != nil {
				return true
			}
		}
	}
	return false
}

// maxNodes is more than any simulated cluster has.
const maxNodes = 64

// Drained notes that a drain was answered.
func (b *Book) Drained(drone string, storeNow time.Time) {
	if _, ok := b.drained[drone]; !ok {
		b.drained[drone] = drain{b.env.Now(), storeNow}
	}
}

// IsDrained reports whether a drain of the drone was answered.
func (b *Book) IsDrained(drone string) bool { _, ok := b.drained[drone]; return ok }

// checkDrained is G13.
func (b *Book) checkDrained(c *fake.Container) {
	row, err := b.ledger.Backend(c.BackendID)
	if err != nil {
		b.Violate("G6", "container of %s starts, a backend that the store does not know", c.BackendID)
		return
	}
	if d, ok := b.drained[row.Drone]; ok && row.CreatedAt.After(d.store) {
		b.Violate("G13", "backend %s was placed on %s, %v after the drain was answered", c.BackendID, row.Drone, row.CreatedAt.Sub(d.store))
	}
}

// orphanLimit is G5's, on a clock that may be 2 % slow.
const orphanLimit = 61500 * time.Millisecond

// LookForOrphans is called every step of time; able tells whether the machine's
// agent can act now.
func (b *Book) LookForOrphans(machines []*fake.Machine, step time.Duration, able func(m *fake.Machine) bool) {
	for _, m := range machines {
		for _, c := range m.Running() {
			row, err := b.ledger.Backend(c.BackendID)
			orphan := errors.Is(err, port.ErrNotFound) || row.State.Status == backend.Terminated
			if !orphan || !able(m) {
				delete(b.orphans, c.BackendID)
				continue
			}
			if b.orphans[c.BackendID] += step; b.orphans[c.BackendID] > orphanLimit {
				b.Violate("G5", "the container of %s runs on %s, whose agent could have ended it for %v", c.BackendID, m.Name, b.orphans[c.BackendID])
				delete(b.orphans, c.BackendID)
			}
		}
	}
}
