package controller_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/backend"
	"plane/system/port"
	"plane/system/protocol"
)

func TestActionsComeAgainUntilAcknowledged(t *testing.T) {
	inBubble(t, everyHint, func(r *rig) {
		d := r.drone("dr-1")
		a := r.connect(spawnBoard)
		first := toDrone[protocol.Action](d)
		require.Len(t, first, 1, "at once")
		require.Equal(t, a.BackendID, first[0].BackendID)
		spawn := first[0].Action.Spawn
		require.Equal(t, int64(1_050_000), spawn.Key.Deadlines.HardTerminateAt.UnixMilli(), "shortfall 1: counted on the drone's clock, hard after soft")
		require.Equal(t, int64(1_040_000), spawn.Key.Deadlines.SoftTerminateAt.UnixMilli())

		pass(5 * time.Second)
		require.Equal(t, first, toDrone[protocol.Action](d), "again after 5 s")
		d.say(protocol.AckAction{ActionID: first[0].ActionID})
		pass(20 * time.Second)
		require.Empty(t, toDrone[protocol.Action](d))
	})
}

func TestActionsReachADroneThoughTheHintIsLost(t *testing.T) {
	inBubble(t, noHint, func(r *rig) {
		d := r.drone("dr-1")
		r.connect(spawnBoard)
		pass(5 * time.Second)
		require.Len(t, toDrone[protocol.Action](d), 1)
	})
}

// Shortfall 17: what is not acknowledged holds up nothing that came after it.
func TestAnActionWaitsForNoOlderOne(t *testing.T) {
	inBubble(t, everyHint, func(r *rig) {
		d := r.drone("dr-1")
		for _, key := range []string{"first", "second", "third"} {
			a := r.connect(`{"key":{"name":"` + key + `"},"spawn_config":{"executable":{}}}`)
			actions := toDrone[protocol.Action](d)
			require.Len(t, actions, 1)
			require.Equal(t, a.BackendID, actions[0].BackendID)
		}
	})
}

// Shortfall 15: to fall behind the store's hints is not to miss what they told.
func TestEverybodyLooksAgainAfterHintsWereLost(t *testing.T) {
	for name, v := range map[string]struct {
		err    error
		within time.Duration
	}{"told so": {nil, 0}, "cut": {errUnclear, time.Second}} {
		t.Run(name, func(t *testing.T) {
			listening(t, func(l port.Listener) port.Listener { return vague{l, v.err} }, func(r *rig) {
				d := r.drone("dr-1")
				pass(time.Second)
				r.connect(spawnBoard)
				pass(v.within)
				require.Len(t, toDrone[protocol.Action](d), 1, "long before it would look by itself")
			})
		})
	}
}

func TestAnEventIsAcknowledgedOnceItIsRecorded(t *testing.T) {
	inBubble(t, everyHint, func(r *rig) {
		d := r.drone("dr-1")
		a := r.connect(spawnBoard)
		r.store.states.Store(3)
		d.report(a.BackendID, ready)
		require.Empty(t, toDrone[protocol.AckEvent](d), "the store has not said that it is")
		pass(3 * time.Second)
		require.Equal(t, []protocol.AckEvent{{EventID: int64(backend.Ready)}}, toDrone[protocol.AckEvent](d))
		entry, err := r.Status(r.Context(), a.BackendID)
		require.NoError(t, err)
		require.Equal(t, backend.Ready, entry.Status)

		d.report("unknown", ready)
		require.Len(t, toDrone[protocol.AckEvent](d), 1, "nobody needs it again")
	})
}

func TestRenewal(t *testing.T) {
	inBubble(t, everyHint, func(r *rig) {
		d := r.drone("dr-1")
		a := r.connect(spawnBoard)
		at := protocol.Millis{Time: time.UnixMilli(2_000_000)}
		d.say(protocol.RenewKey{Backend: a.BackendID, LocalTime: at})
		pass(20 * time.Millisecond)
		answers := toDrone[protocol.RenewKeyResponse](d)
		require.Len(t, answers, 1)
		require.Equal(t, int64(2_030_000), answers[0].Deadlines.RenewAt.UnixMilli())
		require.Equal(t, int64(2_040_000), answers[0].Deadlines.SoftTerminateAt.UnixMilli())
		require.Equal(t, int64(2_050_000), answers[0].Deadlines.HardTerminateAt.UnixMilli())

		d.report(a.BackendID, terminated(backend.External))
		d.say(protocol.RenewKey{Backend: a.BackendID, LocalTime: at})
		pass(20 * time.Millisecond)
		answers = toDrone[protocol.RenewKeyResponse](d)
		require.Len(t, answers, 1)
		require.Nil(t, answers[0].Deadlines)
	})
}

// Shortfall 14: what the store did not answer clearly is not answered, for a
// refusal ends the backend. The drone asks again.
func TestAnUnclearRenewalIsNoRefusal(t *testing.T) {
	inBubble(t, everyHint, func(r *rig) {
		d := r.drone("dr-1")
		a := r.connect(spawnBoard)
		ask := protocol.RenewKey{Backend: a.BackendID, LocalTime: protocol.Millis{Time: time.UnixMilli(2_000_000)}}
		r.store.renewals.Store(1)
		d.say(ask)
		pass(time.Minute / 2)
		require.Empty(t, toDrone[protocol.RenewKeyResponse](d))
		d.say(ask)
		pass(20 * time.Millisecond)
		answers := toDrone[protocol.RenewKeyResponse](d)
		require.Len(t, answers, 1)
		require.NotNil(t, answers[0].Deadlines)
	})
}

// G16.
func TestAMalformedMessageDisturbsNobody(t *testing.T) {
	inBubble(t, everyHint, func(r *rig) {
		d := r.drone("dr-1")
		for _, junk := range []string{"", "{", `{"Snooze":1}`, `{"RenewKey":{"backend":"B!","local_time":1}}`} {
			d.in <- []byte(junk)
		}
		a := r.connect(spawnBoard)
		d.report(a.BackendID, ready)
		require.Len(t, toDrone[protocol.AckEvent](d), 1)
	})
}

func TestARouteIsToldOnceTheBackendIsReady(t *testing.T) {
	for name, hints := range map[string]func(port.Hint) bool{"with hints": everyHint, "without": noHint} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, hints, func(r *rig) {
				d, p := r.drone("dr-1"), r.proxy("px-1")
				a := r.connect(spawnBoard)
				p.say(protocol.RouteInfoRequest{Token: a.Token})
				p.say(protocol.RouteInfoRequest{Token: "junk"})
				answers := toProxy[protocol.RouteInfoResponse](p)
				require.Equal(t, []protocol.RouteInfoResponse{{Token: "junk"}}, answers, "nobody waits for junk")

				d.report(a.BackendID, ready)
				pass(2 * time.Second)
				answers = toProxy[protocol.RouteInfoResponse](p)
				require.Len(t, answers, 1)
				require.Equal(t, a.Token, answers[0].Token)
				require.Equal(t, ready.Address, answers[0].RouteInfo.Address)
				require.Equal(t, *a.SecretToken, answers[0].RouteInfo.SecretToken)
			})
		})
	}
}

func TestARouteOfABackendThatEndsIsTakenBack(t *testing.T) {
	inBubble(t, everyHint, func(r *rig) {
		d, p := r.drone("dr-1"), r.proxy("px-1")
		a, b := r.connect(spawnBoard), r.connect(`{"key":{"name":"other"},"spawn_config":{"executable":{}}}`)
		d.report(a.BackendID, ready)
		p.say(protocol.RouteInfoRequest{Token: a.Token})
		p.say(protocol.RouteInfoRequest{Token: b.Token})
		require.Len(t, toProxy[protocol.RouteInfoResponse](p), 1)

		d.report(a.BackendID, terminated(backend.External))
		d.report(b.BackendID, terminated(backend.InternalError))
		var removed []string
		var nulls []string
		for _, f := range p.heard() {
			m, err := protocol.DecodeToProxy(f)
			require.NoError(t, err)
			switch m := m.(type) {
			case protocol.BackendRemoved:
				removed = append(removed, m.Backend)
			case protocol.RouteInfoResponse:
				require.Nil(t, m.RouteInfo)
				nulls = append(nulls, m.Token)
			}
		}
		require.ElementsMatch(t, []string{a.BackendID, b.BackendID}, removed)
		require.Equal(t, []string{b.Token}, nulls, "who waited is told that there is nothing to wait for")
	})
}

// Shortfall 8, G8: every proxy is told within a second, hint or no hint.
func TestRevocationReachesEveryProxyWithinASecond(t *testing.T) {
	for name, hints := range map[string]func(port.Hint) bool{"with hints": everyHint, "without": noHint} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, hints, func(r *rig) {
				d, p, q := r.drone("dr-1"), r.proxy("px-1"), r.proxy("px-2")
				a := r.connect(`{"key":{"name":"k"},"user":"ann","spawn_config":{"executable":{}}}`)
				d.report(a.BackendID, ready)
				require.NoError(t, r.Revoke(r.Context(), protocol.RevokeRequest{BackendID: a.BackendID, User: "ann"}))
				pass(time.Second)
				want := []protocol.TokenRevoked{{Backend: a.BackendID, User: "ann"}}
				require.Equal(t, want, toProxy[protocol.TokenRevoked](p))
				require.Equal(t, want, toProxy[protocol.TokenRevoked](q))
				p.say(protocol.RouteInfoRequest{Token: a.Token})
				require.Equal(t, []protocol.RouteInfoResponse{{Token: a.Token}}, toProxy[protocol.RouteInfoResponse](p))
				pass(time.Minute)
				require.Empty(t, toProxy[protocol.TokenRevoked](q), "once")
			})
		})
	}
}

// Shortfall 5: numbers are given out before the commit, so a later one can become
// visible first.
func TestARevocationThatBecomesVisibleAfterALaterOneIsToldToo(t *testing.T) {
	inBubble(t, everyHint, func(r *rig) {
		d, p := r.drone("dr-1"), r.proxy("px-1")
		a := r.connect(`{"key":{"name":"k"},"user":"ann","spawn_config":{"executable":{}}}`)
		d.report(a.BackendID, ready)
		ann := "ann"
		r.store.uncommitted.Store(&ann)
		for _, user := range []string{"ann", "bob"} {
			require.NoError(t, r.Revoke(r.Context(), protocol.RevokeRequest{BackendID: a.BackendID, User: user}))
		}
		pass(5 * time.Second)
		require.Equal(t, []protocol.TokenRevoked{{Backend: a.BackendID, User: "bob"}}, toProxy[protocol.TokenRevoked](p))
		r.store.uncommitted.Store(nil)
		pass(time.Second)
		require.Equal(t, []protocol.TokenRevoked{{Backend: a.BackendID, User: "ann"}}, toProxy[protocol.TokenRevoked](p))
	})
}

// A list of many backends comes message by message, and is noted as one.
func TestWhatAProxyGoesOnUsingIsNotedOnce(t *testing.T) {
	inBubble(t, everyHint, func(r *rig) {
		p := r.proxy("px-1")
		say := func(all bool, backends ...string) int32 {
			for _, b := range backends {
				p.say(protocol.KeepAlive{Backend: b})
				pass(time.Millisecond)
			}
			if all {
				p.say(protocol.Heartbeat{LocalTime: protocol.Millis{Time: r.clock.Now()}})
			}
			pass(time.Second)
			return r.store.additions.Swap(0)
		}
		require.EqualValues(r, 2, say(true, "a", "b"), "both are news")
		require.Zero(r, say(true, "a", "b"))
		require.EqualValues(r, 1, say(false, "a", "c"), "c is news")
		require.EqualValues(r, 1, say(true, "d"), "and so is d")
		require.Zero(r, say(true, "c"), "and this is all")
		require.EqualValues(r, 2, say(false, "a", "b", "c"), "a and b are in use again")
	})
}

// G9: a proxy's last word holds while it cannot speak.
func TestABackendInUseByACutOffProxyIsNotSwept(t *testing.T) {
	inBubble(t, everyHint, func(r *rig) {
		d, p := r.drone("dr-1"), r.proxy("px-1")
		a := r.connect(spawnBoard) // idle after 30 s
		d.report(a.BackendID, ready)
		r.store.keepAlives.Store(2)
		p.say(protocol.KeepAlive{Backend: a.BackendID})
		p.say(protocol.Heartbeat{LocalTime: protocol.Millis{Time: r.clock.Now()}})
		pass(4 * time.Second) // the store fails twice
		close(p.closed)
		terminates := func() (n int) {
			for _, m := range toDrone[protocol.Action](d) {
				if m.Action.Terminate != nil {
					n++
				}
			}
			return n
		}
		pass(90 * time.Second)
		require.Zero(t, terminates())
		p = r.proxy("px-1")
		p.say(protocol.Heartbeat{LocalTime: protocol.Millis{Time: r.clock.Now()}})
		pass(15 * time.Second)
		require.NotZero(t, terminates(), "back, and using it no more")
	})
}

// G9: the proxy's word from before a fail-over is out of date after it, and
// what it opened meanwhile could not be noted.
func TestABackendIsNotSweptRightAfterTheStoreWasAway(t *testing.T) {
	inBubble(t, everyHint, func(r *rig) {
		d, p := r.drone("dr-1"), r.proxy("px-1")
		a := r.connect(spawnBoard) // idle after 30 s
		d.report(a.BackendID, ready)
		say := func(m ...any) {
			for _, m := range m {
				p.say(m)
			}
			p.say(protocol.Heartbeat{LocalTime: protocol.Millis{Time: r.clock.Now()}})
		}
		sweeps := 0
		live := func(seconds int, words ...any) {
			for range seconds / 2 {
				say(words...)
				pass(2 * time.Second)
				for _, m := range toDrone[protocol.Action](d) {
					if m.Action.Terminate != nil {
						sweeps++
					}
				}
			}
		}
		live(32)
		require.Zero(r, sweeps, "sweeps are at every fifth second")
		pass(time.Second)
		r.store.away.Store(true) // for 20 s, in which its clock stands still
		live(20, protocol.KeepAlive{Backend: a.BackendID})
		r.store.stood.Store(int64(20 * time.Second))
		r.store.keepAlives.Store(4)
		r.store.away.Store(false)
		live(16, protocol.KeepAlive{Backend: a.BackendID})
		require.Zero(r, sweeps)
		live(60)
		require.NotZero(r, sweeps, "idle in the end")
	})
}

// G3: whoever reads, and whatever hints are lost.
func TestAStatusStreamTellsEachStatusOnceInOrder(t *testing.T) {
	for name, hints := range map[string]func(port.Hint) bool{"with hints": everyHint, "without": noHint} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, hints, func(r *rig) {
				d := r.drone("dr-1")
				a := r.connect(spawnBoard)
				var early, late []backend.Status
				stream := func(after backend.Status, to *[]backend.Status) {
					go func() {
						_ = r.StatusStream(r.Context(), a.BackendID, after, func(e protocol.StatusEntry) error {
							*to = append(*to, e.Status)
							return nil
						}, func() error { return nil })
					}()
				}
				stream(0, &early)
				synctest.Wait()
				for _, s := range []backend.State{{Status: backend.Loading}, {Status: backend.Starting}, {Status: backend.Loading}, ready, ready, terminated(backend.External), ready} {
					d.report(a.BackendID, s)
				}
				stream(backend.Starting, &late)
				pass(10 * time.Second)
				require.Equal(t, []backend.Status{backend.Scheduled, backend.Loading, backend.Starting, backend.Ready, backend.Terminated}, early)
				require.Equal(t, []backend.Status{backend.Ready, backend.Terminated}, late)
			})
		})
	}
}

func TestAStatusStreamEndsWithItsReader(t *testing.T) {
	inBubble(t, everyHint, func(r *rig) {
		r.drone("dr-1")
		a := r.connect(spawnBoard)
		gone := errors.New("reader is gone")
		err := r.StatusStream(r.Context(), a.BackendID, 0, func(protocol.StatusEntry) error { return nil }, func() error { return gone })
		require.ErrorIs(t, err, gone)
		ctx, cancel := context.WithTimeout(r.Context(), 30*time.Second)
		defer cancel()
		err = r.StatusStream(ctx, a.BackendID, 0, func(protocol.StatusEntry) error { return nil }, func() error { return nil })
		require.ErrorIs(t, err, context.DeadlineExceeded)
		err = r.StatusStream(r.Context(), "nobody", 0, nil, nil)
		require.ErrorContains(t, err, `"nobody"`)
	})
}

// Shortfall 9, G4.
func TestABackendOfALostDroneEnds(t *testing.T) {
	inBubble(t, everyHint, func(r *rig) {
		d := r.drone("dr-1")
		a := r.connect(spawnBoard)
		d.report(a.BackendID, ready)
		close(d.closed)
		pass(130 * time.Second)
		entry, err := r.Status(r.Context(), a.BackendID)
		require.NoError(t, err)
		require.Equal(t, backend.Terminated, entry.Status)
		require.NotEmpty(t, entry.Message)
	})
}

func TestDrainedStaysDrained(t *testing.T) {
	inBubble(t, everyHint, func(r *rig) {
		r.drone("dr-1")
		for _, updated := range []bool{true, false} {
			got, err := r.Drain(r.Context(), cluster, "dr-1")
			require.NoError(t, err)
			require.Equal(t, updated, got.Updated)
		}
		r.drone("dr-1")
		_, err := r.Connect(r.Context(), request(r.T, spawnBoard))
		require.ErrorContains(t, err, "NoDroneAvailable")
		state, err := r.ClusterState(r.Context(), cluster)
		require.NoError(t, err)
		require.True(t, state.Drones[0].Draining)
		_, err = r.Drain(r.Context(), cluster, "dr-2")
		require.ErrorContains(t, err, "dr-2")
	})
}
