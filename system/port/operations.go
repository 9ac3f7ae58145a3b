package port

import (
	"context"
	"time"

	"plane/system/backend"
	"plane/system/placement"
	"plane/system/protocol"
)

// Operations is what people who look after a cluster do with the store itself,
// whether a controller is there or not. Like those of Store its methods are
// atomic, block for about one round trip, and may be called from any number of
// tasks.
type Operations interface {
	// Nodes lists the nodes of all clusters, in order of cluster, kind and name.
	Nodes(ctx context.Context) ([]Node, error)
	// TerminationCandidates lists live backends that Sweep would end if it went
	// by p, or whose end is under way already, in order of name, at most limit.
	TerminationCandidates(ctx context.Context, p SweepParams, limit int) ([]TerminationCandidate, error)
	// PreventRenew refuses every renewal of a backend's lease from now on: its
	// drone ends it by the lease's deadlines. False when that was so already;
	// ErrNotFound when there is no such backend, or it is terminated.
	PreventRenew(ctx context.Context, backendID string) (bool, error)
	// MarkLost is PreventRenew, and has Sweep declare the backend terminated
	// (reason lost) as soon as its lease has expired, whether or not its drone
	// was heard from. Not before: until then its container may run, and its key
	// must not become free. It returns when that will be, from now, at the latest.
	// Harmless twice; ErrNotFound as above.
	MarkLost(ctx context.Context, backendID string) (expires time.Duration, err error)
}

// Node is a drone or a proxy as the store knows it; ages are on its clock.
type Node struct {
	ID         NodeID
	Kind       NodeKind
	Cluster    string
	Name       string
	Pool       string // of a drone
	Version    protocol.Version
	Controller string // where it is or was connected
	Connected  bool
	Silent     time.Duration // since its last sign of life
	// Of a drone:
	Draining bool
	Backends int // live ones
	Capacity placement.Capacity
	Promised placement.Resources // to its live backends
}

// TerminationCandidate is a backend that is to end.
type TerminationCandidate struct {
	Backend Backend
	Why     WhyEnds       // the first that holds
	Kind    backend.Kind  // the hardest termination asked for so far; empty: none
	Drone   string        // by name
	Silent  time.Duration // since its drone's last sign of life
}

// WhyEnds says in words why a backend is to end.
type WhyEnds string

// The reasons, in the order in which they are looked for. DroneLost and
// LeaseExpired hold when Sweep would act on them at once.
const (
	MarkedLost   WhyEnds = "marked as lost"
	DroneLost    WhyEnds = "its drone is lost"
	LeaseExpired WhyEnds = "its lease expired"
	FinalLease   WhyEnds = "its lease is renewed no more"
	OverLifetime WhyEnds = "past its lifetime"
	Idle         WhyEnds = "idle"
	EndAskedFor  WhyEnds = "its end was asked for"
)
