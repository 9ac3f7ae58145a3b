package fake

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/sim/bubble"
	"plane/sim/fault"
	"plane/sim/world"
	"plane/system/port"
	"plane/system/porttest"
)

// newEnv is a calm world on real goroutines and, since the suites make
// subtests, in real time.
func newEnv(t *testing.T) *Env {
	w := bubble.New(1)
	t.Cleanup(w.Close)
	calm := fault.Calm()
	return &Env{World: w, Weather: &calm}
}

func (e *Env) node(name string) world.Node {
	e.Lock()
	defer e.Unlock()
	return e.Start(name, 1, world.Clockwork{})
}

func TestStore(t *testing.T) {
	porttest.Store(t, func(t *testing.T) porttest.StoreUnderTest {
		env := newEnv(t)
		n := env.node("co-1")
		env.Lock()
		defer env.Unlock()
		// Its clock hardly runs by itself: what the suite waits for is its own.
		db := NewDatabase(env, world.Clockwork{})
		return porttest.StoreUnderTest{
			Store: db.Store(n), Listener: db.Listen(n), Second: time.Second,
			Advance: func(d time.Duration) {
				env.Lock()
				defer env.Unlock()
				db.clock.Offset += d
			},
		}
	})
}

// silent is a Witness that does not care.
type silent struct{}

func (silent) ContainerStarted(*Container)         {}
func (silent) ContainerEnded(*Container)           {}
func (silent) ContainerStopped(*Container, string) {}

func newMachine(t *testing.T) *Machine {
	env := newEnv(t)
	env.Lock()
	defer env.Unlock()
	return NewMachine(env, "m-1", "10.0.0.5", world.Clockwork{}, silent{})
}

func TestJournal(t *testing.T) {
	porttest.Journal(t, func(t *testing.T) (port.Journal, func() port.Journal) {
		m := newMachine(t)
		open := func() port.Journal {
			n := m.env.node("dr-1")
			m.env.Lock()
			defer m.env.Unlock()
			return m.Journal(n)
		}
		return open(), open
	})
}

func TestPorts(t *testing.T) {
	porttest.Ports(t, func(t *testing.T) porttest.PortsWorld {
		m := newMachine(t)
		return porttest.PortsWorld{
			Range: portCount,
			Open:  func(drone string) port.Ports { return m.Ports(m.env.node(drone), drone) },
			Pass: func(d time.Duration) {
				m.env.Lock()
				defer m.env.Unlock()
				m.Clock.Offset += d
			},
		}
	})
}

func TestConn(t *testing.T) {
	porttest.Conn(t, func(t *testing.T) (a, b port.Conn) {
		env := newEnv(t)
		client, server := env.node("client"), env.node("server")
		accepted := make(chan port.Conn, 1)
		env.Lock()
		network := NewNetwork(env)
		network.Listen("server", server, "m-2", func(_ context.Context, _ string, conn port.Conn) { accepted <- conn })
		env.Unlock()
		conn, err := network.Dial(t.Context(), client, "m-1", "server", "/")
		require.NoError(t, err)
		return conn, <-accepted
	})
}
