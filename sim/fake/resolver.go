package fake

import (
	"context"
	"errors"
	"time"

	"plane/sim/world"
	"plane/system/port"
)

// Resolver is how the authority asks DNS receivers what challenges are: by packets,
// one receiver after the other. A receiver that is down or cut off says nothing, and
// one that finds no controller in time that it cannot tell (SERVFAIL); after a few
// tries that is what the authority is left with.
type Resolver struct {
	env       *Env
	rnd       *world.Rand
	net       *Network
	receivers []*receiver
}

// receiver is a DNS receiver, whichever incarnation of it there is.
type receiver struct {
	node    world.Node
	machine string
	reader  port.ChallengeReader
}

const (
	// ResolverMachine is where the resolver is, as the network knows it.
	ResolverMachine = "m-resolver"

	lookUpTries = 4
	lookUpPause = 2 * time.Second // from one try to the next
)

var errNoAnswer = errors.New("no DNS receiver answers")

// NewResolver makes one that knows no receivers. Needs the lock.
func NewResolver(env *Env, net *Network) *Resolver {
	return &Resolver{env: env, rnd: env.Stream("resolver"), net: net}
}

// Serve has a node answer questions until it crashes, and its next incarnations
// after that. Needs the lock.
func (r *Resolver) Serve(node world.Node, machine string, reader port.ChallengeReader) {
	for _, known := range r.receivers {
		if known.machine == machine {
			known.node, known.reader = node, reader
			return
		}
	}
	r.receivers = append(r.receivers, &receiver{node, machine, reader})
}

// lookUp asks for a cluster's values. tell is called once, with the lock held.
func (r *Resolver) lookUp(cluster string, tell func(values []string, err error)) {
	r.try(cluster, r.rnd.IntN(len(r.receivers)), lookUpTries, tell)
}

func (r *Resolver) try(cluster string, first, left int, tell func(values []string, err error)) {
	err, over := errNoAnswer, false
	r.env.After(lookUpPause, func() {
		switch {
		case over:
			return
		case left > 1:
			r.try(cluster, first+1, left-1, tell)
		default:
			tell(nil, err)
		}
		over = true
	})
	r.ask(r.receivers[first%len(r.receivers)], cluster, func(values []string, failed error) {
		switch {
		case over:
		case failed != nil:
			err = failed
		default:
			over = true
			tell(values, nil)
		}
	})
}

// ask sends a packet to a receiver, whose answer is a packet too.
func (r *Resolver) ask(to *receiver, cluster string, answered func(values []string, err error)) {
	r.env.After(r.net.delay(), func() {
		if !to.node.Alive() || !r.net.Connected(ResolverMachine, to.machine) {
			return
		}
		node, reader := to.node, to.reader
		node.Tasks().Go("question", func(ctx context.Context) {
			values, err := reader.Challenges(ctx, cluster)
			node.Enter()
			r.env.Lock()
			defer r.env.Unlock()
			r.env.After(r.net.delay(), func() {
				if r.net.Connected(ResolverMachine, to.machine) {
					answered(values, err)
				}
			})
		})
	})
}
