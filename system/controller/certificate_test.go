package controller_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/protocol"
)

var (
	leaseCertificate   = protocol.CertManagerRequest{CertLeaseRequest: true}
	releaseCertificate = protocol.CertManagerRequest{ReleaseCertLease: true}
)

func txt(value string) protocol.CertManagerRequest {
	return protocol.CertManagerRequest{SetTxtRecord: &protocol.SetTxtRecord{TxtValue: value}}
}

// certificate has a proxy ask for something, and returns the answers that came.
func (p *peer) certificate(ask protocol.CertManagerRequest) (leases, values []bool) {
	p.r.Helper()
	p.say(ask)
	for _, m := range toProxy[protocol.CertManagerResponse](p) {
		if m.CertLeaseResponse != nil {
			leases = append(leases, m.CertLeaseResponse.Accepted)
		}
		if m.SetTxtRecordResponse != nil {
			values = append(values, m.SetTxtRecordResponse.Accepted)
		}
	}
	return leases, values
}

// leases asks for the lease and says whether it was given.
func (p *peer) leases() bool {
	p.r.Helper()
	leases, values := p.certificate(leaseCertificate)
	require.Len(p.r, leases, 1)
	require.Empty(p.r, values)
	return leases[0]
}

// sets a value, and says whether it was accepted.
func (p *peer) sets(value string) bool {
	p.r.Helper()
	leases, values := p.certificate(txt(value))
	require.Len(p.r, values, 1)
	require.Empty(p.r, leases)
	return values[0]
}

func (r *rig) challenges(want ...string) {
	r.Helper()
	got, err := r.store.Challenges(r.Context(), []string{cluster})
	require.NoError(r, err)
	require.Equal(r, [][]string{want}, got)
}

// Shortfall 18, G14: one value served both names, and the second proxy's took
// the place of the first one's.
func TestShortfall18ChallengesOfOneOrderAndOfAllProxiesAreThereAtOnce(t *testing.T) {
	inBubble(t, everyHint, func(r *rig) {
		p, q := r.proxy("px-1"), r.proxy("px-2")
		require.True(t, p.sets("base"))
		require.True(t, p.sets("wildcard"))
		require.True(t, q.sets("q's"))
		r.challenges("q's", "wildcard", "base")
		q.say(releaseCertificate)
		r.challenges("wildcard", "base")
		p.say(releaseCertificate)
		r.challenges()
	})
}

// Shortfall 18: a lease of 60 s that nobody kept alive.
func TestShortfall18ALeaseInUseIsKeptAlive(t *testing.T) {
	inBubble(t, everyHint, func(r *rig) {
		p, q := r.proxy("px-1"), r.proxy("px-2")
		require.True(t, p.leases())
		pass(3 * time.Minute) // a slow authority
		require.False(t, q.leases())
		require.True(t, p.sets("p's"))
		pass(8 * time.Minute)
		require.False(t, q.leases())
		r.challenges("p's")
		p.say(releaseCertificate)
		require.True(t, q.leases())
		require.False(t, p.leases())
	})
}

func TestALeaseEndsWithItsProxysInterest(t *testing.T) {
	for name, c := range map[string]struct {
		leave func(p *peer)
		after time.Duration
		shown []string // of its values then
	}{
		"silent about it": {func(*peer) {}, 12 * time.Minute, nil},
		"gone":            {func(p *peer) { (*conn)(p).Close("") }, time.Minute + time.Second, nil},
		"gone, and had set a value: it may come back": {func(p *peer) {
			p.sets("v")
			(*conn)(p).Close("")
		}, 2*time.Minute + time.Second, []string{"v"}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, everyHint, func(r *rig) {
				p, q := r.proxy("px-1"), r.proxy("px-2")
				require.True(t, p.leases())
				c.leave(p)
				pass(c.after / 2)
				require.False(t, q.leases())
				pass(c.after / 2)
				require.True(t, q.leases())
				r.challenges(c.shown...)
			})
		})
	}
}

func TestAChallengeIsSetThoughTheStoreFailsForAWhile(t *testing.T) {
	inBubble(t, everyHint, func(r *rig) {
		p := r.proxy("px-1")
		r.store.challenges.Store(3)
		_, values := p.certificate(txt("v"))
		require.Empty(t, values)
		pass(4 * time.Second)
		_, values = p.certificate(leaseCertificate)
		require.Equal(t, []bool{true}, values)
		r.challenges("v")

		r.store.challenges.Store(100)
		_, values = p.certificate(txt("w"))
		require.Empty(t, values)
		pass(time.Minute / 2)
		_, values = p.certificate(leaseCertificate)
		require.Equal(t, []bool{false}, values, "after 30 s")
	})
}

// G16.
func TestAChallengeThatIsNoneIsRefused(t *testing.T) {
	inBubble(t, everyHint, func(r *rig) {
		p := r.proxy("px-1")
		_, values := p.certificate(txt(strings.Repeat("a", 256)))
		require.Empty(t, values)
		_, values = p.certificate(txt(""))
		require.Empty(t, values)
		r.challenges()
		require.True(t, p.sets("v"), "the session goes on")
	})
}

func TestAProxyThatSetsTooManyIsRefused(t *testing.T) {
	inBubble(t, everyHint, func(r *rig) {
		p, q := r.proxy("px-1"), r.proxy("px-2")
		refused := 0
		for range 100 {
			if !p.sets("v") {
				refused++
			}
		}
		require.Equal(t, 70, refused)
		require.True(t, q.sets("w"), "others have an allowance of their own")
		pass(2 * time.Second)
		require.True(t, p.sets("v"))
		require.False(t, p.sets("v"))
	})
}
