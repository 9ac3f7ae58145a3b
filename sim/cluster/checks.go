package cluster

import (
	"context"
	"time"

	"plane/sim/fake"
	"plane/sim/world"
	"plane/system/backend"
	"plane/system/port"
)

// When, after the weather is over, what is due. Reconnecting takes up to 90 s.
const (
	probeAt = 2 * time.Minute // every key must lead to a backend that serves
	leaveAt = 3 * time.Minute // all clients leave, so that everything ends
)

// startChecks looks at the cluster now and then.
func (c *Cluster) startChecks() {
	c.every(250*time.Millisecond, c.lookAtTouch)
	c.every(time.Second, func() {
		c.Book.LookForOrphans(c.machines, time.Second, c.able)
	})
}

func (c *Cluster) every(d time.Duration, fn func()) {
	c.After(d, func() {
		fn()
		c.every(d, fn)
	})
}

// lookAtTouch keeps since when each proxy and drone has been in good touch with
// a controller, as the network knows.
func (c *Cluster) lookAtTouch() {
	now := c.Now()
	w := c.weather
	note(&c.steadySince, c.Database.Up() && w.StoreFails+w.StoreLies+w.StoreSlow+w.Slow == 0, now)
	steady := !c.steadySince.IsZero() && now.Sub(c.steadySince) >= settle
	for _, p := range c.proxies {
		ready := p.up() && p.router.Ready() && c.Network.Sound(p.node)
		if ready {
			p.heard = now
		}
		note(&p.soundSince, ready && steady, now)
	}
	for _, p := range c.drones {
		note(&p.ableSince, p.up() && p.host.EngineUp() && c.Network.Sound(p.node), now)
	}
	c.lookAtCertificates()
	c.Book.LookForRevoked(func(name string) time.Time { return c.process(name).soundSince })
}

// settle is how long what a bad store or network has held up may still hang.
const settle = 3 * time.Second

func note(since *time.Time, holds bool, now time.Time) {
	switch {
	case !holds:
		*since = time.Time{}
	case since.IsZero():
		*since = now
	}
}

func (c *Cluster) process(name string) *process {
	for _, p := range c.proxies {
		if p.name == name {
			return p
		}
	}
	panic("cluster: no such proxy: " + name)
}

// able reports whether a machine's agent can act: the database answers a
// controller that it is connected to.
func (c *Cluster) able(m *fake.Machine) bool {
	for _, p := range c.drones {
		if p.host == m {
			return !p.ableSince.IsZero()
		}
	}
	return false
}

// watchStore looks at what the store has just committed.
func (c *Cluster) watchStore(what string) {
	switch what {
	case "connect", "register node":
		c.checkPromises()
	case "sweep":
		c.lookAtSweep()
	}
}

func (c *Cluster) lookAtSweep() {
	l := c.Database.Ledger()
	for id := port.NodeID(1); int(id) <= len(c.drones)+len(c.proxies); id++ {
		for _, pending := range l.PendingActions(id) {
			a := pending.Action
			if a.Action.Terminate == nil || a.Action.Terminate.Reason != backend.Swept || c.swept[a.BackendID] {
				continue
			}
			c.swept[a.BackendID] = true // a hard one may follow, without another look
			row, err := l.Backend(a.BackendID)
			if err != nil {
				continue
			}
			key, ok := keyNumber(row.Key.Name)
			if !ok {
				continue
			}
			age := c.Database.Now().Sub(row.CreatedAt)
			if life := lifetime(key); life > 0 && age >= life {
				continue
			}
			c.Tell("database", "sweeps %s as idle", a.BackendID)
			c.Book.SweptIdle(a.BackendID, maxIdle(key), func(proxy string) time.Duration { return c.Now().Sub(c.process(proxy).heard) })
		}
	}
}

// probe asks for every key, when all has been well for a while (G11, G4): each
// has to lead to a backend that serves.
func (c *Cluster) probe() {
	c.Tell("world", "every key is asked for")
	if !c.takers() {
		c.Tell("world", "no drone is left that may take backends")
		return
	}
	for key := range c.opt.Shape.Keys {
		c.clients.Tasks().Go("probe", func(ctx context.Context) { c.probeKey(ctx, key) })
	}
}

// takers reports whether any drone is there and not drained.
func (c *Cluster) takers() bool {
	for _, p := range c.drones {
		if p.up() && !c.Book.IsDrained(p.name) && !c.draining(p.name) {
			return true
		}
	}
	return false
}

// draining reports whether the store keeps backends from the drone, answered or
// not.
func (c *Cluster) draining(drone string) bool {
	for _, d := range c.Database.Ledger().ClusterState(c.Database.Now(), Name).Drones {
		if d.Node.Name.Drone == drone {
			return d.Draining
		}
	}
	return false
}

// liveProxy names a proxy that has not gone for good, if there is one.
func (c *Cluster) liveProxy() string {
	c.Lock()
	defer c.Unlock()
	first := c.load.IntN(len(c.proxies))
	for i := range c.proxies {
		if p := c.proxies[(first+i)%len(c.proxies)]; p.up() {
			return p.name
		}
	}
	return c.proxies[first].name
}

// probeKey tries for as long as a holder may take to end: 30 s of grace, and
// what a kill takes. A key that is refused while no drone has room for it is not
// to be had.
func (c *Cluster) probeKey(ctx context.Context, key int) {
	began := c.clients.Clock().Now()
	for c.clients.Clock().Now().Sub(began) < 50*time.Second {
		token := c.connect(ctx, key, "prober")
		if token != nil {
			if broken(key) {
				return
			}
			if status := c.sendBy(ctx, c.liveProxy(), token, false, 0); status == passed {
				return
			}
		}
		if token == nil && !c.hasRoom(key) {
			return
		}
		if c.clients.Sleep(ctx, time.Second) != nil {
			return
		}
	}
	c.Lock()
	defer c.Unlock()
	c.Book.Violate("G11", "key %s leads nowhere, %v after all is well", keyName(key), c.Now().Sub(world.Epoch)-c.opt.Storm)
}

// lookAtEnd is the end of the run: everything has ended (G4), nothing is left
// (G5), and every reader knows (G3).
func (c *Cluster) lookAtEnd() {
	c.lookAtLastCertificates()
	l := c.Database.Ledger()
	for _, row := range l.Backends(port.BackendQuery{Cluster: Name, Limit: 1_000_000}) {
		if row.State.Status != backend.Terminated {
			c.Book.Violate("G4", "backend %s of key %s on %s is %s, at the end", row.ID, row.Key.Name, row.Drone, row.State.Status)
		}
		entries, err := l.History(row.ID, 0)
		if err != nil {
			c.Book.Violate("G3", "backend %s has no history: %v", row.ID, err)
		}
		for i := 1; i < len(entries); i++ {
			if entries[i].State.Status <= entries[i-1].State.Status {
				c.Book.Violate("G3", "backend %s: %s follows %s", row.ID, entries[i].State.Status, entries[i-1].State.Status)
			}
		}
		if s := c.streams[row.ID]; s != nil && !s.seen.Ended() {
			c.Book.Violate("G3", "the reader of %s, which is %s, has seen %v and no end", row.ID, row.State.Status, s.seen.Statuses)
		}
	}
	for _, m := range c.machines {
		for _, container := range m.Running() {
			c.Book.Violate("G5", "the container of %s runs on %s, at the end", container.BackendID, m.Name)
		}
	}
	for id := port.NodeID(1); int(id) <= len(c.drones)+len(c.proxies); id++ {
		for _, a := range l.PendingActions(id) {
			c.Book.Violate("G6", "action %s for %s is not acknowledged, at the end", a.Action.ActionID, a.Action.BackendID)
		}
	}
}
