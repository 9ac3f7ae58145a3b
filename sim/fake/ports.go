package fake

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"plane/sim/world"
	"plane/system/port"
)

// portTable is the machine's durable table of host ports. There are few, and
// one that has just come out of quarantine is the first to be given out again.
type portTable struct {
	of    map[string]int    // backend to port
	until map[int]time.Time // end of quarantine, on the machine's clock
}

const (
	firstPort = 30000
	portCount = 64
)

func newPortTable() *portTable {
	return &portTable{of: map[string]int{}, until: map[int]time.Time{}}
}

// Ports gives a node the machine's table of ports.
// Drones of one machine share it.
func (m *Machine) Ports(node world.Node, drone string) port.Ports { return ports{m, node, drone} }

type ports struct {
	m     *Machine
	node  world.Node
	drone string
}

// owner tells backends of the same name on two drones apart.
func (p ports) owner(backendID string) string { return p.drone + " " + backendID }

// Acquire implements port.Ports.
func (p ports) Acquire(ctx context.Context, backendID string) (int, error) {
	owner := p.owner(backendID)
	return p.do(ctx, func(t *portTable, now time.Time) (int, error) {
		if n, ok := t.of[owner]; ok {
			return n, nil
		}
		return t.give(owner, now)
	})
}

// Replace implements port.Ports.
func (p ports) Replace(ctx context.Context, backendID string) (int, error) {
	owner := p.owner(backendID)
	return p.do(ctx, func(t *portTable, now time.Time) (int, error) {
		if n, ok := t.of[owner]; ok {
			t.until[n] = now.Add(10 * time.Minute)
			delete(t.of, owner)
		}
		return t.give(owner, now)
	})
}

// Release implements port.Ports.
func (p ports) Release(ctx context.Context, backendID string, quarantine time.Duration) error {
	owner := p.owner(backendID)
	_, err := p.do(ctx, func(t *portTable, now time.Time) (int, error) {
		if n, ok := t.of[owner]; ok {
			t.until[n] = now.Add(quarantine)
			delete(t.of, owner)
		}
		return 0, nil
	})
	return err
}

// give prefers the port whose quarantine ended last.
func (t *portTable) give(owner string, now time.Time) (int, error) {
	taken := map[int]bool{}
	for _, id := range slices.Sorted(maps.Keys(t.of)) {
		taken[t.of[id]] = true
	}
	best := 0
	for n := firstPort; n < firstPort+portCount; n++ {
		if taken[n] || t.until[n].After(now) {
			continue
		}
		if best == 0 || t.until[n].After(t.until[best]) {
			best = n
		}
	}
	if best == 0 {
		return 0, fmt.Errorf("no port is free for %s", owner)
	}
	t.of[owner] = best
	return best, nil
}

func (p ports) do(ctx context.Context, change func(t *portTable, now time.Time) (int, error)) (int, error) {
	j := journal{p.m, p.node}
	var n int
	var refused error
	err := j.write(ctx, "ports", func(*disk) {
		n, refused = change(p.m.ports, p.m.Clock.Local(p.m.env.Now()))
	})
	if err != nil {
		return 0, err
	}
	return n, refused
}
