package port

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"plane/system/backend"
	"plane/system/protocol"
)

// Sentinels of ContainerRuntime. Every other error is unclear: the engine may
// have done what was asked.
var (
	// ErrNoContainer: there is no such container (any more).
	ErrNoContainer = errors.New("no such container")
	// ErrBadExecutable: the request can never work as it is (malformed, a mount
	// without a mount base, a limit that the engine refuses). The text is for
	// the user and holds no secrets.
	ErrBadExecutable = errors.New("bad executable")
	// ErrPortTaken: another program has the port; try with another.
	ErrPortTaken = errors.New("port is taken")
)

// ContainerRuntime runs backends on one machine. A container belongs to one
// backend and is named after it; only containers of this drone are ever seen or
// touched. Containers outlive the process that started them. Methods block, may
// be called from any number of tasks, and obey their context.
type ContainerRuntime interface {
	// Validate refuses, with ErrBadExecutable, what could never be started.
	// It does not ask the engine.
	Validate(spec ContainerSpec) error
	// Pull makes the image ready, according to the pull policy in the
	// executable. Progress is called now and then, from this task. Harmless
	// twice.
	Pull(ctx context.Context, spec ContainerSpec, progress func(string)) error
	// Start creates and starts the container and returns where it serves. A
	// container of the backend that runs already is returned as it is, so
	// calling twice is harmless; one that is created but has not run is started;
	// one that has exited stays as it is and is returned so.
	Start(ctx context.Context, spec ContainerSpec) (Container, error)
	// Stop asks the container to end (SIGTERM). It does not wait for the end
	// and never kills. ErrNoContainer when it is gone; harmless twice.
	Stop(ctx context.Context, backendID string) error
	// Kill ends the container at once (SIGKILL); blocks until the engine says
	// that it has ended. ErrNoContainer when it is gone; harmless twice.
	Kill(ctx context.Context, backendID string) error
	// Remove forgets an ended container and what the engine kept for it, and
	// kills one that runs. Nil when it is gone already.
	Remove(ctx context.Context, backendID string) error
	// Inspect returns the container, or ErrNoContainer.
	Inspect(ctx context.Context, backendID string) (Container, error)
	// List returns all containers of this drone, ended ones included, in order
	// of backend.
	List(ctx context.Context) ([]Container, error)
	// Exits blocks for the next container of this drone that ends; it may miss
	// or double some. An error means that the stream was cut: List, then call
	// again. One task at a time.
	Exits(ctx context.Context) (backendID string, err error)
	// Stats measures a running container; ErrNoContainer when it does not run.
	Stats(ctx context.Context, backendID string) (Stats, error)
	// Prune frees disk space: images that no container uses, per configuration.
	Prune(ctx context.Context) error
}

// ContainerSpec is what a container is made from.
type ContainerSpec struct {
	BackendID    string
	Executable   json.RawMessage
	Key          protocol.Key
	FencingToken int64
	StaticToken  string // empty: none
	Port         int    // on the drone's address, chosen by the drone
	// Deadlines are those of the lease at the time of Start, on the drone's
	// clock, for runtimes that tell them on; they are later renewed.
	Deadlines protocol.Deadlines `json:"-"`
}

// Container is what the engine knows.
type Container struct {
	BackendID string
	ID        string // the engine's own name for it
	Address   string // ip:port where it serves, as proxies reach it
	Running   bool
	Started   bool // it has run, now or before
	ExitCode  *int // once it has ended, when it is known
	OOM       bool // it ended because it was out of memory
}

// Stats is what a container uses now. CPU times are totals since it started.
type Stats struct {
	MemUsed, MemTotal, MemActive, MemInactive, MemUnevictable, MemLimit uint64        // bytes
	CPU                                                                 time.Duration // of the container
	SystemCPU                                                           time.Duration // of the machine
}

// Prober asks whether a backend serves.
type Prober interface {
	// Probe sends HEAD / and returns nil when any HTTP response comes back.
	// Blocks for a few seconds at most. Harmless twice.
	Probe(ctx context.Context, address string) error
}

// Ports gives out host ports. No port is given to a second backend before the
// first has released it and its quarantine is over, on this machine, whatever
// drones run there and however often they restart.
type Ports interface {
	// Acquire returns the backend's port; the one it has when it has one.
	Acquire(ctx context.Context, backendID string) (int, error)
	// Replace puts the backend's port, which another program has, aside for a
	// while and acquires another.
	Replace(ctx context.Context, backendID string) (int, error)
	// Release starts the quarantine of the backend's port: to be called once no
	// route can be handed out any more. Harmless twice.
	Release(ctx context.Context, backendID string, quarantine time.Duration) error
}

// Journal is a drone's memory on disk. What a method wrote is durable when it
// returns nil; when it returns an error it may be there or not. Methods are
// atomic, block for a disk write, and may be called from any number of tasks.
type Journal interface {
	// Put writes a backend's record whole and, when event is not nil, appends a
	// state change to the queue in the same transaction; returns the event's id
	// (0 without one). Ids grow for as long as the journal lives.
	Put(ctx context.Context, rec Record, event *Event) (eventID int64, err error)
	// Records returns all records, in order of backend.
	Records(ctx context.Context) ([]Record, error)
	// Events returns the unacknowledged events in order of id.
	Events(ctx context.Context) ([]Event, error)
	// Ack deletes an event; harmless twice. It deletes the record too, once the
	// backend is terminated and no event of it is left, and reports whether it
	// did, with the backend's name.
	Ack(ctx context.Context, eventID int64) (backendID string, forgotten bool, err error)
}

// Record is all that a drone must know of a backend to go on with it after a
// restart.
type Record struct {
	BackendID string
	Spec      ContainerSpec // without registry credentials once pulled
	State     backend.State
	Deadlines protocol.Deadlines
	Port      int
	Boot      string    // the machine's boot in which this was written
	StopBy    time.Time // when a soft termination turns hard; zero: none
	ReadyBy   time.Time // when it must have answered HTTP
}

// Event is a state change that a controller has not acknowledged.
type Event struct {
	ID        int64
	BackendID string
	State     backend.State
	Time      time.Time // the drone's clock
}

// Guard makes the lease hold while the agent is dead: what it is told to guard
// is killed through the engine at its deadline by something that outlives the
// agent.
type Guard interface {
	// Set guards the backend until deadline, on the drone's clock; a later call
	// replaces the deadline. It is durable, and the guard is known to be alive,
	// when nil is returned: nothing may be started, and no deadline relied on,
	// before that. Harmless twice.
	Set(ctx context.Context, backendID string, deadline time.Time) error
	// Clear ends the guarding of a backend whose container is gone. Harmless
	// twice.
	Clear(ctx context.Context, backendID string) error
}

// Boot tells which boot of the machine this is.
type Boot interface {
	// BootID is another text after each boot of the machine. Does not block.
	BootID() string
}
