package fake

import (
	"context"
	"fmt"
	"time"

	"plane/sim/world"
	"plane/system/port"
)

// Prober asks a machine's containers, from the machine itself, whether they
// serve.
func (m *Machine) Prober(node world.Node) port.Prober { return prober{m, node} }

type prober struct {
	m    *Machine
	node world.Node
}

// Probe implements port.Prober.
func (p prober) Probe(ctx context.Context, address string) error {
	p.m.env.Lock()
	d := p.m.rnd.Soon(200*time.Microsecond, 50*time.Millisecond)
	p.m.env.Unlock()
	serves, err := ask(ctx, p.m.env, p.node, d, time.Millisecond, func() (bool, error) {
		for _, c := range p.m.Running() {
			if c.Address == address {
				return p.m.up && c.Serving(p.m.env.Now()), nil
			}
		}
		return false, nil
	})
	if err != nil {
		return err
	}
	if !serves {
		return fmt.Errorf("probe %s: no HTTP response", address)
	}
	return nil
}
