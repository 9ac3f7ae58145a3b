package proxy_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/port"
	"plane/system/protocol"
	"plane/system/route"
)

func TestG7RouteIsTrusted30SecondsFromItsQuestion(t *testing.T) {
	run(t, nil, func(t *testing.T, w *world) {
		c := w.route(a)
		w.sleep(4 * time.Second)
		r := to("one")
		w.answer(a, &r)
		require.True(t, c.done())
		w.cut()
		// 30 s, less 2 % for drift and 5 s to connect, are 24.4 s.
		w.sleep(20300 * time.Millisecond)
		require.True(t, w.route(a).done())
		_, done, err := w.Open(w.ctx, a, r, false)
		require.NoError(t, err)
		done()
		w.sleep(200 * time.Millisecond)
		_, _, err = w.Open(w.ctx, a, r, false)
		require.ErrorIs(t, err, port.ErrNotFound)
		late := w.route(a)
		require.False(t, late.done())
		w.sleep(10 * time.Second)
		require.ErrorIs(t, late.err, port.ErrUnavailable)
	})
}

func TestG7BusyRouteIsRefreshedBesideItsUse(t *testing.T) {
	run(t, nil, func(t *testing.T, w *world) {
		r := w.routed(a, to("one"))
		w.asked()
		for range 20 {
			w.sleep(9 * time.Second)
			require.True(t, w.route(a).done())
			require.Empty(t, w.asked())
			w.sleep(2 * time.Second)
			require.True(t, w.route(a).done(), "busy routes never block")
			require.True(t, w.route(a).done())
			require.Equal(t, []string{a}, w.asked(), "asked once")
			w.answer(a, &r)
		}
	})
}

func TestG7Shortfall7RemovalMissedWhileCutOff(t *testing.T) {
	run(t, nil, func(t *testing.T, w *world) {
		w.routed(a, to("one"))
		w.cut()
		w.sleep(time.Second)
		w.heal()
		require.Empty(t, w.asked(), "only what is used is asked anew")
		require.True(t, w.route(a).done())
		require.Equal(t, []string{a}, w.asked())
		w.answer(a, nil)
		require.ErrorIs(t, w.route(a).err, port.ErrNotFound)
	})
}

func TestG7AnswerUnderWayDoesNotUndoARemoval(t *testing.T) {
	run(t, nil, func(t *testing.T, w *world) {
		c := w.route(a)
		w.asked()
		w.tell(protocol.BackendRemoved{Backend: "one"})
		r := to("one")
		w.answer(a, &r) // from before the removal
		require.False(t, c.done())
		require.Equal(t, []string{a}, w.asked())
		w.answer(a, nil)
		require.ErrorIs(t, c.err, port.ErrNotFound)
	})
}

func TestG7RemovalTakesOnlyThatBackendOut(t *testing.T) {
	run(t, nil, func(t *testing.T, w *world) {
		r := w.routed(a, of("amy", "one"))
		w.routed(b, to("two"))
		use, done := w.open(a, r, true)
		defer done()
		w.tell(protocol.BackendRemoved{Backend: "one"})
		require.False(t, w.route(a).done())
		require.True(t, w.route(b).done())
		_, _, err := w.Open(w.ctx, a, r, false)
		require.ErrorIs(t, err, port.ErrNotFound)
		require.NoError(t, use.Err(), "the backend closes its connections itself")
		w.answer(a, nil)
		require.NoError(t, use.Err(), "that its token is void now does not mean that it was revoked")
	})
}

func TestG8Shortfall8RevocationClosesConnectionsAndRoutes(t *testing.T) {
	run(t, nil, func(t *testing.T, w *world) {
		amy, doneA := w.open(a, of("amy", "one"), true)
		defer doneA()
		bob, doneB := w.open(b, of("bob", "one"), true)
		defer doneB()
		w.tell(protocol.TokenRevoked{Backend: "one", User: "amy"})
		require.ErrorIs(t, context.Cause(amy), route.ErrRevoked)
		require.NoError(t, bob.Err())
		require.False(t, w.route(a).done())
		require.True(t, w.route(b).done())
	})
}

func TestG8AnswerUnderWayDoesNotUndoARevocation(t *testing.T) {
	run(t, nil, func(t *testing.T, w *world) {
		c := w.route(a)
		w.asked()
		w.tell(protocol.TokenRevoked{Backend: "one", User: "amy"})
		r := of("amy", "one")
		w.answer(a, &r)
		require.False(t, c.done())
		require.Equal(t, []string{a}, w.asked())
		w.answer(a, nil)
		require.ErrorIs(t, c.err, port.ErrNotFound)
	})
}

func TestG8RevocationMissedWhileCutOff(t *testing.T) {
	run(t, nil, func(t *testing.T, w *world) {
		amy, doneA := w.open(a, of("amy", "one"), true)
		defer doneA()
		bob, doneB := w.open(b, of("bob", "one"), true)
		defer doneB()
		w.cut()
		w.sleep(time.Hour)
		require.NoError(t, amy.Err(), "cut off, open connections stay open")
		w.heal()
		require.Equal(t, []string{a, b}, w.asked(), "at once")
		w.answer(a, nil)
		r := of("bob", "one")
		w.answer(b, &r)
		require.ErrorIs(t, context.Cause(amy), route.ErrRevoked)
		require.NoError(t, bob.Err())
	})
}

func TestG8ExpiredTokenOpensNothingAndKeepsWhatIsOpen(t *testing.T) {
	run(t, nil, func(t *testing.T, w *world) {
		r, in := of("amy", "one"), int64(10_000)
		r.ExpiresIn = &in
		use, done := w.open(a, r, true)
		defer done()
		w.sleep(9700 * time.Millisecond)
		require.True(t, w.route(a).done())
		w.sleep(200 * time.Millisecond) // 2 % of drift before the end
		_, _, err := w.Open(w.ctx, a, r, false)
		require.ErrorIs(t, err, port.ErrNotFound)
		c := w.route(a)
		require.False(t, c.done())
		w.answer(a, nil)
		require.ErrorIs(t, c.err, port.ErrNotFound)
		w.cut()
		w.heal()
		w.answer(a, nil)
		require.NoError(t, use.Err())
	})
}

func TestG9UpgradedConnectionIsKeptAliveAsLongAsItIsOpen(t *testing.T) {
	run(t, nil, func(t *testing.T, w *world) {
		_, done := w.open(a, to("one"), true)
		require.Equal(t, []string{"one"}, w.keptAlive(), "at once")
		for range 10 {
			w.sleep(7 * time.Second)
			require.Equal(t, []string{"one"}, w.keptAlive())
		}
		done()
		w.sleep(time.Minute)
		require.Empty(t, w.keptAlive())
		require.Zero(t, w.Size().Backends)
	})
}

func TestG9PlainRequestsCountForSevenSecondsAndWhileTheyRun(t *testing.T) {
	run(t, nil, func(t *testing.T, w *world) {
		_, done := w.open(a, to("one"), false)
		done()
		require.Equal(t, []string{"one"}, w.keptAlive())
		w.sleep(3 * time.Second)
		_, done = w.open(a, to("one"), false)
		require.Empty(t, w.keptAlive(), "one in seven seconds is enough")
		done()
		w.sleep(4 * time.Second)
		require.Equal(t, []string{"one"}, w.keptAlive(), "for the second request")
		_, done = w.open(a, to("one"), false)
		w.sleep(7 * time.Second)
		require.Equal(t, []string{"one"}, w.keptAlive(), "still running")
		done()
		w.sleep(time.Minute)
		require.Empty(t, w.keptAlive())
	})
}

func TestG9EverythingInUseIsKeptAliveAtOnceAfterAReconnect(t *testing.T) {
	run(t, nil, func(t *testing.T, w *world) {
		_, doneA := w.open(a, to("one"), true)
		defer doneA()
		_, doneB := w.open(b, to("two"), true)
		_, doneC := w.open(token("c"), to("three"), true)
		w.keptAlive()
		doneC()
		w.cut()
		doneB()
		w.heal()
		require.Equal(t, []string{"one"}, w.keptAlive(), "not when it would be due, but now")
		w.cut()
		w.sleep(time.Minute)
		w.heal()
		require.Equal(t, []string{"one"}, w.keptAlive())
	})
}

func TestG9HeartbeatComesAfterAllThatIsInUse(t *testing.T) {
	run(t, nil, func(t *testing.T, w *world) {
		kinds := func() (got []string) {
			for _, m := range w.heard() {
				switch m := m.(type) {
				case protocol.KeepAlive:
					got = append(got, m.Backend)
				case protocol.Heartbeat:
					got = append(got, "heartbeat")
				}
			}
			return got
		}
		require.Equal(t, []string{"heartbeat"}, kinds(), "at once, though nothing is used")
		w.sleep(time.Second)
		_, doneB := w.open(b, to("two"), true)
		_, doneA := w.open(a, to("one"), true)
		defer doneA()
		require.Equal(t, []string{"two", "one"}, kinds(), "as they came into use")
		w.sleep(6 * time.Second)
		require.Equal(t, []string{"one", "two", "heartbeat"}, kinds())
		doneB()
		w.sleep(7 * time.Second)
		require.Equal(t, []string{"one", "heartbeat"}, kinds())
		w.cut()
		w.heal()
		require.Equal(t, []string{"one", "heartbeat"}, kinds(), "at once")
	})
}

func TestBackendThatEndsClosesItsConnectionsItself(t *testing.T) {
	run(t, nil, func(t *testing.T, w *world) {
		use, done := w.open(a, of("amy", "one"), true)
		defer done()
		w.sleep(11 * time.Second)
		w.route(a) // old enough to be asked again
		w.answer(a, nil)
		require.ErrorIs(t, w.route(a).err, port.ErrNotFound)
		require.NoError(t, use.Err(), "a revocation would have been told in this session")
	})
}
