package fake

import (
	"context"
	"errors"
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

// newStore is an empty database, seen by one node.
func newStore(t *testing.T) porttest.OperationsUnderTest {
	env := newEnv(t)
	n := env.node("co-1")
	env.Lock()
	defer env.Unlock()
	// Its clock hardly runs by itself: what the suite waits for is its own.
	db := NewDatabase(env, world.Clockwork{})
	store := db.Store(n)
	return porttest.OperationsUnderTest{
		Operations: store,
		StoreUnderTest: porttest.StoreUnderTest{
			Store: store, Listener: db.Listen(n), Second: time.Second,
			Advance: func(d time.Duration) {
				env.Lock()
				defer env.Unlock()
				db.clock.advance(d)
			},
		},
	}
}

func openStore(t *testing.T) porttest.StoreUnderTest { return newStore(t).StoreUnderTest }

func TestStore(t *testing.T) { porttest.Store(t, openStore) }

func TestChallenges(t *testing.T) { porttest.Challenges(t, openStore) }

func TestOperations(t *testing.T) { porttest.Operations(t, newStore) }

// TestStoreConcurrently has the fake fail before and after its effect, as the
// simulator does.
func TestStoreConcurrently(t *testing.T) {
	env := newEnv(t)
	env.Weather.StoreFails, env.Weather.StoreLies = 0.05, 0.05
	one, two := env.node("co-1"), env.node("co-2")
	env.Lock()
	db := NewDatabase(env, world.Clockwork{})
	stores := []port.Store{db.Store(one), db.Store(two)}
	env.Unlock()
	porttest.StoreConcurrently(t, 25, porttest.StoresUnderTest{
		Stores: stores, Calm: insistent{stores[0]}, Cut: func(int) {},
		Advance: func(d time.Duration) {
			env.Lock()
			defer env.Unlock()
			db.clock.advance(d)
		},
	})
}

// insistent is a store that is asked until it answers.
type insistent struct{ port.Store }

func insist[T any](ask func() (T, error)) (v T, err error) {
	for {
		if v, err = ask(); !errors.Is(err, ErrInjected) {
			return v, err
		}
	}
}

func (s insistent) RegisterNode(ctx context.Context, n port.NodeRegistration) (port.NodeID, error) {
	return insist(func() (port.NodeID, error) { return s.Store.RegisterNode(ctx, n) })
}

func (s insistent) Heartbeats(ctx context.Context, beats []port.DroneHeartbeat) error {
	_, err := insist(func() (struct{}, error) { return struct{}{}, s.Store.Heartbeats(ctx, beats) })
	return err
}

func (s insistent) Connect(ctx context.Context, p port.ConnectParams) (port.Connected, error) {
	return insist(func() (port.Connected, error) { return s.Store.Connect(ctx, p) })
}

func (s insistent) RouteToken(ctx context.Context, token string) (port.Route, error) {
	return insist(func() (port.Route, error) { return s.Store.RouteToken(ctx, token) })
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

func TestCertStore(t *testing.T) {
	porttest.CertStore(t, func(t *testing.T) (port.CertStore, func() port.CertStore) {
		env := newEnv(t)
		env.Lock()
		a := NewAuthority(env, NewDatabase(env, world.Clockwork{}), nil, "c", time.Minute, false, false, nil)
		env.Unlock()
		disk := &CertDisk{}
		open := func() port.CertStore { return a.CertStore(env.node("px-1"), disk) }
		return open(), open
	})
}
