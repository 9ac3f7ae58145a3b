package drone_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/backend"
	"plane/system/lease"
	"plane/system/protocol"
)

func TestALeaseThatCannotBeRenewedEndsSoftlyThenHard(t *testing.T) { // shortfall 1
	inBubble(t, func(t *testing.T, r *rig) {
		r.stubborn, r.silent = true, true
		r.start()
		began := r.clock.Now()
		r.spawn("b")
		r.pass(time.Minute)
		require.Equal(t, []string{"loading", "starting", "waiting", "ready", "terminating", "hard-terminating", "terminated"}, r.statuses("b"))
		require.WithinDuration(t, began.Add(40*time.Second), r.told("b", backend.Terminating), time.Second)
		require.WithinDuration(t, began.Add(50*time.Second), r.told("b", backend.HardTerminating), time.Second)
		require.WithinDuration(t, began.Add(50*time.Second), r.told("b", backend.Terminated), time.Second)
		require.Equal(t, backend.KeyExpired, r.last("b").Reason)
	})
}

func TestASpawnAfterItsDeadlineIsNeverStarted(t *testing.T) { // shortfall 2, G6
	for name, age := range map[string]time.Duration{
		"hard deadline passed": 50 * time.Second,
		"soft deadline passed": 40 * time.Second,
		"long ago":             time.Hour,
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.start()
				r.send(spawnAction("b", protocol.Deadlines(lease.Default().Deadlines(r.clock.Now().Add(-age)))))
				r.pass(time.Minute)
				require.Zero(t, r.look().starts["b"])
				require.Zero(t, r.called("pull", "b"))
				require.Equal(t, []string{"terminated"}, r.statuses("b"))
				require.Equal(t, backend.KeyExpired, r.last("b").Reason)
				require.NotEmpty(t, r.last("b").Message)
				require.Equal(t, 1, r.acks("ak-spawn-b"))
				require.Empty(t, r.look().records)
			})
		})
	}
}

func TestTooLittleTimeLeftMeansRenewingBeforeStarting(t *testing.T) {
	for name, local := range map[string]time.Duration{
		"due for renewal":         -35 * time.Second,
		"from a clock far ahead":  time.Hour,
		"from a clock just ahead": time.Second,
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.silent = true
				r.start()
				r.send(spawnAction("b", protocol.Deadlines(lease.Default().Deadlines(r.clock.Now().Add(local)))))
				r.pass(2 * time.Second)
				require.Zero(t, r.look().starts["b"])
				require.Equal(t, "starting", r.last("b").Status.String())
				require.Equal(t, 1, r.acks("ak-spawn-b"))

				r.set(func() { r.silent = false })
				r.pass(2 * time.Second)
				require.Equal(t, "ready", r.last("b").Status.String())
				require.Less(t, r.at("send", "protocol.RenewKey"), r.at("start", "b"))
			})
		})
	}
	t.Run("and nothing is started when nobody renews", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			r.silent = true
			r.start()
			r.send(spawnAction("b", protocol.Deadlines(lease.Default().Deadlines(r.clock.Now().Add(time.Hour)))))
			r.pass(time.Minute)
			require.Zero(t, r.look().starts["b"])
			require.Equal(t, backend.KeyExpired, r.last("b").Reason)
			require.Equal(t, "terminated", r.last("b").Status.String())
		})
	})
}

func TestAnUnansweredRenewalIsRepeated(t *testing.T) { // shortfall 14
	inBubble(t, func(t *testing.T, r *rig) {
		r.ready("b")
		r.set(func() { r.silent = true })
		r.pass(36 * time.Second)
		require.GreaterOrEqual(t, r.renewals(), 3)
		r.set(func() { r.silent = false })
		r.pass(5 * time.Minute)
		require.Equal(t, "ready", r.last("b").Status.String())
	})
	t.Run("at once after a reconnect", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			r.cfg.Reconnect.First, r.cfg.Reconnect.Most = 100*time.Millisecond, 100*time.Millisecond
			r.ready("b")
			r.set(func() { r.silent = true })
			r.pass(36 * time.Second)
			r.set(func() { r.silent = false })
			before := r.renewals()
			r.cut(0)
			r.pass(200 * time.Millisecond)
			require.Greater(t, r.renewals(), before)
			r.pass(10 * time.Second)
			require.Equal(t, "ready", r.last("b").Status.String())
		})
	})
}

func TestRenewedForAsLongAsItLives(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.ready("b")
		r.pass(10 * time.Minute)
		require.Equal(t, "ready", r.last("b").Status.String())
		require.InDelta(t, 50, r.renewals(), 1) // every 12 s
		now := r.look()
		require.Equal(t, now.records["b"].Deadlines.HardTerminateAt, now.guards["b"])
	})
}

// What is asked for at about the same time is asked for at once, and then every
// 12 s to the millisecond, whenever the backends began.
func TestRenewalsAreAskedForInSlots(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.start()
		began := r.clock.Now()
		for i := range 10 {
			r.spawn(fmt.Sprint("b", i))
			r.pass(97 * time.Millisecond)
		}
		r.pass(time.Minute)
		slots := lease.SlotsOf(r.cfg.Name, r.cfg.Timing.RenewSlot)
		asked := map[string][]time.Time{}
		times := map[time.Time]int{}
		r.set(func() {
			for _, h := range r.heard {
				if m, ok := h.m.(protocol.RenewKey); ok {
					require.True(t, slots.Last(h.at).Equal(h.at))
					require.True(t, m.LocalTime.Equal(h.at))
					asked[m.Backend], times[h.at] = append(asked[m.Backend], h.at), times[h.at]+1
				}
			}
		})
		require.Len(t, asked, 10)
		require.LessOrEqual(t, len(times), 5*3, "ten backends of a second, in three slots at most")
		for i := range 10 {
			first := began.Add(time.Duration(i)*97*time.Millisecond + 12*time.Second)
			for n, at := range asked[fmt.Sprint("b", i)] {
				require.True(t, at.Equal(slots.Last(first).Add(time.Duration(n)*12*time.Second)))
			}
		}
	})
}

// Whenever in the life of a lease that begins.
func TestAControllerThatStandsStillFor25SecondsEndsNothing(t *testing.T) {
	for phase := range 15 {
		inBubble(t, func(t *testing.T, r *rig) {
			r.ready("b")
			r.pass(time.Minute + time.Duration(phase)*time.Second)
			r.set(func() { r.silent = true })
			r.pass(25 * time.Second)
			r.set(func() { r.silent = false })
			r.pass(time.Minute)
			require.Equal(t, backend.Ready, r.last("b").Status, "it stood still from %d s on", phase)
		})
	}
}

func TestALeaseIsRenewedDuringASoftTermination(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.stubborn = true
		r.ready("b")
		r.pass(26 * time.Second)
		r.terminate("b", backend.Soft)
		r.pass(29 * time.Second)
		require.True(t, r.running("b"), "its first lease has run out, but it was renewed")
		require.Equal(t, 4, r.renewals())
		r.pass(2 * time.Second)
		require.False(t, r.running("b"))
		require.Equal(t, backend.External, r.last("b").Reason)
	})
}

func TestALostKeyEndsTheBackendAtOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.ready("b")
		r.set(func() { r.null = true })
		r.pass(31 * time.Second)
		require.False(t, r.running("b"))
		require.Equal(t, backend.KeyExpired, r.last("b").Reason)
		require.Equal(t, backend.Hard, r.last("b").Termination)
	})
}

func TestWrongDeadlinesAreRefused(t *testing.T) {
	first := lease.Default()
	for name, answer := range map[string]func(local time.Time) lease.Deadlines{
		"reaching past any time that was sent": func(l time.Time) lease.Deadlines { return first.Deadlines(l.Add(time.Second)) },
		"moving back":                          func(l time.Time) lease.Deadlines { return first.Deadlines(l.Add(-40 * time.Second)) },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.answer = func(m protocol.RenewKey) protocol.Deadlines { return protocol.Deadlines(answer(m.LocalTime.Time)) }
				r.ready("b")
				before := r.look().records["b"].Deadlines
				r.pass(35 * time.Second)
				require.Positive(t, r.renewals())
				require.Equal(t, before, r.look().records["b"].Deadlines)
				r.pass(10 * time.Second)
				require.Equal(t, backend.KeyExpired, r.last("b").Reason)
			})
		})
	}
	t.Run("not asked for", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			r.ready("b")
			before := r.look().records["b"].Deadlines
			r.pass(time.Second)
			d := r.deadlines()
			r.send(protocol.RenewKeyResponse{Backend: "b", Deadlines: &d})
			require.Equal(t, before, r.look().records["b"].Deadlines)
		})
	})
}

func TestARenewedLeaseCountsOnlyOnceItIsGuarded(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.ready("b")
		r.set(func() {
			r.fault = func(call, _ string) fault {
				if call == "guard" {
					return fails
				}
				return works
			}
		})
		began := r.look().records["b"].Deadlines.RenewAt.Add(-30 * time.Second)
		r.pass(time.Minute)
		require.WithinDuration(t, began.Add(40*time.Second), r.told("b", backend.Terminating), time.Second)
		require.Equal(t, backend.KeyExpired, r.last("b").Reason)
	})
}
