package drone_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/backend"
	"plane/system/port"
	"plane/system/protocol"
)

func TestAnAgentThatRestartsKeepsItsBackends(t *testing.T) { // shortfall 3, G10
	inBubble(t, func(t *testing.T, r *rig) {
		r.ready("b")
		r.crash()
		r.pass(20 * time.Second)
		r.start()
		r.pass(5 * time.Minute)
		require.True(t, r.running("b"))
		require.Equal(t, 1, r.look().starts["b"])
		require.Equal(t, "ready", r.last("b").Status.String())
		require.Zero(t, r.called("stop", "b")+r.called("kill", "b"))
		r.exit("b", 9, false)
		require.NotNil(t, r.last("b").ExitCode)
		require.Equal(t, 9, *r.last("b").ExitCode)
	})
}

func TestAnAgentThatComesBackTooLateEndsItsBackends(t *testing.T) { // shortfall 3, G1
	inBubble(t, func(t *testing.T, r *rig) {
		r.ready("b")
		r.crash()
		r.pass(50 * time.Second)
		r.start()
		require.False(t, r.running("b"))
		r.pass(time.Second)
		require.Equal(t, backend.KeyExpired, r.last("b").Reason)
	})
}

func TestWhatEndedWhileTheAgentWasDownIsTold(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.ready("b")
		r.crash()
		r.exit("b", 4, false)
		r.start()
		r.pass(time.Second)
		require.Equal(t, "terminated", r.last("b").Status.String())
		require.NotNil(t, r.last("b").ExitCode)
		require.Equal(t, 4, *r.last("b").ExitCode)
		require.Empty(t, r.look().containers)
	})
	t.Run("also when the container is gone", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			r.ready("b")
			r.crash()
			r.set(func() { delete(r.containers, "b") })
			r.start()
			r.pass(time.Second)
			require.Equal(t, "terminated", r.last("b").Status.String())
			require.Contains(t, r.last("b").Message, "gone")
		})
	})
	t.Run("also when the machine was restarted", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			r.ready("b")
			r.crash()
			r.set(func() { delete(r.containers, "b"); r.boot = "boot 2" })
			r.start()
			r.pass(time.Second)
			require.Equal(t, backend.Lost, r.last("b").Reason)
			require.Equal(t, "terminated", r.last("b").Status.String())
		})
	})
}

func TestASoftTerminationGoesOnAfterARestart(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.stubborn = true
		r.ready("b")
		r.terminate("b", backend.Soft)
		r.pass(10 * time.Second)
		r.crash()
		r.start()
		require.Equal(t, 2, r.called("stop", "b"))
		r.pass(19 * time.Second)
		require.True(t, r.running("b"))
		r.pass(2 * time.Second)
		require.False(t, r.running("b"))
		require.Equal(t, backend.External, r.last("b").Reason)
	})
}

func TestUnknownContainersGo(t *testing.T) { // G5
	unknown := func(r *rig) {
		r.set(func() {
			r.containers["stray"] = &container{Container: port.Container{BackendID: "stray", Running: true, Started: true}}
			r.containers["old"] = &container{Container: port.Container{BackendID: "old", Started: true}}
		})
	}
	t.Run("at the start", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			unknown(r)
			r.start()
			require.Empty(t, r.look().containers)
		})
	})
	t.Run("within a minute later on", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			r.ready("b")
			unknown(r)
			r.pass(time.Minute)
			require.Len(t, r.look().containers, 1)
			require.True(t, r.running("b"))
		})
	})
	t.Run("also of a backend whose end is told", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			r.ready("b")
			r.exit("b", 0, false)
			r.pass(time.Second)
			r.set(func() {
				r.containers["b"] = &container{Container: port.Container{BackendID: "b", Running: true, Started: true}}
			})
			r.pass(35 * time.Second) // while it is still remembered
			require.Empty(t, r.look().containers)
		})
	})
}

func TestNoHeartbeatBeforeTheEngineHasAnswered(t *testing.T) {
	beats := func(r *rig) int { return count(r, func(protocol.Heartbeat) bool { return true }) }
	inBubble(t, func(t *testing.T, r *rig) {
		r.ready("b")
		require.Equal(t, 1, beats(r), "at once")
		r.pass(7 * time.Second)
		require.Equal(t, 2, beats(r))
		r.crash()
		r.set(func() {
			r.fault = func(call, _ string) fault {
				if call == "list" || call == "inspect" {
					return fails
				}
				return works
			}
		})
		r.start()
		r.pass(40 * time.Second)
		require.Equal(t, 2, beats(r), "nothing new may be placed here")
		require.Positive(t, r.renewals(), "but leases are kept")
		r.set(func() { r.fault = func(string, string) fault { return works } })
		r.pass(5 * time.Second)
		require.Equal(t, 3, beats(r))
		require.True(t, r.running("b"))
	})
}

func TestEventsAreToldInOrderAndAgainUntilAcknowledged(t *testing.T) { // G3
	inBubble(t, func(t *testing.T, r *rig) {
		r.hoarding = true
		r.start()
		r.spawn("a")
		r.spawn("b")
		r.pass(time.Second)
		r.cut(time.Second)
		r.pass(time.Minute)
		var ids []int64
		for _, h := range r.hearing() {
			if e, ok := h.m.(protocol.BackendEvent); ok {
				ids = append(ids, e.EventID)
			}
		}
		require.Equal(t, []int64{1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8}, ids)
		r.set(func() { r.hoarding = false })
		r.cut(time.Second)
		r.pass(time.Minute)
		require.Empty(t, r.look().events)
		require.Len(t, r.look().records, 2)
	})
}

func TestAKillIsRepeatedUntilTheEngineObeys(t *testing.T) { // F6
	inBubble(t, func(t *testing.T, r *rig) {
		tries := 0
		r.ready("b")
		r.set(func() {
			r.fault = func(call, _ string) fault {
				if call == "kill" {
					if tries++; tries < 6 {
						return fails
					}
				}
				return works
			}
		})
		r.terminate("b", backend.Hard)
		r.pass(30 * time.Second)
		require.Equal(t, 6, tries)
		require.Equal(t, "terminated", r.last("b").Status.String())
	})
}

// script is a life from spawn to forgetting, with whatever faults are set.
func script(r *rig) {
	r.start()
	r.pass(2 * time.Second) // where the first call fails, the session opens late
	r.spawn("b")
	r.pass(45 * time.Second)
}

// Each call outside fails once, without and with its effect; the backend comes
// up all the same, once, and its history is told without repetition.
func TestAnyCallMayFailOnce(t *testing.T) { // F6
	for _, how := range []fault{fails, worksFail} {
		for n := 0; ; n++ {
			name := ""
			inBubble(t, func(t *testing.T, r *rig) {
				i := 0
				r.fault = func(call, id string) fault {
					if call == "send" || call == "dial" {
						return works // sessions are cut elsewhere
					}
					if i++; i == n+1 {
						name = call
						return how
					}
					return works
				}
				script(r)
				if name == "" || r.clock.Now().IsZero() {
					return
				}
				what := fmt.Sprintf("call %d (%s) fails, fault %d", n, name, how)
				require.Equal(t, 1, r.look().starts["b"], what)
				require.Equal(t, []string{"loading", "starting", "waiting", "ready"}, r.statuses("b"), what)
				r.terminate("b", backend.Hard)
				r.pass(2 * time.Minute)
				require.Equal(t, "terminated", r.last("b").Status.String(), what)
				rest := r.look()
				require.Empty(t, rest.records, what)
				require.Empty(t, rest.events, what)
				require.Empty(t, rest.containers, what)
				require.Empty(t, rest.guards, what)
				require.Empty(t, rest.ports, what)
			})
			if name == "" {
				require.Greater(t, n, 20)
				break
			}
		}
	}
}

// The agent stops before, or right after, each call outside, and starts again:
// the backend comes up once, and whatever was told was in the journal.
func TestTheAgentMayStopAnywhere(t *testing.T) { // F1
	for _, after := range []bool{false, true} {
		for n := 0; ; n++ {
			name := ""
			inBubble(t, func(t *testing.T, r *rig) {
				i := 0
				r.fault = func(call, id string) fault {
					if i++; i != n+1 {
						return works
					}
					name = strings.TrimSpace(call + " " + id)
					r.cancel(errCrash)
					if after {
						return worksFail
					}
					return fails
				}
				r.start()
				if r.conn != nil {
					r.spawn("b")
				}
				r.pass(35 * time.Second) // past the first renewal, before the soft deadline
				if name == "" {
					return
				}
				what := fmt.Sprintf("stopped at call %d (%s), after its effect: %v", n, name, after)
				r.crash()
				r.start()
				r.pass(time.Second)
				r.spawn("b") // the controller hands it over until it is acknowledged
				r.pass(45 * time.Second)
				require.Equal(t, 1, r.look().starts["b"], what)
				require.Equal(t, "ready", r.last("b").Status.String(), what)
				require.Positive(t, r.acks("ak-spawn-b"), what)
				r.terminate("b", backend.Soft)
				r.pass(2 * time.Minute)
				require.Equal(t, []string{"loading", "starting", "waiting", "ready", "terminating", "terminated"}, r.statuses("b"), what)
				rest := r.look()
				require.Empty(t, rest.records, what)
				require.Empty(t, rest.containers, what)
				require.Empty(t, rest.guards, what)
				require.Empty(t, rest.ports, what)
			})
			if name == "" {
				require.Greater(t, n, 20)
				break
			}
		}
	}
}

func TestNothingIsToldWhileTheJournalFails(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.start()
		r.set(func() {
			r.fault = func(call, _ string) fault {
				if strings.HasPrefix(call, "put") {
					return fails
				}
				return works
			}
		})
		r.spawn("b")
		r.pass(20 * time.Second)
		require.Zero(t, r.acks("ak-spawn-b"))
		require.Empty(t, r.states("b"))
		require.Zero(t, r.called("pull", "b"))
	})
	t.Run("but deadlines are held", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			r.stubborn = true
			r.ready("b")
			r.set(func() {
				r.fault = func(call, _ string) fault {
					if strings.HasPrefix(call, "put") {
						return fails
					}
					return works
				}
			})
			r.pass(50 * time.Second)
			require.False(t, r.running("b"))
			require.Equal(t, "ready", r.last("b").Status.String())
			r.set(func() { r.fault = func(string, string) fault { return works } })
			r.pass(10 * time.Second)
			require.Equal(t, "terminated", r.last("b").Status.String())
			require.Equal(t, backend.KeyExpired, r.last("b").Reason)
		})
	})
}

// The agent dies over a start that the engine carries out a little later; by
// then the backend is being ended, and its key may go to another.
func TestNoEndIsToldWhileAStartMayStillHappen(t *testing.T) { // G1
	inBubble(t, func(t *testing.T, r *rig) {
		r.fault = func(call, _ string) fault {
			if call == "start" {
				r.cancel(errCrash)
				return fails
			}
			return works
		}
		r.start()
		r.spawn("b")
		r.pass(0)
		r.crash()
		r.fault = func(call, _ string) fault {
			if call == "guard" {
				return fails // so that the next agent does not start it itself
			}
			return works
		}
		r.start()
		r.terminate("b", backend.Hard)
		require.Equal(t, "hard-terminating", r.last("b").Status.String())
		r.set(func() {
			r.containers["b"] = &container{Container: port.Container{BackendID: "b", Address: "10.0.0.1:5001", Running: true, Started: true}}
		})
		r.pass(4 * time.Second)
		require.Equal(t, "hard-terminating", r.last("b").Status.String())
		require.Contains(t, r.look().guards, "b")
		r.pass(2 * time.Second)
		require.Equal(t, "terminated", r.last("b").Status.String())
		require.False(t, r.running("b"))
	})
}
