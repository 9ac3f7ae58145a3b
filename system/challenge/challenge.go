// Package challenge holds what a proxy tells its controller of the TXT values
// that its certificate orders need: which to set next, what to repeat, and when
// to give them up.
//
// A Desk owns the values that are wanted, and what the controller of the present
// session has answered. It promises that a value which is wanted is told to
// every controller that the proxy comes to, again before it would expire, one
// request at a time, and that values which nobody wants any more are given up.
// It never blocks; all methods may be called at once. Times are on the proxy's
// clock.
package challenge

import (
	"slices"
	"sync"
	"time"
)

// Times of the conversation.
const (
	// Repeat is after what time a value is set again; controllers keep it for
	// ten minutes.
	Repeat = 3 * time.Minute
	// LeaseRepeat is the same for the lease of 0.5.x, which lasts for 60 s.
	LeaseRepeat = 20 * time.Second
	// Patience is how long a controller may take to answer.
	Patience = time.Minute
)

// Ask is a request to a controller.
type Ask struct {
	Kind  Kind
	Value string // of Set
}

// Kind is what is asked for.
type Kind string

// Kinds of requests. Nothing means that there is none, and Leave that the
// controller has not answered for so long that another one is better.
const (
	Nothing Kind = ""
	Lease   Kind = "lease"
	Set     Kind = "set"
	Release Kind = "release"
	Leave   Kind = "leave"
)

// Desk is one proxy's. The zero value wants nothing, and gives up what an
// earlier one may have left.
type Desk struct {
	mu     sync.Mutex
	values []value // that are wanted, oldest first
	left   bool    // there were others, which are to be given up

	begun      bool // there was a session
	connected  bool
	oneAtATime bool      // the controller is of 0.5.x
	leased     time.Time // when the lease was given or tried to be extended; zero: it was not
	asked      Ask       // that waits for its answer
	askedAt    time.Time
	pauseUntil time.Time // after a refusal
}

type value struct {
	text  string
	set   time.Time // by the present controller; zero: not yet
	shown bool      // it was set at some time
}

// Want adds a value. Harmless twice.
func (d *Desk) Want(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.find(text) == nil {
		d.values = append(d.values, value{text: text})
	}
}

// Forget takes a value back. Harmless twice.
func (d *Desk) Forget(text string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.values = slices.DeleteFunc(d.values, func(v value) bool {
		if v.text == text {
			d.left = true
		}
		return v.text == text
	})
}

// Shown reports whether the value is wanted, and a controller has set it.
func (d *Desk) Shown(text string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	v := d.find(text)
	return v != nil && v.shown
}

func (d *Desk) find(text string) *value {
	for i := range d.values {
		if d.values[i].text == text {
			return &d.values[i]
		}
	}
	return nil
}

// Connected begins a session. The controller may be one of 0.5.x, which keeps
// one value for all, for whoever has the lease. The first session gives up what
// an earlier process of the proxy may have left: until its values expired, others
// that need the lease would wait.
func (d *Desk) Connected(oneAtATime bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.begun {
		d.begun, d.left = true, true
	}
	d.connected, d.oneAtATime = true, oneAtATime
	d.leased, d.asked, d.pauseUntil = time.Time{}, Ask{}, time.Time{}
	for i := range d.values {
		d.values[i].set = time.Time{}
	}
}

// Disconnected ends it.
func (d *Desk) Disconnected() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.connected = false
}

// Controller reports whether there is a session, and whether with a controller
// that takes one value at a time.
func (d *Desk) Controller() (connected, oneAtATime bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.connected, d.oneAtATime
}

// Next returns what to send now, which then waits for its answer; if that is
// Nothing, when to look again at the latest (zero: once something has changed).
func (d *Desk) Next(now time.Time) (Ask, time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case !d.connected:
		return Ask{}, time.Time{}
	case d.asked.Kind != Nothing:
		if late := d.askedAt.Add(Patience); now.Before(late) {
			return Ask{}, late
		}
		return Ask{Kind: Leave}, time.Time{}
	case len(d.values) == 0:
		return d.giveUp(), time.Time{}
	case now.Before(d.pauseUntil):
		return Ask{}, d.pauseUntil
	}
	ask, again := d.due(now)
	if ask.Kind != Nothing {
		d.asked, d.askedAt = ask, now
	}
	return ask, again
}

// giveUp asks for the release of what was set, which has no answer.
func (d *Desk) giveUp() Ask {
	if !d.left && d.leased.IsZero() {
		return Ask{}
	}
	d.left, d.leased = false, time.Time{}
	return Ask{Kind: Release}
}

// due is the next request about the values that are wanted.
func (d *Desk) due(now time.Time) (Ask, time.Time) {
	var again time.Time
	soon := func(t time.Time) {
		if again.IsZero() || t.Before(again) {
			again = t
		}
	}
	if d.oneAtATime {
		if d.leased.IsZero() || !now.Before(d.leased.Add(LeaseRepeat)) {
			return Ask{Kind: Lease}, time.Time{}
		}
		soon(d.leased.Add(LeaseRepeat))
	}
	for _, v := range d.values {
		if v.set.IsZero() || !now.Before(v.set.Add(Repeat)) {
			return Ask{Kind: Set, Value: v.text}, time.Time{}
		}
		soon(v.set.Add(Repeat))
	}
	return Ask{}, again
}

// Answered takes the controller's answer to a lease or a set. After a no there
// is a pause, except that a lease which was given before is believed to last. An
// answer that nothing waits for is skipped.
func (d *Desk) Answered(kind Kind, yes bool, now time.Time, pause time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.asked.Kind != kind {
		return
	}
	ask := d.asked
	d.asked = Ask{}
	switch {
	case kind == Lease && (yes || !d.leased.IsZero()):
		d.leased = now
	case yes:
		if v := d.find(ask.Value); v != nil {
			v.set, v.shown = now, true
		}
	default:
		d.leased = time.Time{} // maybe it has passed to another proxy
		d.pauseUntil = now.Add(pause)
	}
}
