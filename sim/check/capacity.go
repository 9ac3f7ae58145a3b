package check

import (
	"plane/system/placement"
	"plane/system/port"
	"plane/system/protocol"
)

// CheckPromises is to be called after each commit that could place a backend or
// change what a drone has. No drone is ever promised more than it has; it may
// have come back with less than it was promised, and then is promised no more. It
// counts by itself what the live backends were asked for with, and nodes is what
// the store says.
func (b *Book) CheckPromises(cluster string, nodes []port.Node, asked func(protocol.Key) placement.Resources) {
	loads := map[string]placement.Load{}
	for _, row := range b.ledger.Backends(port.BackendQuery{Cluster: cluster, Live: true, Limit: 1_000_000}) {
		load, asks := loads[row.Drone], asked(row.Key)
		load.Backends++
		load.Promised.MilliCPUs += asks.MilliCPUs
		load.Promised.MemoryBytes += asks.MemoryBytes
		loads[row.Drone] = load
	}
	for _, n := range nodes {
		if n.Kind != port.DroneNode {
			continue
		}
		load, before := loads[n.Name], b.loads[n.Name]
		if n.Promised != load.Promised {
			b.Violate("capacity", "the store says that %s has promised %+v, its live backends asked for %+v", n.Name, n.Promised, load.Promised)
		}
		if !b.stated[n.Name][n.Capacity] {
			b.Violate("capacity", "the store says that %s has %+v, which it has never stated", n.Name, n.Capacity)
		}
		over := func(what string, is, was, has int64) {
			if has > 0 && is > has && is > was {
				b.Violate("capacity", "%s has %d %s and was promised to %d, %d more than before", n.Name, has, what, is, is-was)
			}
		}
		over("places", int64(load.Backends), int64(before.Backends), n.Capacity.MaxBackends)
		over("thousandths of a CPU", load.Promised.MilliCPUs, before.Promised.MilliCPUs, n.Capacity.MilliCPUs)
		over("bytes", load.Promised.MemoryBytes, before.Promised.MemoryBytes, n.Capacity.MemoryBytes)
	}
	b.loads = loads
}

// Stated notes that a drone starts with so much.
func (b *Book) Stated(drone string, has placement.Capacity) {
	if b.stated[drone] == nil {
		b.stated[drone] = map[placement.Capacity]bool{}
	}
	b.stated[drone][has] = true
}
