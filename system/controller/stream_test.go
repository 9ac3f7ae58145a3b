package controller_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/backend"
	"plane/system/controller"
	"plane/system/port"
	"plane/system/protocol"
)

// forgetful is a store that sometimes does not tell what was.
type forgetful struct {
	port.Store
	away atomic.Bool
}

func (f *forgetful) History(ctx context.Context, id string, after backend.Status) ([]port.HistoryEntry, error) {
	if f.away.Load() {
		return nil, errUnclear
	}
	return f.Store.History(ctx, id, after)
}

// A fail-over ends no stream, however often everybody is told to look again; an
// outage that does not end ends it, and so its reader asks elsewhere.
func TestAStatusStreamOutlivesAnOutage(t *testing.T) {
	inBubble(t, everyHint, func(r *rig) {
		store := &forgetful{Store: r.store.Store}
		r.store = &flaky{Store: store}
		r = r.join("co-2", func(*controller.Config) {})
		d := r.drone("dr-1")
		a := r.connect(spawnBoard)
		var told []backend.Status
		var alive atomic.Int32
		over := make(chan error, 1)
		go func() {
			over <- r.StatusStream(r.Context(), a.BackendID, 0, func(e protocol.StatusEntry) error {
				told = append(told, e.Status)
				return nil
			}, func() error { alive.Add(1); return nil })
		}()
		pass(time.Second)
		store.away.Store(true)
		for range 20 {
			d.report(a.BackendID, backend.State{Status: backend.Loading}) // each is a reason to look
			pass(2 * time.Second)
		}
		require.Empty(r, over)
		require.GreaterOrEqual(r, alive.Swap(0), int32(4), "the reader is told that the stream is there")
		store.away.Store(false)
		pass(10 * time.Second)
		require.Equal(r, []backend.Status{backend.Scheduled, backend.Loading}, told)
		store.away.Store(true)
		pass(80 * time.Second)
		require.ErrorContains(r, <-over, "DatabaseError")
	})
}
