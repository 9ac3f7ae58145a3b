package check

import (
	"slices"
	"time"

	"plane/system/backend"
)

// Seen is what one reader of a backend's status stream saw, in order, over all
// its reconnects (each of which asked for what comes after the last one seen).
type Seen struct {
	Reader   string
	Backend  string
	Statuses []backend.Status
}

// Ended reports whether the reader has seen the end.
func (s *Seen) Ended() bool {
	n := len(s.Statuses)
	return n > 0 && s.Statuses[n-1] == backend.Terminated
}

// Add notes the next entry.
func (b *Book) Add(s *Seen, status backend.Status) {
	if n := len(s.Statuses); n > 0 && status <= s.Statuses[n-1] { // G3
		b.Violate("G3", "reader %s of %s sees %s after %s", s.Reader, s.Backend, status, s.Statuses[n-1])
	}
	s.Statuses = append(s.Statuses, status)
	b.compare(s)
}

// compare holds what was seen against the one history.
func (b *Book) compare(s *Seen) {
	entries, err := b.ledger.History(s.Backend, 0)
	if err != nil {
		return // deleted; nothing to compare with
	}
	var history []backend.Status
	for _, e := range entries {
		history = append(history, e.State.Status)
	}
	from := slices.Index(history, s.Statuses[0])
	n := len(s.Statuses)
	if from < 0 || from+n > len(history) || !slices.Equal(history[from:from+n], s.Statuses) {
		b.Violate("G3", "reader %s of %s sees %v, but its history is %v", s.Reader, s.Backend, s.Statuses, history)
	}
}

// G11's bound counts from when the drone was cut off or died, which for its key
// is when its last renewal was committed: a slow network and a slow store may
// take their time with one that was under way. And no container may be dead for
// as long as deadContainer while its agent renews for it.
//
// Both are told on the store's clock, on which leases end. That excuses what it
// leaves out, and nothing else: all but a second of each time in which no
// controller reads it, because none is up or the database does not answer, and
// what the database's own clock is slow. In such a time no key comes back, and
// none leads anywhere, since nobody is there to ask.
const (
	keyReturns    = 65 * time.Second
	deadContainer = 3 * time.Minute
)

// Answered is called when a connect gave a backend (G11). It was sent when the
// store's clock showed asked; renewed is what that showed when the backend's
// lease was renewed last.
func (b *Book) Answered(key, backendID string, asked, renewed time.Time) {
	end, ok := b.ended[backendID]
	if !ok {
		return
	}
	if row, err := b.ledger.Backend(backendID); err == nil {
		renewed = later(renewed, row.CreatedAt)
	}
	if asked.Sub(renewed) > keyReturns || asked.Sub(end) > deadContainer {
		b.Violate("G11", "key %s still leads to %s, whose container ended %v of the store's time before the connect, and whose lease was renewed %v before", key, backendID, asked.Sub(end), asked.Sub(renewed))
	}
}
