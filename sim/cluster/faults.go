package cluster

import (
	"context"
	"math"
	"time"

	"plane/sim/fake"
	"plane/sim/fault"
	"plane/sim/world"
)

// serve runs a role as a task of its node.
func serve(n world.Node, name string, run func(ctx context.Context) error) {
	n.Tasks().Go(name, func(ctx context.Context) {
		if err := run(ctx); ctx.Err() == nil {
			panic("role ended by itself: " + errText(err))
		}
	})
}

func errText(err error) string {
	if err == nil {
		return "without an error"
	}
	return err.Error()
}

// again calls fn at random, on average every mean, as long as the weather is on.
func (c *Cluster) again(mean time.Duration, fn func()) {
	if mean <= 0 {
		return
	}
	wait := time.Duration(-math.Log(1-c.rnd.Float64()) * float64(mean))
	c.After(wait, func() {
		if !c.calm {
			fn()
			c.again(mean, fn)
		}
	})
}

func (c *Cluster) startFaults() {
	w := c.opt.Weather
	for _, p := range c.controllers {
		c.again(w.ControllerCrash, func() { c.crash(p, c.controllers) })
	}
	for _, p := range c.proxies {
		c.again(w.ProxyCrash, func() { c.crash(p, c.proxies) })
		c.again(w.WallStep, func() { c.stepWall(p) })
	}
	for _, p := range c.receivers {
		c.again(w.ReceiverCrash, func() { c.crash(p, c.receivers) })
	}
	for _, p := range c.drones {
		c.again(w.AgentCrash, func() { c.crash(p, c.drones) })
		c.again(w.MachineCrash, func() { c.crashMachine(p) })
		c.again(w.EngineRestart, func() {
			if p.host.Up() {
				p.host.RestartEngine()
			}
		})
		c.again(w.Exit, func() { c.exitOne(p) })
	}
	c.again(w.Cut, c.cutSomewhere)
	c.again(w.Break, c.Network.BreakOne)
	c.again(w.Failover, c.Database.Failover)
	c.again(w.AuthorityDown, c.authority.Fail)
	c.again(w.StoreStep, func() { c.Database.Step(c.Database.AnyStep()) })
	c.again(w.HintsCut, c.Database.CutHints)
}

// crash stops a process, and starts it again later, or never where others of
// its kind are left.
func (c *Cluster) crash(p *process, kind []*process) {
	if !p.up() {
		return
	}
	c.stop(p, false)
	if c.rnd.Chance(c.weather.NeverBack) && c.othersLeft(p, kind) {
		c.Tell(p.name, "will not come back")
		p.gone = true
		return
	}
	incarnation := p.incarnation
	c.After(c.rnd.Soon(200*time.Millisecond, c.weather.DownFor), func() {
		if p.incarnation == incarnation && !p.up() && (p.host == nil || p.host.Up()) {
			c.bootUp(p)
		}
	})
}

func (c *Cluster) othersLeft(p *process, kind []*process) bool {
	for _, other := range kind {
		if other != p && !other.gone {
			return true
		}
	}
	return false
}

func (c *Cluster) stop(p *process, machineDied bool) {
	c.Tell(p.name, "crashes")
	p.node.Crash()
	c.Network.Gone(p.node, machineDied)
	if p.router != nil {
		c.Book.ProxyGone(p.name)
		p.router, p.tls.keeper = nil, nil
	}
	p.soundSince, p.ableSince = time.Time{}, time.Time{}
}

// crashMachine stops a drone's machine.
func (c *Cluster) crashMachine(p *process) {
	if !p.host.Up() {
		return
	}
	c.Tell(p.machine, "the machine stops")
	if p.up() {
		c.stop(p, true)
	}
	p.host.Crash()
	if c.rnd.Chance(c.weather.NeverBack) && c.othersLeft(p, c.drones) {
		c.Tell(p.machine, "will not come back")
		p.gone = true
		return
	}
	c.After(c.rnd.Soon(2*time.Second, c.weather.DownFor), func() { c.bootMachine(p) })
}

func (c *Cluster) bootMachine(p *process) {
	if p.host.Up() || p.gone {
		return
	}
	c.Tell(p.machine, "the machine starts")
	p.host.Boot()
	if !p.up() {
		c.bootUp(p)
	}
}

func (c *Cluster) exitOne(p *process) {
	if running := p.host.Running(); len(running) > 0 {
		p.host.ExitOne(running[c.rnd.IntN(len(running))])
	}
}

// everyone is all machines, and where the authority looks from.
func (c *Cluster) everyone() []string {
	all := []string{fake.ResolverMachine}
	for _, kind := range [][]*process{c.controllers, c.drones, c.proxies, c.receivers} {
		for _, p := range kind {
			all = append(all, p.machine)
		}
	}
	return all
}

// cutSomewhere cuts two machines off from each other, or one off from all.
func (c *Cluster) cutSomewhere() {
	all := c.everyone()
	a := all[c.rnd.IntN(len(all))]
	others := []string{all[c.rnd.IntN(len(all))]}
	if c.rnd.Chance(0.5) {
		others = all
	}
	oneWay := c.rnd.Chance(c.weather.OneWay)
	out := !oneWay || c.rnd.Chance(0.5)
	in := !oneWay || !out
	length := c.rnd.Soon(500*time.Millisecond, c.weather.CutFor)
	c.Tell("network", "%s is cut off from %d machines (out: %v, in: %v) for %v", a, len(others), out, in, length.Round(time.Millisecond))
	for _, b := range others {
		if b == a {
			continue
		}
		if out {
			c.cut(a, b, length)
		}
		if in {
			c.cut(b, a, length)
		}
	}
}

func (c *Cluster) cut(from, to string, length time.Duration) {
	c.Network.Cut(from, to)
	c.After(length, func() { c.Network.Heal(from, to) })
}

// heal ends the weather: all that is coming back is back, and no call fails any
// more.
func (c *Cluster) heal() {
	c.Tell("world", "the weather is over")
	c.calm = true
	c.weather = fault.Calm()
	c.Network.HealAll()
	c.authority.Heal()
	for _, p := range c.proxies {
		p.tls.wrong.Store(0)
	}
	for _, p := range c.drones {
		p.host.ServeAll()
		c.bootMachine(p)
	}
	for _, kind := range [][]*process{c.controllers, c.drones, c.proxies, c.receivers} {
		for _, p := range kind {
			if !p.gone && !p.up() && (p.host == nil || p.host.Up()) {
				c.bootUp(p)
			}
		}
	}
}
