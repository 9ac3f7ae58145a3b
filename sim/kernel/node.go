package kernel

import (
	"context"
	"slices"

	"plane/sim/world"
)

// Node is one incarnation of a process. It implements world.Node, and
// port.Rand.
type Node struct {
	*world.Rand
	k           *Kernel
	name        string
	incarnation int
	clockwork   world.Clockwork
	scope       *scope
	tasks       []*task
	crashed     bool
}

// Start implements world.World.
func (k *Kernel) Start(name string, incarnation int, c world.Clockwork) world.Node {
	n := &Node{k: k, name: name, incarnation: incarnation, clockwork: c, Rand: k.Stream("node " + name)}
	n.scope = k.under(k.root)
	k.nodes = append(k.nodes, n)
	return n
}

// Name implements world.Node.
func (n *Node) Name() string { return n.name }

// Incarnation implements world.Node.
func (n *Node) Incarnation() int { return n.incarnation }

// Enter implements world.Node.
func (n *Node) Enter() {
	n.k.enter()
	if n.crashed && n.k.current != nil {
		panic(crashed{})
	}
}

// Alive implements world.Node.
func (n *Node) Alive() bool { return !n.crashed }

// Crash implements world.Node. The tasks unwind before anything else happens.
func (n *Node) Crash() {
	if !n.crashed {
		n.crashed = true
		n.k.dying = append(n.k.dying, n)
		n.k.nodes = slices.DeleteFunc(n.k.nodes, func(other *Node) bool { return other == n })
	}
}

func (n *Node) forget(t *task) {
	last := len(n.tasks) - 1
	n.tasks[t.slot] = n.tasks[last]
	n.tasks[t.slot].slot = t.slot
	n.tasks[last] = nil
	n.tasks = n.tasks[:last]
}

// unwind ends the tasks of crashed nodes.
func (k *Kernel) unwind() {
	for len(k.dying) > 0 {
		n := k.dying[0]
		k.dying = k.dying[1:]
		for len(n.tasks) > 0 {
			t := n.tasks[len(n.tasks)-1]
			if t.worker == nil { // it has not begun
				t.ended = true
				k.live--
				n.forget(t)
				continue
			}
			if t.wait != nil {
				t.wait.woken = true
			}
			k.step(t)
		}
		n.scope.end(context.Canceled)
	}
}
