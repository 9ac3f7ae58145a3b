package controller_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/lease"
	"plane/system/protocol"
)

// What a drone asks for in one slot is one batch for the store, and what comes
// later another.
func TestABurstOfRenewalsIsOneBatch(t *testing.T) {
	inBubble(t, everyHint, func(r *rig) {
		d := r.drone("dr-1")
		a := r.connect(spawnBoard)
		before := len(r.store.batches())
		for i := range 50 {
			d.say(protocol.RenewKey{Backend: a.BackendID, LocalTime: protocol.Millis{Time: time.UnixMilli(2_000_000 + int64(i))}})
			pass(200 * time.Microsecond)
		}
		pass(9 * time.Millisecond)
		require.Empty(r, toDrone[protocol.RenewKeyResponse](d), "20 ms from the first on, more may come")
		pass(2 * time.Millisecond)
		answers := toDrone[protocol.RenewKeyResponse](d)
		require.Len(r, answers, 50)
		for i, answer := range answers {
			require.Equal(r, lease.Default().Deadlines(time.UnixMilli(2_000_000+int64(i))).RenewAt.UnixMilli(), answer.Deadlines.RenewAt.UnixMilli(), "in order, and each counted from its own time")
		}
		d.say(protocol.RenewKey{Backend: a.BackendID, LocalTime: protocol.Millis{Time: time.UnixMilli(3_000_000)}})
		pass(20 * time.Millisecond)
		require.Equal(r, []int{50, 1}, r.store.batches()[before:])
	})
}
