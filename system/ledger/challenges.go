package ledger

import (
	"slices"
	"time"

	"plane/system/port"
)

// certificateLease is who has a cluster to itself for an order, among those who
// ask for that.
type certificateLease struct {
	proxy port.NodeID // 0: nobody
	until time.Time
}

func (c certificateLease) heldBy(proxy port.NodeID, now time.Time) bool {
	return c.proxy == proxy && now.Before(c.until)
}

// challenge is one TXT value of a proxy.
type challenge struct {
	proxy port.NodeID
	value string
	until time.Time
}

// LeaseCertificate implements port.ChallengeStore.
func (l *Ledger) LeaseCertificate(now time.Time, clusterName string, proxy port.NodeID, term time.Duration) bool {
	c := l.cluster(clusterName)
	if now.Before(c.certificate.until) && c.certificate.proxy != proxy && !l.isGone(now, c.certificate.proxy) {
		return false
	}
	if !c.certificate.heldBy(proxy, now) {
		c.certificate = certificateLease{proxy: proxy}
	}
	c.certificate.until = later(c.certificate.until, now.Add(term))
	return true
}

// isGone reports whether a node is connected nowhere, and was not heard from lately.
func (l *Ledger) isGone(now time.Time, id port.NodeID) bool {
	n, ok := l.node(id)
	return ok && !n.connected && now.Sub(n.seen) > lately
}

// ReleaseCertificate implements port.ChallengeStore.
func (l *Ledger) ReleaseCertificate(clusterName string, proxy port.NodeID) {
	c, ok := l.clusters[clusterName]
	if !ok {
		return
	}
	if c.certificate.proxy == proxy {
		c.certificate = certificateLease{}
	}
	c.challenges = slices.DeleteFunc(c.challenges, func(ch challenge) bool { return ch.proxy == proxy })
}

// AddChallenge implements port.ChallengeStore.
func (l *Ledger) AddChallenge(now time.Time, clusterName string, proxy port.NodeID, value string, life time.Duration) {
	c := l.cluster(clusterName)
	added := challenge{proxy, value, now.Add(life)}
	c.dropExpired(now)
	c.challenges = slices.DeleteFunc(c.challenges, func(ch challenge) bool {
		again := ch.proxy == proxy && ch.value == value
		if again {
			added.until = later(added.until, ch.until)
		}
		return again
	})
	c.challenges = append(c.challenges, added)
	c.makeWay(proxy)
	if c.certificate.heldBy(proxy, now) {
		c.certificate.until = later(c.certificate.until, now.Add(life))
	}
}

// makeWay deletes a proxy's oldest value if it has too many.
func (c *cluster) makeWay(proxy port.NodeID) {
	has, oldest := 0, -1
	for i, ch := range c.challenges {
		if ch.proxy != proxy {
			continue
		}
		if has++; oldest < 0 {
			oldest = i
		}
	}
	if has > port.MaxChallenges {
		c.challenges = slices.Delete(c.challenges, oldest, oldest+1)
	}
}

func (c *cluster) dropExpired(now time.Time) {
	c.challenges = slices.DeleteFunc(c.challenges, func(ch challenge) bool { return !now.Before(ch.until) })
}

// Challenges implements port.ChallengeStore.
func (l *Ledger) Challenges(now time.Time, clusterNames []string) [][]string {
	all := make([][]string, len(clusterNames))
	for i, clusterName := range clusterNames {
		all[i] = l.challenges(now, clusterName)
	}
	return all
}

func (l *Ledger) challenges(now time.Time, clusterName string) []string {
	c, ok := l.clusters[clusterName]
	if !ok {
		return nil
	}
	c.dropExpired(now)
	var first, others []string
	for _, ch := range slices.Backward(c.challenges) {
		if c.certificate.heldBy(ch.proxy, now) {
			first = append(first, ch.value)
		} else {
			others = append(others, ch.value)
		}
	}
	return append(first, others...)
}
