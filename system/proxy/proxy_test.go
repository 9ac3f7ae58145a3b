package proxy_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/port"
	"plane/system/protocol"
	"plane/system/proxy"
	"plane/system/route"
)

var a, b = token("a"), token("b")

func TestRouteAsksOnceForAllAndRemembers(t *testing.T) {
	run(t, nil, func(t *testing.T, w *world) {
		calls := []*call{w.route(a), w.route(a), w.route(a)}
		require.Equal(t, []string{a}, w.asked())
		r := to("one")
		w.answer(a, &r)
		for _, c := range calls {
			require.True(t, c.done())
			require.NoError(t, c.err)
			require.Equal(t, r, c.info)
		}
		require.True(t, w.route(a).done(), "known by now")
		require.Empty(t, w.asked())
	})
}

func TestMalformedTokensAreNotAskedFor(t *testing.T) {
	run(t, nil, func(t *testing.T, w *world) {
		for _, bad := range []string{"", "x", "favicon.ico", token("a") + "A", "s." + token("a") + "=", token("%")} {
			c := w.route(bad)
			require.True(t, c.done())
			require.ErrorIs(t, c.err, port.ErrNotFound)
		}
		require.Empty(t, w.asked())
	})
}

func TestRouteOfAStartingBackendWaitsUntilItIsReady(t *testing.T) {
	run(t, nil, func(t *testing.T, w *world) {
		c := w.route(a)
		w.sleep(200 * time.Second)
		require.False(t, c.done())
		w.asked()
		r := to("one")
		w.answer(a, &r)
		// The answer may be nearly as old as its question: it is asked again.
		require.False(t, c.done())
		require.Equal(t, []string{a}, w.asked())
		w.answer(a, &r)
		require.True(t, c.done())
		require.Equal(t, r, c.info)
	})
}

func TestShortfall16LookupsHaveADeadline(t *testing.T) {
	t.Run("connected", func(t *testing.T) {
		run(t, nil, func(t *testing.T, w *world) {
			c := w.route(a)
			w.sleep(309 * time.Second)
			require.False(t, c.done())
			w.sleep(time.Second)
			require.True(t, c.done())
			require.ErrorIs(t, c.err, context.DeadlineExceeded)
		})
	})
	t.Run("cut off before", func(t *testing.T) {
		run(t, nil, func(t *testing.T, w *world) {
			w.cut()
			w.sleep(time.Minute)
			c := w.route(a)
			w.sleep(time.Minute)
			require.ErrorIs(t, c.err, port.ErrUnavailable)
			require.Equal(t, 10*time.Second, c.took)
		})
	})
	t.Run("cut off meanwhile", func(t *testing.T) {
		run(t, nil, func(t *testing.T, w *world) {
			c := w.route(a)
			w.sleep(5 * time.Second)
			w.cut()
			w.sleep(time.Minute)
			require.ErrorIs(t, c.err, port.ErrUnavailable)
			require.Equal(t, 15*time.Second, c.took)
		})
	})
}

func TestShortfall15AQuestionIsAskedAgainAfterAReconnect(t *testing.T) {
	run(t, nil, func(t *testing.T, w *world) {
		c := w.route(a)
		require.Equal(t, []string{a}, w.asked())
		w.cut()
		w.heal()
		require.Equal(t, []string{a}, w.asked())
		r := to("one")
		w.answer(a, &r)
		require.True(t, c.done())
		require.NoError(t, c.err)
	})
}

func TestShortfall15WaitersEndWithTheirRequest(t *testing.T) {
	run(t, nil, func(t *testing.T, w *world) {
		stays, goes := w.route(a), w.route(a)
		goes.stop()
		synctest.Wait()
		require.True(t, goes.done())
		require.ErrorIs(t, goes.err, context.Canceled)
		require.False(t, stays.done())
		stays.stop()
		w.cut()
		require.Zero(t, w.Size().Lookups, "nobody waits any more")
	})
}

func TestShortfall16JunkDoesNotEvictRoutes(t *testing.T) {
	configure := func(c *proxy.Config) { c.Routes.MaxRoutes, c.Routes.MaxAbsent, c.Routes.MaxLookups = 2, 3, 4 }
	run(t, configure, func(t *testing.T, w *world) {
		w.routed(a, to("one"))
		for _, c := range "cdefghijkl" {
			junk := w.route(token(string(c)))
			w.answer(token(string(c)), nil)
			require.ErrorIs(t, junk.err, port.ErrNotFound)
		}
		require.Equal(t, route.Size{Routes: 1, Absent: 3}, w.Size())
		w.heard()
		require.True(t, w.route(a).done())
		require.Empty(t, w.asked())
	})
}

func TestShortfall16UnansweredJunkDoesNotStarveKnownTokens(t *testing.T) {
	configure := func(c *proxy.Config) { c.Routes.MaxLookups = 4 }
	run(t, configure, func(t *testing.T, w *world) {
		w.routed(a, to("one"))
		w.sleep(25 * time.Second) // too old by now
		for _, c := range "cdef" {
			require.False(t, w.route(token(string(c))).done())
		}
		refused := w.route(b)
		require.ErrorIs(t, refused.err, port.ErrUnavailable)
		w.asked()
		w.routed(a, to("one"))
	})
}

func TestJunkIsNotAskedAgainForAWhile(t *testing.T) {
	run(t, nil, func(t *testing.T, w *world) {
		w.route(a)
		w.answer(a, nil)
		w.asked()
		require.ErrorIs(t, w.route(a).err, port.ErrNotFound)
		require.Empty(t, w.asked())
		w.sleep(10 * time.Second)
		require.False(t, w.route(a).done())
		require.Equal(t, []string{a}, w.asked())
	})
}

func TestReadyIsToBeConnected(t *testing.T) {
	run(t, nil, func(t *testing.T, w *world) {
		require.True(t, w.Ready())
		w.cut()
		w.heal()
	})
}

func TestMalformedMessagesDoNotEndTheSession(t *testing.T) {
	run(t, nil, func(t *testing.T, w *world) {
		for _, frame := range []string{`{`, `{"BackendRemoved":{}}`, `{"News":1}`, `"News"`, `{"RouteInfoResponse":{"token":"x","route_info":{}}}`} {
			w.controller.link().toProxy <- []byte(frame)
		}
		w.routed(a, to("one"))
	})
}

func TestConfigIsValidated(t *testing.T) {
	good := proxy.DefaultConfig("px-a", protocol.Version{})
	require.NoError(t, good.Validate())
	for what, spoil := range map[string]func(*proxy.Config){
		"name":            func(c *proxy.Config) { c.Name = "dr-a" },
		"ready timeout":   func(c *proxy.Config) { c.ReadyTimeout = 0 },
		"offline timeout": func(c *proxy.Config) { c.OfflineTimeout = -1 },
		"trust too short": func(c *proxy.Config) { c.Routes.TrustFor = 10 * time.Second },
		"no routes":       func(c *proxy.Config) { c.Routes.MaxRoutes = 0 },
		"no keep-alives":  func(c *proxy.Config) { c.Routes.UseFor = 0 },
	} {
		bad := good
		spoil(&bad)
		require.Error(t, bad.Validate(), what)
	}
}

// TestManyAtOnce is for the race detector: requests, answers, removals,
// revocations and broken sessions all at the same time.
func TestManyAtOnce(t *testing.T) {
	configure := func(c *proxy.Config) { c.Routes.MaxRoutes, c.Routes.MaxAbsent, c.Routes.MaxVoids = 8, 8, 8 }
	run(t, configure, func(t *testing.T, w *world) {
		var running sync.WaitGroup
		over := w.clock.Now().Add(time.Minute)
		var served atomic.Int32
		for i := range 50 {
			running.Go(func() {
				tok := token(string(rune('a' + i%20)))
				for n := 1; w.clock.Now().Before(over); n++ {
					time.Sleep(time.Duration(1+i*n%97) * time.Millisecond) //nolint:forbidigo // the time of the bubble
					r, err := w.Route(w.ctx, tok)
					if err != nil {
						continue
					}
					use, done, err := w.Open(w.ctx, tok, r, n%2 == 0)
					if err != nil {
						continue
					}
					served.Add(1)
					_ = w.clock.Sleep(use, time.Duration(i)*100*time.Millisecond)
					done()
				}
			})
		}
		for n := 0; w.clock.Now().Before(over); n++ {
			for _, tok := range w.asked() {
				r := of("amy", string(rune('a'+n%7)))
				w.answer(tok, &r)
			}
			switch n % 50 {
			case 10:
				w.tell(protocol.BackendRemoved{Backend: "c"})
			case 20:
				w.tell(protocol.TokenRevoked{Backend: "d", User: "amy"})
			case 40:
				w.cut()
				w.heal()
			}
			w.sleep(10 * time.Millisecond)
		}
		w.cut()
		running.Wait()
		require.NotZero(t, served.Load())
		require.Zero(t, w.Size().Uses)
	})
}
