// Package drone is the role that runs backends on one machine: it does what
// controllers ask, keeps the leases of its backends, and ends what has to end.
//
// Each backend has a keeper, one task that owns everything about it and is told
// of what happens by mail. The keeper decides with the pure rules of lifecycle,
// writes the journal, and carries out one step at a time outside (pull, start,
// probe, stop, kill, remove), each in a task of its own, so that a slow engine
// never keeps it from minding deadlines. Beside the keepers there are a session
// with some controller, a watch on the engine, and measurements.
//
// It promises: what it tells anybody is in the journal before; no container is
// started without a guarded lease that is not yet due for renewal; a backend
// past its hard deadline is killed until the engine obeys; an action that comes
// twice has one effect; a port is given back only when a controller has recorded
// the end of its backend.
//
// The process may stop at any point. What runs goes on running, and the next
// Run takes it up from the journal and the engine. When the journal fails,
// nothing new is started and nothing is acknowledged, but deadlines are held.
// When the engine fails, steps are repeated until it works. While it has not
// answered since the start, the session is open (leases are renewed, events are
// sent, actions are taken over), but no heartbeat is sent, so that nothing new
// is placed here. When no controller answers, leases run out and backends end.
package drone

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"plane/system/backend"
	"plane/system/lease"
	"plane/system/lifecycle"
	"plane/system/port"
	"plane/system/queue"
	"plane/system/roster"
	"plane/system/session"
)

// World is what a drone works with.
type World struct {
	Clock   port.Clock
	Tasks   port.Tasks
	Rand    port.Rand
	Dialer  port.Dialer
	Runtime port.ContainerRuntime
	Prober  port.Prober
	Ports   port.Ports
	Journal port.Journal
	Guard   port.Guard
	Boot    port.Boot
}

// Drone runs backends. Make it with New, then Run it once.
type Drone struct {
	World
	cfg    Config
	limits lifecycle.Limits
	slots  lease.Slots // to ask for renewals in
	log    *slog.Logger

	keepers roster.Roster[*keeper]
	group   port.Group
	out     atomic.Pointer[session.Outbox] // of the open session; nil without one

	events    port.EventCount // grows with each event in the journal and each acknowledgement
	ackedIDs  queue.Queue[int64]
	surveyed  port.EventCount // grows once, when the engine has shown all its containers
	connected atomic.Bool
}

// New checks the configuration and makes a drone; it does nothing yet.
func New(cfg Config, w World) (*Drone, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Drone{
		World: w, cfg: cfg, limits: cfg.limits(), slots: lease.SlotsOf(cfg.Name, cfg.Timing.RenewSlot), log: cfg.Log.With("drone", cfg.Name),
		events: w.Tasks.EventCount(), surveyed: w.Tasks.EventCount(),
	}, nil
}

// Connected reports whether a session with a controller is open. Does not
// block.
func (d *Drone) Connected() bool { return d.connected.Load() }

// Backends returns how many backends the drone looks after, ended ones included
// until a controller has recorded their end. Does not block.
func (d *Drone) Backends() int { return d.keepers.Len() }

// Run takes up what the journal and the engine hold and works until the context
// ends, whose cause it returns. Containers go on running then.
func (d *Drone) Run(ctx context.Context) error {
	d.group = d.Tasks.Group(ctx)
	d.group.Go("drone", func(ctx context.Context) error {
		if err := d.takeUp(ctx); err != nil {
			return err
		}
		d.group.Go("watch containers", d.watchExits)
		d.group.Go("list containers", d.relist)
		d.group.Go("stats", d.measure)
		if d.cfg.Timing.Prune > 0 {
			d.group.Go("prune", d.prune)
		}
		session.Keep(ctx, d.cfg.Reconnect, d.Clock, d.Tasks, d.Rand, d.Dialer, d.log, d.serve)
		return context.Cause(ctx)
	})
	return d.group.Wait()
}

// takeUp makes a keeper for each backend in the journal. Nothing is told or
// asked before all of them are there, so that no action meets a backend that is
// known but not yet remembered.
func (d *Drone) takeUp(ctx context.Context) error {
	for {
		err := d.readJournal(ctx)
		if err == nil {
			return nil
		}
		d.log.Error("cannot read the journal; nothing is done before it can be read", "error", err)
		if err := d.Clock.Sleep(ctx, d.jittered(time.Second)); err != nil {
			return err
		}
	}
}

func (d *Drone) readJournal(ctx context.Context) error {
	ctx, cancel := port.WithTimeout(ctx, d.Clock, d.cfg.Timing.EngineCall)
	defer cancel()
	records, err := d.Journal.Records(ctx)
	if err != nil {
		return err
	}
	events, err := d.Journal.Events(ctx)
	if err != nil {
		return err
	}
	ends := map[string]int64{}
	for _, e := range events {
		if e.State.Status == backend.Terminated {
			ends[e.BackendID] = e.ID
		}
	}
	for _, rec := range records {
		d.employ(d.adopted(rec, ends[rec.BackendID]))
	}
	d.log.Info("took up the backends of the journal", "backends", len(records), "events", len(events))
	return nil
}

// employ lets a keeper work, unless there is one for the backend already, which
// it returns then.
func (d *Drone) employ(k *keeper) (present *keeper, added bool) {
	present, added = d.keepers.Add(k.id, k)
	if added {
		d.group.Go("keep "+k.id, k.run)
	}
	return present, added
}

// jittered is a duration of a quarter more or less, so that repetitions spread.
func (d *Drone) jittered(t time.Duration) time.Duration {
	return time.Duration(float64(t) * (0.75 + d.Rand.Float64()/2))
}

// send puts a message into the open session; without one it is lost, and
// reports false.
func (d *Drone) send(frame []byte) bool {
	out := d.out.Load()
	if out == nil {
		return false
	}
	out.Put(frame)
	return true
}

func (d *Drone) prune(ctx context.Context) error {
	for {
		if err := d.Clock.Sleep(ctx, d.cfg.Timing.Prune); err != nil {
			return err
		}
		if err := d.Runtime.Prune(ctx); err != nil && ctx.Err() == nil {
			d.log.Warn("could not free disk space; will try again", "error", err, "wait", d.cfg.Timing.Prune)
		}
	}
}
