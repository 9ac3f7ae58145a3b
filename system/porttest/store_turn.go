package porttest

import (
	"fmt"

	"github.com/stretchr/testify/require"

	"plane/system/port"
)

// sweepAgain sweeps unless somebody has looked within the last seconds.
func (s *store) sweepAgain(seconds int, change ...func(p *port.SweepParams)) (handled int, more bool) {
	s.Helper()
	p := s.sweepParams()
	p.Every = s.seconds(seconds)
	for _, c := range change {
		c(&p)
	}
	handled, more, err := s.Store.Sweep(s.Context(), p)
	s.ok(err)
	return handled, more
}

// swept requires that such a sweep handles so many, and knows of no more.
func (s *store) swept(want, seconds int, change ...func(p *port.SweepParams)) {
	s.Helper()
	n, more := s.sweepAgain(seconds, change...)
	require.Equal(s, want, n)
	require.False(s, more)
}

func skipIdle(p *port.SweepParams) { p.SkipIdle = true }

// turnTests are of sweeps that leave a look at all backends to each other.
var turnTests = []storeTest{
	{name: "one look serves all who come soon after it", run: func(s *store) {
		d := s.limited(100, 0)
		s.live(95, d, "b")
		s.swept(0, 10)
		s.live(5, d, "b")
		s.swept(0, 10)
		require.Empty(s, s.pending(d), "the one before has just looked")
		require.Equal(s, 1, s.sweep(), "0 looks in any case")
	}},
	{name: "G4: and then another looks", run: func(s *store) {
		d := s.limited(100, 0)
		s.live(95, d, "b")
		s.swept(0, 10)
		require.Zero(s, s.sweep(), "this is no look that others go by")
		s.live(5, d, "b")
		s.swept(0, 10)
		s.live(5, d, "b")
		s.swept(1, 10)
		require.Equal(s, []string{"soft swept b"}, s.pending(d))
		s.live(40, d, "b")
		s.swept(0, 50)
		s.swept(1, 10)
		require.Equal(s, []string{"soft swept b", "hard swept b"}, s.pending(d), "each goes by an age of its own")
	}},
	{name: "G4: who is told of more goes on with it", run: func(s *store) {
		s.drone("dr-1")
		for i := range 5 {
			s.connect(s.spawn(fmt.Sprint("k", i), fmt.Sprint("b", i)))
		}
		s.pass(61)
		three := func(p *port.SweepParams) { p.Limit = 3 }
		n, more := s.sweepAgain(10, three)
		require.Equal(s, 3, n)
		require.True(s, more)
		s.swept(0, 10, three)
		s.swept(2, 0, three)
	}},
	{name: "G4: a look that leaves out the idle takes the turn of no complete one", run: func(s *store) {
		d := s.limited(0, 20)
		s.live(20, d, "b")
		s.swept(0, 10, skipIdle)
		s.swept(1, 10)
	}},
	{name: "but where a complete one began it is not needed", run: func(s *store) {
		d := s.limited(100, 0)
		s.live(95, d, "b")
		s.swept(0, 10)
		s.live(5, d, "b")
		s.swept(0, 10, skipIdle)
		s.live(5, d, "b")
		s.swept(1, 10, skipIdle)
	}},
}
