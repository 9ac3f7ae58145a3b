package porttest

import (
	"fmt"

	"github.com/stretchr/testify/require"

	"plane/system/backend"
	"plane/system/port"
)

// limited makes a drone with one ready backend "b" that has limits in seconds.
func (s *store) limited(lifetime, maxIdle int) port.NodeID {
	s.Helper()
	d := s.drone("dr-1")
	p := s.spawn("k", "b")
	p.Spawn.Lifetime, p.Spawn.MaxIdle = s.seconds(lifetime), s.seconds(maxIdle)
	s.connect(p)
	s.ok(s.Store.AckActions(s.Context(), d, []string{"ak-spawn-b"}))
	s.to(d, "b", backend.Ready)
	return d
}

// ended requires that the store itself declared the backend terminated.
func (s *store) ended(id string, reason backend.Reason) {
	s.Helper()
	end := s.state(id)
	require.Equal(s, backend.Terminated, end.Status)
	require.Equal(s, reason, end.Reason)
	require.NotEmpty(s, end.Message, "in words")
	history := s.statuses(id, 0)
	require.Equal(s, backend.Terminated, history[len(history)-1])
	s.hinted(port.BackendTopic, id)
}

var sweepTests = []storeTest{
	{name: "G4: past its lifetime a backend is asked, then made to end", run: func(s *store) {
		d := s.limited(100, 0)
		s.live(95, d, "b")
		require.Zero(s, s.sweep())
		s.live(5, d, "b")
		require.Equal(s, 1, s.sweep())
		require.Equal(s, []string{"soft swept b"}, s.pending(d))
		require.Zero(s, s.sweep(), "any number of controllers may sweep")
		s.ok(s.Store.AckActions(s.Context(), d, []string{"ak-1"}))
		s.to(d, "b", backend.Terminating)
		s.live(25, d, "b")
		require.Zero(s, s.sweep())
		s.live(10, d, "b")
		require.Equal(s, 1, s.sweep())
		require.Equal(s, []string{"hard swept b"}, s.pending(d))
		s.live(60, d, "b")
		require.Zero(s, s.sweep(), "nothing is harder")
	}},
	{name: "a termination that is under way counts for a sweep", run: func(s *store) {
		d := s.limited(100, 0)
		s.live(90, d, "b")
		s.terminate("b", backend.Soft)
		s.live(10, d, "b")
		require.Zero(s, s.sweep())
		s.live(25, d, "b")
		require.Equal(s, 1, s.sweep())
		require.Equal(s, []string{"soft external b", "hard swept b"}, s.pending(d))
	}},
	{name: "a backend without limits lives", run: func(s *store) {
		d := s.limited(0, 0)
		s.live(1000, d, "b")
		require.Zero(s, s.sweep())
	}},
	{name: "shortfall 9, G4: the backends of a lost drone are lost", run: func(s *store) {
		d := s.ready("b")
		s.connect(s.spawn("k2", "b2"))
		other := s.drone("dr-2")
		require.True(s, s.renew(d, "b"))
		s.pass(50)
		require.True(s, s.renew(d, "b"))
		s.pass(50)
		require.True(s, s.renew(d, "b"))
		s.pass(25)
		s.beat(other, "dr-2", droneClock)
		p := s.sweepParams()
		p.LeaseGrace = s.seconds(1000)
		n, _, err := s.Store.Sweep(s.Context(), p)
		s.ok(err)
		require.Equal(s, 1, n)
		s.ended("b2", backend.Lost)
		require.Equal(s, backend.Ready, s.state("b").Status, "while the lease holds it may run")
		s.pass(40)
		n, _, err = s.Store.Sweep(s.Context(), p)
		s.ok(err)
		require.Equal(s, 1, n)
		s.ended("b", backend.Lost)
		require.Equal(s, []port.RecordOutcome{port.Stale}, s.report(d, "b", stateAt(backend.Terminated)), "the drone comes back")
		s.noRoute("token for b")
		s.beat(other, "dr-2", droneClock)
		require.Equal(s, "dr-2", s.connect(s.spawn("k", "b3")).Drone)
		require.Empty(s, s.pending(d))
	}},
	{name: "shortfall 9, G4: a spawn that no drone took up ends with its lease", run: func(s *store) {
		d := s.drone("dr-1")
		s.connect(s.spawn("k", "b"))
		s.pass(55)
		s.beat(d, "dr-1", droneClock)
		require.Zero(s, s.sweep())
		s.pass(6)
		require.Equal(s, 1, s.sweep())
		s.ended("b", backend.KeyExpired)
		require.Empty(s, s.pending(d))
		s.refuse(s.find("k", "t"), port.ErrKeyUnheld)
	}},
	{name: "a renewal for a shorter term ends sooner", run: func(s *store) {
		d := s.drone("dr-1")
		s.connect(s.spawn("k", "b"))
		short := s.lease()
		short.Expiry = s.seconds(20)
		_, err := s.Store.RenewKeys(s.Context(), []port.Renewal{{Drone: d, BackendID: "b", Lease: short}})
		s.ok(err)
		s.pass(21)
		require.Equal(s, 1, s.sweep())
		s.ended("b", backend.KeyExpired)
	}},
	{name: "G4: a backend whose lease ran out long ago has ended", run: func(s *store) {
		d := s.ready("b")
		s.pass(61)
		s.beat(d, "dr-1", droneClock)
		require.Zero(s, s.sweep(), "its drone may still say how it ended")
		s.pass(30)
		s.beat(d, "dr-1", droneClock)
		require.Equal(s, 1, s.sweep())
		s.ended("b", backend.KeyExpired)
		require.Equal(s, backend.Ready, s.state("b").Last)
	}},
	{name: "G4: so has one that lost its key", run: func(s *store) {
		d := s.ready("b")
		s.pass(61)
		s.beat(d, "dr-1", droneClock)
		s.connect(s.spawn("k", "b2"))
		s.pass(30)
		s.beat(d, "dr-1", droneClock)
		require.Equal(s, 1, s.sweep())
		s.ended("b", backend.KeyExpired)
		require.Equal(s, "b2", s.connect(s.find("k", "t")).BackendID)
	}},
	{name: "a reason that the drone told stays the reason", run: func(s *store) {
		d := s.ready("b")
		s.to(d, "b", backend.Terminating)
		s.pass(125)
		require.Equal(s, 1, s.sweep())
		end := s.state("b")
		require.Equal(s, []any{backend.Terminated, backend.External, backend.Soft}, []any{end.Status, end.Reason, end.Termination})
		require.Equal(s, []port.RecordOutcome{port.Stale}, s.report(d, "b", stateAt(backend.HardTerminating)))
	}},
	{name: "a sweep handles no more than its limit", run: func(s *store) {
		s.drone("dr-1")
		for i := range 7 {
			s.connect(s.spawn(fmt.Sprint("k", i), fmt.Sprint("b", i)))
		}
		s.pass(61)
		p := s.sweepParams()
		p.Limit = 3
		for _, want := range []int{3, 3, 1, 0} {
			n, more, err := s.Store.Sweep(s.Context(), p)
			s.ok(err)
			require.Equal(s, want, n)
			require.Equal(s, want == p.Limit, more)
		}
	}},
	{name: "G4: whatever is due is handled at once, by as many calls as it takes", run: func(s *store) {
		d := s.drone("dr-1")
		for i := range 12 {
			id := fmt.Sprint("b", i)
			p := s.spawn(id, id)
			p.Spawn.Lifetime = s.seconds(20)
			s.connect(p)
			if i < 8 { // nothing but notes to be made of these
				s.terminate(id, backend.Soft)
			}
		}
		s.pass(21)
		p := s.sweepParams()
		p.Limit = 3
		swept, calls := 0, 0
		for more := true; more; calls++ {
			var n int
			var err error
			n, more, err = s.Store.Sweep(s.Context(), p)
			s.ok(err)
			require.LessOrEqual(s, n, p.Limit)
			swept += n
		}
		require.Equal(s, 4, swept)
		require.LessOrEqual(s, calls, 7, "it comes to an end")
		require.Len(s, s.pending(d), 24, "each has its spawn and its termination")
	}},
	{name: "without an age cleanup takes tokens that expired, and keeps what ended", run: func(s *store) {
		d := s.ready("b")
		s.connect(s.spawn("k2", "b2"))
		p := s.find("k", "short")
		p.TokenLife = s.seconds(5)
		s.connect(p)
		s.to(d, "b2", backend.Terminated)
		s.pass(11)
		n, err := s.Store.Cleanup(s.Context(), 0, 10)
		s.ok(err)
		require.Equal(s, 1, n)
		require.Equal(s, backend.Terminated, s.state("b2").Status)
	}},
	{name: "cleanup takes what ended long ago, and tokens that expired", run: func(s *store) {
		d := s.ready("b")
		s.to(d, "b", backend.Terminated)
		s.connect(s.spawn("k", "b2"))
		s.pass(20)
		p := s.find("k", "short")
		p.TokenLife = s.seconds(5)
		s.connect(p)
		s.pass(11)
		s.to(d, "b2", backend.Ready)
		s.connect(s.spawn("k3", "b3"))
		s.to(d, "b3", backend.Terminated)
		cleanup := func(limit int) int {
			n, err := s.Store.Cleanup(s.Context(), s.seconds(30), limit)
			s.ok(err)
			return n
		}
		require.Equal(s, 1, cleanup(1))
		require.Equal(s, 1, cleanup(10))
		require.Zero(s, cleanup(10))
		_, err := s.Store.Backend(s.Context(), "b")
		require.ErrorIs(s, err, port.ErrNotFound)
		_, err = s.Store.History(s.Context(), "b", 0)
		require.ErrorIs(s, err, port.ErrNotFound)
		require.Equal(s, backend.Ready, s.state("b2").Status)
		require.Equal(s, backend.Terminated, s.state("b3").Status)
		s.route("token for b2")
		page, err := s.Store.Backends(s.Context(), port.BackendQuery{Cluster: cluster, Limit: 10})
		s.ok(err)
		require.Len(s, page, 2)
	}},
}

// idleTests are about a backend whose idle limit is 20 s; ProxyGone is 90 s.
var idleTests = []storeTest{
	{name: "G4: what nobody ever used is idle from ready on", run: func(s *store) {
		d := s.drone("dr-1")
		p := s.spawn("k", "b")
		p.Spawn.MaxIdle = s.seconds(20)
		s.connect(p)
		s.ok(s.Store.AckActions(s.Context(), d, []string{"ak-spawn-b"}))
		s.to(d, "b", backend.Waiting)
		s.live(65, d, "b")
		require.Zero(s, s.sweep(), "what is starting is not idle")
		s.to(d, "b", backend.Ready)
		s.live(15, d, "b")
		require.Zero(s, s.sweep())
		s.live(5, d, "b")
		require.Equal(s, 1, s.sweep())
		require.Equal(s, []string{"soft swept b"}, s.pending(d))
		s.to(d, "b", backend.Terminating)
		s.live(35, d, "b")
		require.Equal(s, 1, s.sweep())
		require.Equal(s, []string{"soft swept b", "hard swept b"}, s.pending(d))
	}},
	{name: "G4: an idle limit that is shorter than the lease", run: func(s *store) {
		s.limited(0, 20)
		s.pass(20)
		require.Equal(s, 1, s.sweep())
	}},
	{name: "G9: what a proxy uses is not idle, however short the limit", run: func(s *store) {
		d, px := s.limited(0, 1), s.proxy("px-1")
		s.uses(px, "b")
		s.live(100, d, "b", func() {
			require.Zero(s, s.sweep())
			s.uses(px, "b")
		})
		require.Zero(s, s.sweep())
		s.uses(px)
		s.pass(2)
		require.Zero(s, s.sweep(), "what the proxy said is from before the limit")
		s.uses(px)
		require.Equal(s, 1, s.sweep())
	}},
	{name: "G9: a word that is committed late counts as of when it was said", run: func(s *store) {
		d, px := s.limited(0, 20), s.proxy("px-1")
		s.uses(px, "b")
		old := port.ProxyUse{Proxy: px, Complete: true, AsOf: s.now()}
		s.live(15, d, "b")
		s.uses(px, "b")
		s.ok(s.Store.KeepAlive(s.Context(), old))
		s.live(25, d, "b", func() { s.ok(s.Store.KeepAlive(s.Context(), old)) })
		require.Zero(s, s.sweep(), "a later word says that the backend is in use")
	}},
	{name: "G9: the limit counts from the last use", run: func(s *store) {
		d, px := s.limited(0, 20), s.proxy("px-1")
		s.live(15, d, "b")
		s.usesToo(px, "b")
		s.uses(px)
		s.live(15, d, "b", func() { s.uses(px) })
		require.Zero(s, s.sweep())
		s.live(5, d, "b", func() { s.uses(px) })
		require.Equal(s, 1, s.sweep())
	}},
	{name: "G9: a use that is told of alone takes no other back", run: func(s *store) {
		d, px := s.limited(0, 20), s.proxy("px-1")
		s.connect(s.spawn("k2", "b2"))
		s.uses(px, "b")
		s.usesToo(px, "b2")
		s.live(40, d, "b")
		require.Zero(s, s.sweep())
	}},
	{name: "G9: a proxy out of touch may still use what it used", run: func(s *store) {
		d, px := s.limited(0, 20), s.proxy("px-1")
		s.uses(px, "b")
		s.live(5, d, "b", func() { s.uses(px, "b") })
		s.disconnect(px, "px-1")
		s.live(85, d, "b")
		require.Zero(s, s.sweep())
		s.live(10, d, "b")
		require.Equal(s, 1, s.sweep(), "silent for ProxyGone, it holds no connections")
	}},
	{name: "G9: the limit counts from the last use by a proxy that is gone since", run: func(s *store) {
		d, px := s.limited(0, 150), s.proxy("px-1")
		s.uses(px, "b")
		s.live(25, d, "b", func() { s.uses(px, "b") })
		s.live(95, d, "b", func() { require.Zero(s, s.sweep()) })
		s.live(50, d, "b", func() { require.Zero(s, s.sweep()) })
		s.live(5, d, "b")
		require.Equal(s, 1, s.sweep())
	}},
	{name: "G9: a proxy that comes back has the time to say what it uses", run: func(s *store) {
		d, px := s.limited(0, 20), s.proxy("px-1")
		s.uses(px, "b")
		s.disconnect(px, "px-1")
		s.live(85, d, "b")
		s.register(port.ProxyNode, "px-1", "anew")
		s.live(10, d, "b")
		require.Zero(s, s.sweep())
		s.uses(px, "b")
		s.live(85, d, "b")
		require.Zero(s, s.sweep())
		s.uses(px)
		require.Equal(s, 1, s.sweep(), "it uses it no more, and has told of no use for longer than the limit")
	}},
	{name: "G9: another proxy's word changes nothing", run: func(s *store) {
		d, lost, other := s.limited(0, 20), s.proxy("px-1"), s.proxy("px-2")
		s.uses(lost, "b")
		s.uses(other, "b")
		s.disconnect(lost, "px-1")
		s.live(40, d, "b", func() { s.uses(other) })
		require.Zero(s, s.sweep())
	}},
	{name: "G9: the word of a proxy that has been silent for long is void, even if it speaks again", run: func(s *store) {
		d, px := s.limited(0, 20), s.proxy("px-1")
		s.uses(px, "b")
		s.live(95, d, "b")
		s.uses(px)
		require.Equal(s, 1, s.sweep())
	}},
	{name: "a use does not prolong a lifetime", run: func(s *store) {
		d, px := s.limited(30, 20), s.proxy("px-1")
		s.live(30, d, "b", func() { s.uses(px, "b") })
		require.Equal(s, 1, s.sweep())
	}},
	{name: "uses of what is unknown or ended are skipped", run: func(s *store) {
		d := s.ready("b")
		s.to(d, "b", backend.Terminated)
		px := s.proxy("px-1")
		s.uses(px, "unknown", "b")
		s.usesToo(px, "unknown", "b")
		s.uses(999, "b")
	}},
}
