package lease

import (
	"hash/fnv"
	"time"
)

// Slots are the times at which one drone asks for renewals: what it asks for
// within a slot it asks for at once, so that it travels and is stored together.
// Different drones have theirs at different times.
type Slots struct{ every, offset int64 } // in milliseconds, as the drone's clock is told

// SlotsOf makes the slots of a drone, so far apart in whole milliseconds. With 0
// each time is a slot.
func SlotsOf(drone string, every time.Duration) Slots {
	s := Slots{every: every.Milliseconds()}
	if s.every > 0 {
		h := fnv.New64a()
		_, _ = h.Write([]byte(drone)) // never fails
		s.offset = int64(h.Sum64() % uint64(s.every))
	}
	return s
}

// Last is the last slot that is not after t.
func (s Slots) Last(t time.Time) time.Time {
	if s.every <= 0 {
		return t
	}
	past := (t.UnixMilli() - s.offset) % s.every
	if past < 0 {
		past += s.every // before 1970
	}
	return t.Truncate(time.Millisecond).Add(-time.Duration(past) * time.Millisecond)
}
