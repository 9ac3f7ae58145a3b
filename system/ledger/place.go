package ledger

import (
	"time"

	"plane/system/placement"
	"plane/system/port"
)

// place chooses a drone that has room. Those that are connected go before those
// that were heard from lately and are between two connections.
func (l *Ledger) place(now time.Time, s *port.SpawnParams, seed uint64) (*node, error) {
	drones := l.cluster(s.Cluster).droneOrder
	connected, between := make([]placement.Candidate, 0, len(drones)), []placement.Candidate(nil)
	for _, d := range drones {
		if d.pool != s.Pool || d.draining || d.localTime.IsZero() || now.Sub(d.seen) > s.Healthy {
			continue
		}
		c := placement.Candidate{Drone: int64(d.id), Load: d.load()}
		if d.connected {
			connected = append(connected, c)
		} else {
			between = append(between, c)
		}
	}
	for _, candidates := range [][]placement.Candidate{connected, between} {
		if chosen, ok := placement.Choose(candidates, s.Asks, s.BestOf, seed); ok {
			return l.nodes[chosen.Drone-1], nil
		}
	}
	return nil, port.NoDrone(s, l.refused(now, s))
}

func (n *node) load() placement.Load {
	return placement.Load{Backends: n.live.Len(), Has: n.capacity, Promised: n.promised}
}

// refused lists the drones of the cluster and pool that are there.
func (l *Ledger) refused(now time.Time, s *port.SpawnParams) []placement.Refused {
	var drones []placement.Refused
	for _, d := range l.present(now, l.cluster(s.Cluster).droneOrder) {
		if d.pool == s.Pool {
			drones = append(drones, placement.Refused{
				Name: d.name, Draining: d.draining, Unheard: d.localTime.IsZero(), Silent: now.Sub(d.seen), Load: d.load(),
			})
		}
	}
	return drones
}
