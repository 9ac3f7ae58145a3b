package memory_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/memory"
	"plane/system/backend"
	"plane/system/port"
	"plane/system/porttest"
)

// spoil makes of a store what several controllers have of it.
func spoil(spoiled func(port.Store) port.Store) porttest.StoresUnderTest {
	c := &handClock{now: time.UnixMilli(1_900_000_000_000)}
	s := memory.New(c)
	shared := spoiled(s)
	return porttest.StoresUnderTest{Stores: []port.Store{shared, shared}, Calm: s, Advance: c.advance}
}

func TestStoreConcurrently(t *testing.T) {
	porttest.StoreConcurrently(t, 200, spoil(func(s port.Store) port.Store { return s }))
}

func TestStoreConcurrentlyWithUnclearFailures(t *testing.T) {
	s := spoil(func(s port.Store) port.Store { return unclear{s} })
	s.Cut = func(int) {} // which happens anyway
	porttest.StoreConcurrently(t, 200, s)
}

// TestABrokenStoreIsCaught shows that the suite can fail.
func TestABrokenStoreIsCaught(t *testing.T) {
	for name, spoiled := range map[string]func(port.Store) port.Store{
		"a connect that looks first and then acts":        func(s port.Store) port.Store { return &lookThenAct{Store: s, seen: map[string]port.Connected{}} },
		"a renewal that is granted whoever holds the key": func(s port.Store) port.Store { return generous{s} },
		"a report that is lost":                           func(s port.Store) port.Store { return forgetful{s} },
		"a revocation that comes late":                    func(s port.Store) port.Store { return &late{Store: s} },
	} {
		t.Run(name, func(t *testing.T) {
			require.False(t, porttest.Linearizable(t, 50, spoil(spoiled)))
		})
	}
}

var errCut = errors.New("connection reset by peer")

// unclear now and then fails, before or after the effect.
type unclear struct{ port.Store }

func (u unclear) fails(call func() error) error {
	const often = 0.08
	if rand.Float64() < often {
		return errCut
	}
	if err := call(); err != nil {
		return err
	}
	if rand.Float64() < often {
		return errCut
	}
	return nil
}

func (u unclear) Connect(ctx context.Context, p port.ConnectParams) (c port.Connected, err error) {
	err = u.fails(func() error { c, err = u.Store.Connect(ctx, p); return err })
	return c, err
}

func (u unclear) RenewKeys(ctx context.Context, r []port.Renewal) (renewed []bool, err error) {
	err = u.fails(func() error { renewed, err = u.Store.RenewKeys(ctx, r); return err })
	return renewed, err
}

func (u unclear) RecordStates(ctx context.Context, r []port.StateReport) (outcomes []port.RecordOutcome, err error) {
	err = u.fails(func() error { outcomes, err = u.Store.RecordStates(ctx, r); return err })
	return outcomes, err
}

func (u unclear) Revoke(ctx context.Context, id, user string) error {
	return u.fails(func() error { return u.Store.Revoke(ctx, id, user) })
}

// lookThenAct loses atomicity: between its look at a key and its answer another
// may have ended what it has seen.
type lookThenAct struct {
	port.Store
	mu   sync.Mutex
	seen map[string]port.Connected
}

func (l *lookThenAct) Connect(ctx context.Context, p port.ConnectParams) (port.Connected, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c, ok := l.seen[p.Key.Name]; ok && rand.IntN(4) == 0 {
		c.Spawned = false
		return c, nil
	}
	c, err := l.Store.Connect(ctx, p)
	if err == nil {
		l.seen[p.Key.Name] = c
	}
	return c, err
}

// generous grants every renewal.
type generous struct{ port.Store }

func (g generous) RenewKeys(ctx context.Context, r []port.Renewal) ([]bool, error) {
	renewed, err := g.Store.RenewKeys(ctx, r)
	for i := range renewed {
		renewed[i] = true
	}
	return renewed, err
}

// forgetful says that it recorded what it did not.
type forgetful struct{ port.Store }

func (f forgetful) RecordStates(ctx context.Context, r []port.StateReport) ([]port.RecordOutcome, error) {
	if r[0].State.Status == backend.Terminated && rand.IntN(3) == 0 {
		return []port.RecordOutcome{port.Recorded}, nil
	}
	return f.Store.RecordStates(ctx, r)
}

// late has revocations take effect at the next one.
type late struct {
	port.Store
	mu      sync.Mutex
	pending string
}

func (l *late) Revoke(ctx context.Context, id, user string) error {
	if _, err := l.Backend(ctx, id); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.pending
	l.pending = id
	if old == "" {
		return nil
	}
	return l.Store.Revoke(ctx, old, user)
}
