package cluster

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/sim/fault"
)

// certified is how many proxies have a good certificate.
func (s *script) certified() (n int) {
	for _, p := range s.proxies {
		if p.tls.keeper == nil {
			continue
		}
		if c, err := p.tls.keeper.Current(); err == nil && s.Now().Before(c.NotAfter) {
			n++
		}
	}
	return n
}

// Three proxies of one cluster and two DNS receivers, with a controller of ours and one that knows a
// single challenge at a time. What they order is held to G14 all the while.
var certificateScenarios = []struct {
	name    string
	life    time.Duration
	early   bool
	weather fault.Weather
	run     func(s *script)
}{
	{"shortfall 18: proxies that order at once, from a slow authority, all get certificates", 15 * time.Minute, false, fault.Weather{Drift: true, AuthoritySlow: 1}, (*script).orderAtOnce},
	{"shortfall 11: a short life is renewed after two thirds of it, again and again", 90 * time.Second, false, fault.Weather{Drift: true}, (*script).renewals},
	{"G14: a restart orders nothing", 15 * time.Minute, false, fault.Weather{Drift: true}, (*script).restartProxies},
	{"G14: a certificate is renewed when its authority wants it", 15 * time.Minute, true, fault.Weather{Drift: true}, (*script).earlyRenewals},
	{"an order goes on when its controller does not", time.Hour, false, fault.Weather{Drift: true, AuthoritySlow: 1}, (*script).losingControllers},
	{"F1: while one DNS receiver is away the other one answers, by way of any controller", 4 * time.Minute, false, fault.Weather{Drift: true}, (*script).losingReceivers},
	{"F7: an authority that is away does not spoil what there is", 4 * time.Minute, false, fault.Weather{Drift: true}, (*script).authorityAway},
}

func TestCertificateScenarios(t *testing.T) {
	for _, s := range certificateScenarios {
		for _, old := range []bool{false, true} {
			for seed := range uint64(3) {
				t.Run(fmt.Sprintf("%s/%v/%d", s.name, old, seed), func(t *testing.T) {
					ended := false
					r := Run(Options{
						Seed: seed, Storm: 30 * time.Minute, Weather: s.weather,
						Shape: Shape{Controllers: 2, Drones: 1, Proxies: 3, Receivers: 2, Keys: 1, CertificateLife: s.life, Old: old, Early: s.early},
						Script: func(ctx context.Context, c *Cluster) {
							s.run(&script{t, c, ctx})
							ended = true
						},
					}, true)
					if len(r.Violations) > 0 || !ended {
						for _, l := range r.Story {
							t.Log(l)
						}
					}
					require.Empty(t, r.Violations)
					require.True(t, ended, "the script has come to its end")
				})
			}
		}
	}
}

func (s *script) orderAtOnce() {
	s.pass(10 * time.Minute)
	require.Equal(s, 3, s.certified())
	require.Equal(s, 3, s.authority.Issuances(), "no order had to be made twice")
}

func (s *script) renewals() {
	s.pass(30 * time.Second)
	for range 20 * 60 {
		s.pass(time.Second)
		require.Equal(s, 3, s.certified())
	}
	require.InDelta(s, 3*20, s.authority.Issuances(), 6)
}

func (s *script) earlyRenewals() {
	for range 25 * 60 {
		s.pass(time.Second)
		for _, p := range s.proxies {
			served, err := p.tls.keeper.Current()
			if err != nil {
				continue // the first one is not there yet
			}
			require.Less(s, s.authority.Overdue(p.node, served), 30*time.Second)
		}
	}
	require.Greater(s, s.authority.Issuances(), 3*3, "more than two thirds of their lives explain")
}

func (s *script) restartProxies() {
	s.pass(time.Minute)
	require.Equal(s, 3, s.certified())
	for range 5 {
		for _, p := range s.proxies {
			s.stop(p, false)
			s.pass(2 * time.Second)
			s.bootUp(p)
			s.pass(10 * time.Second)
		}
		require.Equal(s, 3, s.certified())
	}
	require.Equal(s, 3, s.authority.Issuances())
}

func (s *script) losingControllers() {
	s.pass(10 * time.Second)
	for range 4 {
		for _, co := range s.controllers {
			s.stop(co, false)
			s.pass(20 * time.Second)
			s.bootUp(co)
			s.pass(40 * time.Second)
		}
	}
	s.pass(5 * time.Minute)
	require.Equal(s, 3, s.certified())
	require.Equal(s, 3, s.authority.Issuances(), "no order had to be made twice")
}

// losingReceivers has one receiver away at any time, and starts the controllers
// anew in turn: so a receiver's session ends, and it takes the other one. Where a
// challenge could not be looked up, the next order comes before the certificate has
// ended.
func (s *script) losingReceivers() {
	s.pass(10 * time.Second)
	for turn := range 20 {
		away, co := s.receivers[turn%2], s.controllers[turn/2%2]
		s.stop(away, false)
		s.stop(co, false)
		s.pass(30 * time.Second)
		s.bootUp(co)
		s.pass(30 * time.Second)
		require.Equal(s, 3, s.certified(), "turn %d", turn)
		s.bootUp(away)
	}
	require.Greater(s, s.authority.Issuances(), 3*5, "they were renewed")
}

func (s *script) authorityAway() {
	s.pass(time.Minute)
	s.weather.AuthorityFails = 1
	s.pass(2*time.Minute + 30*time.Second)
	require.Equal(s, 3, s.certified(), "they live for another while")
	s.weather.AuthorityFails = 0
	s.pass(time.Minute)
	require.Equal(s, 3, s.certified())
	require.Equal(s, 6, s.authority.Issuances())
}
