package fake

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"plane/sim/world"
	"plane/system/port"
	"plane/system/protocol"
)

// Machine is a drone's machine: its clock, its container engine with what runs
// in it, its disk, and the lease guard. It outlives the agent. What it knows is
// the truth about containers; Witness hears of every change.
type Machine struct {
	Name    string
	IP      string
	Clock   world.Clockwork
	Witness Witness

	env        *Env
	rnd        *world.Rand
	up         bool
	boots      int
	containers map[string]*Container
	downUntil  time.Time // of the engine
	exits      []*exitQueue
	guarded    map[string]*guardEntry
	disk       *disk
	ports      *portTable
}

// Container is the truth about a container.
type Container struct {
	Machine   *Machine
	BackendID string
	Key       protocol.Key
	Fencing   int64
	Address   string
	Port      int
	Running   bool
	StartedAt time.Time // true time
	EndedAt   time.Time

	started bool
	serves  time.Time // true time from which it answers; zero: never
	exit    *int
	oom     bool
	serial  int
}

// Witness hears, with the lock held, of what happens to containers.
type Witness interface {
	ContainerStarted(c *Container)
	ContainerEnded(c *Container)
	// ContainerStopped tells that an agent's Stop, Kill or Remove reached a
	// container that runs, before it has its effect.
	ContainerStopped(c *Container, how string)
}

// NewMachine makes a machine that runs.
func NewMachine(env *Env, name, ip string, clock world.Clockwork, witness Witness) *Machine {
	return &Machine{
		Name: name, IP: ip, Clock: clock, Witness: witness,
		env: env, rnd: env.Stream("machine " + name), up: true, boots: 1,
		containers: map[string]*Container{}, guarded: map[string]*guardEntry{},
		disk: newDisk(), ports: newPortTable(),
	}
}

// Up reports whether the machine runs. Needs the lock.
func (m *Machine) Up() bool { return m.up }

// Running returns the containers that run, in order of backend. Needs the lock.
func (m *Machine) Running() []*Container {
	var running []*Container
	for _, id := range slices.Sorted(maps.Keys(m.containers)) {
		if c := m.containers[id]; c.Running {
			running = append(running, c)
		}
	}
	return running
}

// At returns what runs and listens at a port, or nil. Needs the lock.
func (m *Machine) At(portNumber int) *Container {
	if !m.up {
		return nil
	}
	for _, c := range m.Running() {
		if c.Port == portNumber {
			return c
		}
	}
	return nil
}

// Serving reports whether the container answers HTTP. Needs the lock.
func (c *Container) Serving(now time.Time) bool {
	return c.Running && !c.serves.IsZero() && !now.Before(c.serves)
}

// Crash stops the machine with all that runs on it. Needs the lock.
func (m *Machine) Crash() {
	m.up = false
	m.exits = nil
	for _, c := range m.Running() {
		m.end(c, nil, false)
	}
}

// Boot starts it again, with its disk. Needs the lock.
func (m *Machine) Boot() {
	m.up = true
	m.boots++
	m.downUntil = time.Time{}
}

// RestartEngine takes the engine away for a moment; what runs in it goes on or
// dies. Needs the lock.
func (m *Machine) RestartEngine() {
	kill := m.rnd.Chance(0.3)
	m.env.Tell(m.Name, "engine restarts (containers die: %v)", kill)
	m.downUntil = m.env.Now().Add(m.rnd.Between(100*time.Millisecond, 2*time.Second))
	for _, q := range m.exits {
		q.cut()
	}
	if kill {
		for _, c := range m.Running() {
			m.end(c, nil, false)
		}
	}
}

// ExitOne lets a container end by itself. Needs the lock.
func (m *Machine) ExitOne(c *Container) {
	if !c.Running {
		return
	}
	code := []int{0, 1, 137}[m.rnd.IntN(3)]
	oom := m.rnd.Chance(m.env.Weather.OutOfMemory)
	if oom {
		code = 137
	}
	m.end(c, &code, oom)
}

// Guarded returns until when the guard lets the backend's container run. Needs
// the lock.
func (m *Machine) Guarded(backendID string) (deadline time.Time, guarded bool) {
	if g := m.guarded[backendID]; g != nil {
		return g.deadline, true
	}
	return time.Time{}, false
}

// Record returns what the present agent has written, or tried to, in the drone's
// journal of a backend. Needs the lock.
func (m *Machine) Record(backendID string) (port.Record, bool) {
	rec, ok := m.disk.wanted[backendID]
	return rec, ok
}

// Confirmed returns the deadline that the guard last told an agent to have set.
// Needs the lock.
func (m *Machine) Confirmed(backendID string) (deadline time.Time, ok bool) {
	if g := m.guarded[backendID]; g != nil && !g.confirmed.IsZero() {
		return g.confirmed, true
	}
	return time.Time{}, false
}

// ServeAll lets every container that runs answer HTTP. Needs the lock.
func (m *Machine) ServeAll() {
	for _, c := range m.Running() {
		if c.serves.IsZero() {
			c.serves = m.env.Now()
		}
	}
}

// EngineUp reports whether the engine answers. Needs the lock.
func (m *Machine) EngineUp() bool { return m.up && !m.env.Now().Before(m.downUntil) }

// run starts a container.
func (m *Machine) run(c *Container) {
	now := m.env.Now()
	c.Running, c.started, c.StartedAt = true, true, now
	if !m.rnd.Chance(m.env.Weather.NeverReady) {
		c.serves = now.Add(m.rnd.Soon(5*time.Millisecond, 4*time.Second))
	}
	m.env.Tell(m.Name, "container of %s starts for key %s at %s, fencing token %d", c.BackendID, c.Key.Name, c.Address, c.Fencing)
	m.Witness.ContainerStarted(c)
	if g := m.guarded[c.BackendID]; g != nil {
		m.watch(g)
	}
}

// end ends a container that runs.
func (m *Machine) end(c *Container, exit *int, oom bool) {
	c.Running, c.EndedAt, c.exit, c.oom = false, m.env.Now(), exit, oom
	m.env.Tell(m.Name, "container of %s ends", c.BackendID)
	m.Witness.ContainerEnded(c)
	for _, q := range m.exits {
		q.tell(m, c.BackendID)
	}
}

func (c *Container) seen() port.Container {
	seen := port.Container{
		BackendID: c.BackendID, ID: fmt.Sprintf("%s-%d", c.BackendID, c.serial), Address: c.Address,
		Running: c.Running, Started: c.started, OOM: c.oom,
	}
	if c.exit != nil {
		code := *c.exit
		seen.ExitCode = &code
	}
	return seen
}

// guardEntry is what the guard keeps on disk for a backend.
type guardEntry struct {
	backendID string
	deadline  time.Time // on the machine's clock
	confirmed time.Time // the last one that its agent knows to be set
	timer     world.Timer
}

// watch kills the guarded container at its deadline, or at once when that has
// passed.
func (m *Machine) watch(g *guardEntry) {
	if g.timer != nil {
		g.timer.Stop()
	}
	wait := m.Clock.True(g.deadline).Sub(m.env.Now())
	g.timer = m.env.After(max(wait, 0)+m.rnd.Between(50*time.Millisecond, 2*time.Second), func() {
		g.timer = nil
		if c := m.containers[g.backendID]; c != nil && c.Running && m.up {
			m.env.Tell(m.Name, "the guard kills %s", g.backendID)
			code := 137
			m.end(c, &code, false)
		}
	})
}
