package porttest

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/port"
)

// Challenges holds an implementation of port.ChallengeStore, as part of
// port.Store, to what its comments say. open gives each test a store of its own.
func Challenges(t *testing.T, open func(t *testing.T) StoreUnderTest) {
	for _, test := range challengeTests {
		t.Run(test.name, func(t *testing.T) { test.run(&store{T: t, StoreUnderTest: open(t)}) })
	}
}

const otherCluster = "other.example"

func (s *store) certificate(proxy port.NodeID, seconds int) bool {
	s.Helper()
	leased, err := s.Store.LeaseCertificate(s.Context(), cluster, proxy, s.seconds(seconds))
	s.ok(err)
	return leased
}

func (s *store) release(proxy port.NodeID) {
	s.Helper()
	s.ok(s.Store.ReleaseCertificate(s.Context(), cluster, proxy))
}

// challenge adds a value, and lets a moment pass, so that none is as new as
// another.
func (s *store) challenge(proxy port.NodeID, value string, seconds int) {
	s.Helper()
	s.ok(s.Store.AddChallenge(s.Context(), cluster, proxy, value, s.seconds(seconds)))
	s.Advance(time.Millisecond)
}

// challenges requires exactly these values, in order.
func (s *store) challenges(want ...string) {
	s.Helper()
	require.Equal(s, [][]string{want}, s.challengesOf(cluster))
}

func (s *store) challengesOf(clusters ...string) [][]string {
	s.Helper()
	got, err := s.Store.Challenges(s.Context(), clusters)
	s.ok(err)
	for i := range got {
		if len(got[i]) == 0 {
			got[i] = nil // as good as empty
		}
	}
	return got
}

var challengeTests = []storeTest{
	{name: "there are none at first, and that is no error", run: func(s *store) { s.challenges() }},
	{name: "the newest comes first", run: func(s *store) {
		p := s.proxy("px-1")
		s.challenge(p, "base", 60)
		s.challenge(p, "wildcard", 60)
		s.challenges("wildcard", "base")
	}},
	{name: "G14, shortfall 18: values are a set: nobody touches those of another", run: func(s *store) {
		p, q := s.proxy("px-1"), s.proxy("px-2")
		s.challenge(p, "p's", 60)
		s.challenge(q, "q's", 60)
		s.challenges("q's", "p's")
		s.release(q)
		s.challenges("p's")
		s.release(q)
		s.release(p)
		s.challenges()
	}},
	{name: "a cluster has values of its own", run: func(s *store) {
		p := s.proxy("px-1")
		s.ok(s.Store.AddChallenge(s.Context(), otherCluster, p, "elsewhere", s.seconds(60)))
		s.challenges()
		s.challenge(p, "here", 60)
		s.ok(s.Store.ReleaseCertificate(s.Context(), otherCluster, p))
		s.challenges("here")
	}},
	{name: "many clusters are asked at once, each has its place", run: func(s *store) {
		p := s.proxy("px-1")
		s.ok(s.Store.AddChallenge(s.Context(), otherCluster, p, "elsewhere", s.seconds(60)))
		s.challenge(p, "base", 60)
		s.challenge(p, "wildcard", 60)
		here := []string{"wildcard", "base"}
		want := [][]string{nil, here, {"elsewhere"}, nil, here}
		require.Equal(s, want, s.challengesOf("nobody.example", cluster, otherCluster, "nobody.example", cluster))
		require.Empty(s, s.challengesOf())
	}},
	{name: "those of the lease's holder come before newer ones", run: func(s *store) {
		p, q, r := s.proxy("px-1"), s.proxy("px-2"), s.proxy("px-3")
		require.True(s, s.certificate(q, 100))
		s.challenge(p, "p's", 600)
		s.challenge(q, "q's first", 600)
		s.challenge(q, "q's second", 600)
		s.challenge(r, "r's", 600)
		s.challenges("q's second", "q's first", "r's", "p's")
	}},
	{name: "of a lapsed lease nothing is left", run: func(s *store) {
		p, q := s.proxy("px-1"), s.proxy("px-2")
		require.True(s, s.certificate(p, 10))
		s.challenge(p, "p's", 5)
		s.pass(6)
		s.challenge(q, "older", 600)
		s.pass(5)
		s.challenge(p, "p's", 600) // the lease has lapsed, and this is no reason to extend it
		s.challenge(q, "newer", 600)
		s.challenges("newer", "p's", "older")
		require.True(s, s.certificate(q, 10))
	}},
	{name: "a value lives for its life", run: func(s *store) {
		p := s.proxy("px-1")
		s.challenge(p, "short", 10)
		s.challenge(p, "long", 30)
		s.pass(8)
		s.challenges("long", "short")
		s.pass(3)
		s.challenges("long")
		s.pass(20)
		s.challenges()
	}},
	{name: "added again it lives longer, never shorter, and is the newest", run: func(s *store) {
		p := s.proxy("px-1")
		s.challenge(p, "a", 10)
		s.challenge(p, "b", 30)
		s.pass(5)
		s.challenge(p, "a", 20)
		s.challenges("a", "b")
		s.challenge(p, "b", 1)
		s.challenges("b", "a")
		s.pass(15)
		s.challenges("b", "a")
		s.pass(6)
		s.challenges("b")
	}},
	{name: "two proxies may want the same value, each for as long as it says", run: func(s *store) {
		p, q := s.proxy("px-1"), s.proxy("px-2")
		s.challenge(p, "same", 60)
		s.challenge(q, "same", 60)
		s.release(p)
		s.challenges("same")
	}},
	{name: "a proxy has so many, the oldest gives way", run: func(s *store) {
		p, q := s.proxy("px-1"), s.proxy("px-2")
		s.challenge(q, "q's", 600)
		want := []string{"q's"}
		for n := range port.MaxChallenges + 2 {
			value := fmt.Sprint("v", n)
			s.challenge(p, value, 600)
			if n >= 2 {
				want = append([]string{value}, want...)
			}
		}
		s.challenges(want...)
	}},
	{name: "one proxy at a time has the lease", run: func(s *store) {
		p, q := s.proxy("px-1"), s.proxy("px-2")
		require.True(s, s.certificate(p, 60))
		require.False(s, s.certificate(q, 60))
		require.True(s, s.certificate(p, 60), "again, for the holder")
		s.release(q)
		require.False(s, s.certificate(q, 60), "it was not q's to release")
		s.release(p)
		require.True(s, s.certificate(q, 60))
		s.release(p)
		require.False(s, s.certificate(p, 60))
	}},
	{name: "each cluster has a lease", run: func(s *store) {
		p, q := s.proxy("px-1"), s.proxy("px-2")
		require.True(s, s.certificate(p, 60))
		leased, err := s.Store.LeaseCertificate(s.Context(), otherCluster, q, s.seconds(60))
		s.ok(err)
		require.True(s, leased)
	}},
	{name: "shortfall 18: a lease lapses unless it is extended, and is never shortened", run: func(s *store) {
		p, q := s.proxy("px-1"), s.proxy("px-2")
		require.True(s, s.certificate(p, 20))
		s.pass(17)
		require.True(s, s.certificate(p, 20))
		require.True(s, s.certificate(p, 1))
		s.pass(17)
		require.False(s, s.certificate(q, 20))
		s.pass(4)
		require.True(s, s.certificate(q, 20))
		require.False(s, s.certificate(p, 20))
	}},
	{name: "shortfall 18: a challenge keeps the lease of its proxy alive", run: func(s *store) {
		p, q := s.proxy("px-1"), s.proxy("px-2")
		require.True(s, s.certificate(p, 5))
		s.challenge(q, "q's", 100) // q's own keeps nothing of p's
		s.challenge(p, "base", 20)
		s.challenge(p, "wildcard", 1) // never shortened
		s.pass(17)
		require.False(s, s.certificate(q, 5))
		s.challenges("base", "q's")
		s.pass(4)
		require.True(s, s.certificate(q, 5))
	}},
	{name: "a proxy that is gone for good holds up nobody", run: func(s *store) {
		p, q := s.proxy("px-1"), s.proxy("px-2")
		require.True(s, s.certificate(p, 5))
		s.challenge(p, "base", 1000)
		s.pass(200)
		require.False(s, s.certificate(q, 5), "it is silent, and connected")
		s.disconnect(p, "px-1")
		require.True(s, s.certificate(q, 5), "it was not heard from for so long")
		s.pass(1)
		require.False(s, s.certificate(p, 5))
		r := s.proxy("px-3")
		s.release(q)
		require.True(s, s.certificate(r, 500))
		s.disconnect(r, "px-3")
		s.pass(100)
		require.False(s, s.certificate(q, 5), "it may come back")
		s.pass(25)
		require.True(s, s.certificate(q, 5))
		s.challenges("base")
	}},
}
