package lease_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/lease"
)

func TestSlots(t *testing.T) {
	// What its name adds for a drone, with slots of half a second.
	const added = 481 * time.Millisecond
	at := func(d time.Duration) time.Time { return time.UnixMilli(1_700_000_000_000).Add(added + d) }
	ms := time.Millisecond
	for _, c := range []struct {
		name  string
		every time.Duration
		t     time.Time
		want  time.Time
	}{
		{"in a slot", 500 * ms, at(0), at(0)},
		{"just after it", 500 * ms, at(1), at(0)},
		{"a millisecond after it", 500 * ms, at(ms), at(0)},
		{"just before the next", 500 * ms, at(500*ms - 1), at(0)},
		{"in the next", 500 * ms, at(500 * ms), at(500 * ms)},
		{"just before it", 500 * ms, at(-1), at(-500 * ms)},
		{"a clock before 1970", 500 * ms, time.UnixMilli(-10_000).Add(added + 7*ms), time.UnixMilli(-10_000).Add(added)},
		{"and in a slot", 500 * ms, time.UnixMilli(-10_000).Add(added), time.UnixMilli(-10_000).Add(added)},
		{"a clock of the year 9999", 500 * ms, time.UnixMilli(253_402_300_000_000).Add(added + 499*ms), time.UnixMilli(253_402_300_000_000).Add(added)},
		{"no slots", 0, at(123456), at(123456)},
		{"slots of a millisecond", ms, at(7*ms + 5), at(7 * ms)},
	} {
		t.Run(c.name, func(t *testing.T) {
			require.Equal(t, c.want.UTC(), lease.SlotsOf("dr-a", c.every).Last(c.t).UTC())
		})
	}
}

// Whatever the time, it is less than one slot earlier; and what was asked for in
// a slot, or a little late, is asked for 12 s after that slot, for ever.
func TestSlotsLie12SecondsApart(t *testing.T) {
	const every = 500 * time.Millisecond
	offsets := map[time.Duration]bool{}
	for i := range 100 {
		slots := lease.SlotsOf(fmt.Sprint("dr-", i), every)
		slot := slots.Last(time.UnixMilli(1_700_000_000_000))
		offsets[time.Duration(slot.UnixMilli())%every] = true
		for late := time.Duration(0); late < every; late += 7_654_321 {
			require.True(t, slots.Last(slot.Add(late)).Equal(slot))
			asked := slot.Add(late).Truncate(time.Millisecond)
			require.True(t, slots.Last(asked.Add(12*time.Second)).Equal(slot.Add(12*time.Second)))
		}
	}
	require.Greater(t, len(offsets), 80, "drones have their own")
}
