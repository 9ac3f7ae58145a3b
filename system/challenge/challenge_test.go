package challenge

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// hand is a Desk and a clock in the hand of a test.
type hand struct {
	*testing.T
	Desk
	now time.Time
}

func newHand(t *testing.T) *hand {
	t.Helper()
	return &hand{T: t, now: time.Unix(1_000_000, 0)}
}

func (h *hand) pass(d time.Duration) { h.now = h.now.Add(d) }

// asks requires that this, and after it nothing, is to be sent now.
func (h *hand) asks(want ...Ask) {
	h.Helper()
	for _, w := range want {
		got, _ := h.Next(h.now)
		require.Equal(h, w, got)
		switch w.Kind {
		case Lease, Set:
			h.Answered(w.Kind, true, h.now, 0)
		case Nothing, Release, Leave:
		}
	}
	got, _ := h.Next(h.now)
	require.Equal(h, Nothing, got.Kind)
}

// again requires when to look again.
func (h *hand) again(in time.Duration) {
	h.Helper()
	ask, at := h.Next(h.now)
	require.Equal(h, Nothing, ask.Kind)
	require.Equal(h, h.now.Add(in), at)
}

func set(value string) Ask { return Ask{Set, value} }

func TestValuesAreSetOnceAndReleasedTogether(t *testing.T) {
	h := newHand(t)
	h.Connected(false)
	h.asks(Ask{Kind: Release}) // what an earlier process may have left
	h.Disconnected()
	h.Connected(false)
	h.asks()
	h.Want("a")
	h.Want("b")
	h.Want("a")
	require.False(t, h.Shown("a"))
	h.asks(set("a"), set("b"))
	require.True(t, h.Shown("a"))
	h.Forget("a")
	require.False(t, h.Shown("a"))
	h.asks()
	h.Forget("b")
	h.Forget("b")
	h.asks(Ask{Kind: Release})
}

func TestOneRequestAtATime(t *testing.T) {
	h := newHand(t)
	h.Connected(false)
	h.Want("a")
	h.Want("b")
	ask, _ := h.Next(h.now)
	require.Equal(t, set("a"), ask)
	h.again(Patience)
	h.Answered(Lease, true, h.now, 0) // nobody asked
	h.again(Patience)
	h.Answered(Set, true, h.now, 0)
	h.asks(set("b"))
}

func TestAValueIsSetAgainBeforeItExpires(t *testing.T) {
	h := newHand(t)
	h.Connected(false)
	h.Want("a")
	h.asks(set("a"))
	h.again(Repeat)
	h.pass(Repeat)
	h.asks(set("a"))
}

func TestTheNextControllerIsToldAnew(t *testing.T) {
	h := newHand(t)
	h.Want("a")
	h.asks()
	h.Connected(false)
	h.asks(set("a"))
	h.Want("b")
	ask, _ := h.Next(h.now)
	require.Equal(t, set("b"), ask)
	h.Disconnected() // and its answer is lost
	h.asks()
	h.Connected(false)
	h.asks(set("a"), set("b"))
	h.Disconnected()
	h.Forget("a")
	h.Forget("b")
	h.Connected(false)
	h.asks(Ask{Kind: Release})
}

func TestARefusedValueIsTriedAgainAfterAPause(t *testing.T) {
	h := newHand(t)
	h.Connected(false)
	h.Want("a")
	h.Next(h.now)
	h.Answered(Set, false, h.now, 5*time.Second)
	h.again(5 * time.Second)
	require.False(t, h.Shown("a"))
	h.pass(5 * time.Second)
	h.asks(set("a"))
}

func TestAControllerThatDoesNotAnswerIsLeft(t *testing.T) {
	h := newHand(t)
	h.Connected(false)
	h.Want("a")
	h.Next(h.now)
	h.pass(Patience)
	ask, _ := h.Next(h.now)
	require.Equal(t, Leave, ask.Kind)
}

// Shortfall 18, with the controller that has it: its lease has to be asked for
// again and again.
func TestShortfall18TheLeaseOfAnOldControllerIsTakenAndKeptAlive(t *testing.T) {
	h := newHand(t)
	h.Connected(true)
	h.Want("a")
	h.Next(h.now)
	h.Answered(Lease, false, h.now, 7*time.Second) // another proxy has it
	h.again(7 * time.Second)
	h.pass(7 * time.Second)
	h.asks(Ask{Kind: Lease}, set("a"))
	h.again(LeaseRepeat)
	h.pass(LeaseRepeat)
	h.Next(h.now)
	h.Answered(Lease, false, h.now, time.Second) // it may say so to the holder
	h.again(LeaseRepeat)
	h.Forget("a")
	h.asks(Ask{Kind: Release})
	h.Want("b")
	h.asks(Ask{Kind: Lease}, set("b"))
}

func TestALeaseThatWasLostIsTakenAnew(t *testing.T) {
	h := newHand(t)
	h.Connected(true)
	h.Want("a")
	h.asks(Ask{Kind: Lease}, set("a"))
	h.Want("b")
	h.Next(h.now)
	h.Answered(Set, false, h.now, time.Second)
	h.pass(time.Second)
	h.asks(Ask{Kind: Lease}, set("b"))
}
