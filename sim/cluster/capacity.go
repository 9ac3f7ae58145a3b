package cluster

import (
	"fmt"

	"plane/sim/world"
	"plane/system/placement"
	"plane/system/port"
	"plane/system/protocol"
)

// anyCapacity draws what a drone has: of each resource enough for a few
// backends, or no limit.
func anyCapacity(r *world.Rand) placement.Capacity {
	var has placement.Capacity
	if r.Chance(0.5) {
		has.MaxBackends = 1 + r.Int64N(6)
	}
	if r.Chance(0.6) {
		has.MilliCPUs = 500 * (1 + r.Int64N(8))
	}
	if r.Chance(0.6) {
		has.MemoryBytes = gib / 2 * (1 + r.Int64N(8))
	}
	return has
}

const gib = 1 << 30

// asks is what a key's backends ask for; nothing for some.
func asks(key int) placement.Resources {
	return placement.Resources{MilliCPUs: 500 * int64(key%4), MemoryBytes: gib / 2 * int64(key%3)}
}

// limits are the resource limits that ask for so much.
func limits(r placement.Resources) string {
	switch {
	case r.MilliCPUs > 0 && r.MemoryBytes > 0:
		return fmt.Sprintf(`{"cpu_period_percent":%d,"memory_limit_bytes":%d}`, r.MilliCPUs/10, r.MemoryBytes)
	case r.MilliCPUs > 0:
		return fmt.Sprintf(`{"cpu_period_percent":%d}`, r.MilliCPUs/10)
	case r.MemoryBytes > 0:
		return fmt.Sprintf(`{"memory_limit_bytes":%d}`, r.MemoryBytes)
	}
	return "null"
}

func asksOf(k protocol.Key) placement.Resources {
	key, ok := keyNumber(k.Name)
	if !ok {
		return placement.Resources{}
	}
	return asks(key)
}

// keyNumber is the inverse of keyName.
func keyNumber(name string) (key int, ok bool) {
	_, err := fmt.Sscanf(name, "k%d", &key)
	return key, err == nil
}

// checkPromises looks at what the store has just committed.
func (c *Cluster) checkPromises() {
	c.Book.CheckPromises(Name, c.Database.Ledger().Nodes(c.Database.Now()), asksOf)
}

// hasRoom reports whether some drone that may take backends has room for one of
// the key's.
func (c *Cluster) hasRoom(key int) bool {
	c.Lock()
	defer c.Unlock()
	for _, n := range c.Database.Ledger().Nodes(c.Database.Now()) {
		load := placement.Load{Backends: n.Backends, Has: n.Capacity, Promised: n.Promised}
		if n.Kind == port.DroneNode && !n.Draining && load.HasRoom(asks(key)) && c.isUp(n.Name) {
			return true
		}
	}
	return false
}

func (c *Cluster) isUp(drone string) bool {
	for _, p := range c.drones {
		if p.name == drone {
			return p.up()
		}
	}
	return false
}
