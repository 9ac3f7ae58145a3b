package fake

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"plane/sim/world"
	"plane/system/port"
)

// Engine is a node's way to the container engine of its machine; it implements
// port.ContainerRuntime. A call can fail, be slow, or fail after it has worked;
// a call whose caller has given up or died still takes effect within a second,
// or not at all.
type Engine struct {
	m    *Machine
	node world.Node
	exit *exitQueue
}

var _ port.ContainerRuntime = (*Engine)(nil)

// Engine gives a node the machine's engine. Needs the lock.
func (m *Machine) Engine(node world.Node) *Engine {
	q := &exitQueue{node: node, arrived: node.Tasks().EventCount()}
	m.exits = slices.DeleteFunc(m.exits, func(old *exitQueue) bool { return !old.node.Alive() })
	m.exits = append(m.exits, q)
	return &Engine{m, node, q}
}

// executable is what a simulated backend is asked for with.
type executable struct {
	Bad bool `json:"bad"`
}

// Validate implements port.ContainerRuntime.
func (e *Engine) Validate(spec port.ContainerSpec) error {
	var x executable
	if err := json.Unmarshal(spec.Executable, &x); err != nil {
		return fmt.Errorf("%w: %w", port.ErrBadExecutable, err)
	}
	if x.Bad {
		return fmt.Errorf("%w: it asks to be refused", port.ErrBadExecutable)
	}
	return nil
}

// request sends one call to the engine. serve makes the change there and says
// how it went; the weather may keep it from being called, or change the answer.
func request[T any](ctx context.Context, e *Engine, what string, lo, hi time.Duration, serve func() (T, error)) (T, error) {
	var zero T
	m := e.m
	e.node.Enter()
	if ctx.Err() != nil {
		return zero, context.Cause(ctx)
	}
	a := &answer[T]{err: fmt.Errorf("engine: %s: %w: no answer", what, ErrInjected)}
	answered := e.node.Tasks().EventCount()

	m.env.Lock()
	w := m.env.Weather
	fails, lies := m.rnd.Chance(w.EngineFails), m.rnd.Chance(w.EngineLies)
	before := m.rnd.Soon(lo, hi)
	if m.rnd.Chance(w.EngineSlow) {
		before = m.rnd.Between(hi, 4*hi)
	}
	served, boots := false, m.boots
	act := func() {
		served = true
		if m.up && m.boots == boots && !fails && !m.env.Now().Before(m.downUntil) {
			if v, err := serve(); !lies {
				a.value, a.err = v, err
			}
		}
	}
	t := m.env.After(before, func() {
		act()
		m.env.After(m.rnd.Soon(time.Millisecond, 20*time.Millisecond), answered.Advance)
	})
	m.env.Unlock()

	defer func() {
		m.env.Lock()
		defer m.env.Unlock()
		if !served {
			t.Stop()
			if m.rnd.Chance(0.5) {
				m.env.After(m.rnd.Between(0, time.Second), act)
			}
		}
	}()
	if err := answered.Await(ctx, 0); err != nil {
		return zero, err
	}
	e.node.Enter()
	m.env.Lock()
	defer m.env.Unlock()
	return a.value, a.err
}

type none struct{}

// Pull implements port.ContainerRuntime.
func (e *Engine) Pull(ctx context.Context, _ port.ContainerSpec, progress func(string)) error {
	progress("pulling")
	_, err := request(ctx, e, "pull", 5*time.Millisecond, 5*time.Second, func() (none, error) { return none{}, nil })
	return err
}

// Start implements port.ContainerRuntime.
func (e *Engine) Start(ctx context.Context, spec port.ContainerSpec) (port.Container, error) {
	return request(ctx, e, "start", 80*time.Millisecond, 2*time.Second, func() (port.Container, error) {
		return e.m.start(spec)
	})
}

func (m *Machine) start(spec port.ContainerSpec) (port.Container, error) {
	c := m.containers[spec.BackendID]
	if c == nil {
		ip, err := netip.ParseAddr(m.IP)
		if err != nil {
			return port.Container{}, err
		}
		c = &Container{
			Machine: m, BackendID: spec.BackendID, Key: spec.Key, Fencing: spec.FencingToken, Port: spec.Port,
			Address: netip.AddrPortFrom(ip, uint16(spec.Port)).String(), serial: m.rnd.IntN(1e6),
		}
		m.containers[spec.BackendID] = c
	}
	if c.started {
		return c.seen(), nil
	}
	c.Port, c.Fencing = spec.Port, spec.FencingToken
	c.Address = netip.AddrPortFrom(netip.MustParseAddr(m.IP), uint16(spec.Port)).String()
	if m.At(spec.Port) != nil || m.rnd.Chance(m.env.Weather.PortTaken) {
		delete(m.containers, spec.BackendID)
		return port.Container{}, fmt.Errorf("start %s at port %d: %w", spec.BackendID, spec.Port, port.ErrPortTaken)
	}
	m.run(c)
	return c.seen(), nil
}

// Stop implements port.ContainerRuntime. Some programs take their time to end,
// and some do not listen.
func (e *Engine) Stop(ctx context.Context, backendID string) error {
	_, err := request(ctx, e, "stop", time.Millisecond, 200*time.Millisecond, func() (none, error) {
		c, ok := e.m.containers[backendID]
		if !ok || !c.Running {
			return none{}, fmt.Errorf("stop %s: %w", backendID, port.ErrNoContainer)
		}
		e.m.Witness.ContainerStopped(c, "stop")
		if e.m.rnd.Chance(0.8) {
			e.m.env.After(e.m.rnd.Soon(10*time.Millisecond, 40*time.Second), func() {
				if c.Running && e.m.up {
					code := 0
					e.m.end(c, &code, false)
				}
			})
		}
		return none{}, nil
	})
	return err
}

// Kill implements port.ContainerRuntime.
func (e *Engine) Kill(ctx context.Context, backendID string) error {
	_, err := request(ctx, e, "kill", 10*time.Millisecond, time.Second, func() (none, error) {
		c, ok := e.m.containers[backendID]
		if !ok || !c.Running {
			return none{}, fmt.Errorf("kill %s: %w", backendID, port.ErrNoContainer)
		}
		e.m.Witness.ContainerStopped(c, "kill")
		code := 137
		e.m.end(c, &code, false)
		return none{}, nil
	})
	return err
}

// Remove implements port.ContainerRuntime.
func (e *Engine) Remove(ctx context.Context, backendID string) error {
	_, err := request(ctx, e, "remove", 10*time.Millisecond, time.Second, func() (none, error) {
		if c, ok := e.m.containers[backendID]; ok {
			if c.Running {
				e.m.Witness.ContainerStopped(c, "remove")
				code := 137
				e.m.end(c, &code, false)
			}
			delete(e.m.containers, backendID)
		}
		return none{}, nil
	})
	return err
}

// Inspect implements port.ContainerRuntime.
func (e *Engine) Inspect(ctx context.Context, backendID string) (port.Container, error) {
	return request(ctx, e, "inspect", time.Millisecond, 200*time.Millisecond, func() (port.Container, error) {
		c, ok := e.m.containers[backendID]
		if !ok {
			return port.Container{}, fmt.Errorf("inspect %s: %w", backendID, port.ErrNoContainer)
		}
		return c.seen(), nil
	})
}

// List implements port.ContainerRuntime.
func (e *Engine) List(ctx context.Context) ([]port.Container, error) {
	return request(ctx, e, "list", time.Millisecond, 200*time.Millisecond, func() ([]port.Container, error) {
		var all []port.Container
		for _, id := range slices.Sorted(maps.Keys(e.m.containers)) {
			all = append(all, e.m.containers[id].seen())
		}
		return all, nil
	})
}

// Stats implements port.ContainerRuntime.
func (e *Engine) Stats(ctx context.Context, backendID string) (port.Stats, error) {
	return request(ctx, e, "stats", time.Millisecond, 50*time.Millisecond, func() (port.Stats, error) {
		c, ok := e.m.containers[backendID]
		if !ok || !c.Running {
			return port.Stats{}, fmt.Errorf("stats %s: %w", backendID, port.ErrNoContainer)
		}
		age := e.m.env.Now().Sub(c.StartedAt)
		return port.Stats{MemUsed: 1 << 20, MemTotal: 1 << 30, MemLimit: 1 << 28, CPU: age / 100, SystemCPU: age}, nil
	})
}

// Prune implements port.ContainerRuntime.
func (e *Engine) Prune(ctx context.Context) error {
	_, err := request(ctx, e, "prune", time.Millisecond, time.Second, func() (none, error) { return none{}, nil })
	return err
}

// Exits implements port.ContainerRuntime.
func (e *Engine) Exits(ctx context.Context) (string, error) {
	e.node.Enter()
	q := e.exit
	for {
		seen := q.arrived.Read()
		e.m.env.Lock()
		if q.broken {
			q.broken = false
			e.m.env.Unlock()
			return "", fmt.Errorf("engine: events: %w: cut", ErrInjected)
		}
		if len(q.ended) > 0 {
			id := q.ended[0]
			q.ended = q.ended[1:]
			e.m.env.Unlock()
			return id, nil
		}
		e.m.env.Unlock()
		if err := q.arrived.Await(ctx, seen); err != nil {
			return "", err
		}
		e.node.Enter()
	}
}

// exitQueue is one agent's stream of ends.
type exitQueue struct {
	node    world.Node
	arrived port.EventCount
	ended   []string
	broken  bool
}

func (q *exitQueue) tell(m *Machine, backendID string) {
	if !q.node.Alive() || m.rnd.Chance(m.env.Weather.ExitMissed) {
		return
	}
	times := 1
	if m.rnd.Chance(m.env.Weather.ExitMissed) {
		times = 2
	}
	for range times {
		m.env.After(m.rnd.Soon(time.Millisecond, 500*time.Millisecond), func() {
			if q.node.Alive() {
				q.ended = append(q.ended, backendID)
				q.arrived.Advance()
			}
		})
	}
}

func (q *exitQueue) cut() {
	if q.node.Alive() {
		q.broken, q.ended = true, nil
		q.arrived.Advance()
	}
}
