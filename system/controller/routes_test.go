package controller_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/backend"
	"plane/system/controller"
	"plane/system/port"
	"plane/system/protocol"
)

// counted is a store that counts looks at statuses, which may take their time.
type counted struct {
	port.Store
	looks, backends, singles atomic.Int32
	slow                     atomic.Bool
}

const slowLook = 3 * time.Second

func (c *counted) Statuses(ctx context.Context, ids []string) ([]backend.Status, error) {
	c.looks.Add(1)
	c.backends.Add(int32(len(ids)))
	if c.slow.Load() {
		time.Sleep(slowLook) //nolint:forbidigo // the time of the bubble
	}
	return c.Store.Statuses(ctx, ids)
}

func (c *counted) Backend(ctx context.Context, id string) (port.Backend, error) {
	c.singles.Add(1)
	if c.slow.Load() {
		time.Sleep(slowLook) //nolint:forbidigo // the time of the bubble
	}
	return c.Store.Backend(ctx, id)
}

// counting is the rig with one more controller, whose looks are counted.
func (r *rig) counting() (*rig, *counted) {
	r.Helper()
	other, store := *r, &counted{Store: r.store.Store}
	other.store = &flaky{Store: store}
	return other.join("co-2", func(*controller.Config) {}), store
}

// routed makes ready backends whose routes the proxy knows.
func (r *rig) routed(d, p *peer, n int) []protocol.ConnectResponse {
	r.Helper()
	made, answers := make([]protocol.ConnectResponse, n), 0
	for i := range made {
		made[i] = r.connect(fmt.Sprintf(`{"key":{"name":"k%d"},"spawn_config":{"executable":{}}}`, i))
		d.report(made[i].BackendID, ready)
		p.say(protocol.RouteInfoRequest{Token: made[i].Token})
		answers += len(toProxy[protocol.RouteInfoResponse](p))
	}
	require.Equal(r, n, answers)
	return made
}

// A controller that stops between a commit and its hint tells nobody of an end.
func TestAProxyHearsOfAnEndWithoutAHint(t *testing.T) {
	inBubble(t, noHint, func(r *rig) {
		r, store := r.counting()
		d, p, q := r.drone("dr-1"), r.proxy("px-1"), r.proxy("px-2")
		made := r.routed(d, p, 5)
		q.say(protocol.RouteInfoRequest{Token: made[1].Token})
		pass(5 * time.Second)
		store.looks.Store(0)
		pass(40 * time.Second)
		require.EqualValues(r, 2, store.looks.Load(), "one statement for all, every 20 s")
		require.Zero(r, store.singles.Load())
		d.report(made[1].BackendID, terminated(backend.External))
		pass(21 * time.Second)
		for _, proxy := range []*peer{p, q} {
			require.Equal(r, []protocol.BackendRemoved{{Backend: made[1].BackendID}}, toProxy[protocol.BackendRemoved](proxy))
		}
		store.backends.Store(0)
		pass(20 * time.Second)
		require.EqualValues(r, 4, store.backends.Load(), "what is gone is watched no longer")
	})
}

// resyncing loses all hints but one when it is told to.
type resyncing struct {
	port.Listener
	now *atomic.Bool
}

func (l resyncing) Next(ctx context.Context) (port.Hint, error) {
	for {
		if hint, err := l.Listener.Next(ctx); err != nil || l.now.Swap(false) {
			return port.Hint{Topic: port.ResyncTopic}, err
		} else if hint.Topic == port.ActionTopic {
			return hint, nil
		}
	}
}

// After a fail-over all that a proxy knows is looked at again: some hundreds at
// a time, and lookups do not wait for the last of them.
func TestLookupsDoNotWaitForAResync(t *testing.T) {
	var now atomic.Bool
	listening(t, func(l port.Listener) port.Listener { return resyncing{l, &now} }, func(r *rig) {
		r, store := r.counting()
		d, p := r.drone("dr-1"), r.proxy("px-1")
		made := r.routed(d, p, 1200)
		pass(5 * time.Second)
		store.looks.Store(0)
		store.singles.Store(0)
		store.slow.Store(true)
		now.Store(true)
		d.report(made[7].BackendID, terminated(backend.External)) // a hint of which makes a resync
		p.say(protocol.RouteInfoRequest{Token: made[3].Token})
		pass(slowLook + 100*time.Millisecond)
		require.Len(r, toProxy[protocol.RouteInfoResponse](p), 1)
		pass(3 * slowLook)
		require.LessOrEqual(r, store.looks.Load(), int32(5))
		require.Zero(r, store.singles.Load())
	})
}
