package drone

import (
	"context"
	"errors"
	"time"

	"plane/system/backend"
	"plane/system/port"
	"plane/system/protocol"
)

// watchExits tells keepers of containers that ended. What it says is a hint:
// the keeper looks for itself. After each gap all containers are listed.
func (d *Drone) watchExits(ctx context.Context) error {
	for {
		id, err := d.Runtime.Exits(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil:
			if k, ok := d.keepers.Get(id); ok {
				k.tell(k.look)
			}
			continue
		}
		d.log.Warn("the engine's events were cut", "error", err)
		if err := d.survey(ctx); err != nil {
			d.log.Warn("cannot list containers; trying again", "error", err)
		}
		if err := d.Clock.Sleep(ctx, d.jittered(time.Second)); err != nil {
			return err
		}
	}
}

// relist looks at all containers now and then, in case an exit was missed or a
// container is there that nobody knows.
func (d *Drone) relist(ctx context.Context) error {
	for {
		wait := d.cfg.Timing.Relist
		if err := d.survey(ctx); err != nil {
			d.log.Error("cannot list containers; trying again", "error", err)
			wait = d.jittered(time.Second)
		}
		if err := d.Clock.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// survey compares all containers of the engine with the keepers: a keeper whose
// backend has none, or one that ended, looks; a container without a keeper goes.
func (d *Drone) survey(ctx context.Context) error {
	listed, err := d.list(ctx)
	if err != nil {
		return err
	}
	running := make(map[string]bool, len(listed))
	g := d.Tasks.Group(ctx)
	for _, c := range listed {
		running[c.BackendID] = c.Running
		k, ok := d.keepers.Get(c.BackendID)
		if !ok {
			g.Go("discard "+c.BackendID, func(ctx context.Context) error { d.discardUnknown(ctx, c); return nil })
			continue
		}
		k.tell(k.present)
	}
	for _, k := range d.keepers.All() {
		if !running[k.id] {
			k.tell(k.look)
		}
	}
	if d.surveyed.Read() == 0 {
		d.surveyed.Advance()
	}
	return g.Wait()
}

func (d *Drone) list(ctx context.Context) ([]port.Container, error) {
	ctx, cancel := port.WithTimeout(ctx, d.Clock, d.cfg.Timing.EngineCall)
	defer cancel()
	return d.Runtime.List(ctx)
}

func (d *Drone) discardUnknown(ctx context.Context, c port.Container) {
	log := d.log.With("backend", c.BackendID)
	log.Warn("removing a container that the journal does not know", "running", c.Running)
	if err := d.discard(ctx, c.BackendID); err != nil && ctx.Err() == nil {
		log.Error("could not remove a container that the journal does not know; trying again soon", "error", err)
	}
}

// discard removes a container, killing it if need be, and ends its guarding.
func (d *Drone) discard(ctx context.Context, backendID string) error {
	ctx, cancel := port.WithTimeout(ctx, d.Clock, d.cfg.Timing.EngineCall)
	defer cancel()
	if err := d.Runtime.Remove(ctx, backendID); err != nil && !errors.Is(err, port.ErrNoContainer) {
		return err
	}
	return d.Guard.Clear(ctx, backendID)
}

// measure sends what each ready backend uses. What cannot be sent or measured
// is left out; the next message covers the time since the last.
func (d *Drone) measure(ctx context.Context) error {
	last := map[string]port.Stats{}
	for {
		if err := d.Clock.Sleep(ctx, d.cfg.Timing.Stats); err != nil {
			return err
		}
		if !d.Connected() {
			continue
		}
		current := make(map[string]port.Stats, len(last))
		for _, k := range d.keepers.All() {
			if k.status.Load() != int64(backend.Ready) {
				continue
			}
			before, measured := last[k.id]
			now, err := d.stats(ctx, k.id)
			if err != nil {
				k.log.Debug("could not measure", "error", err)
				if measured {
					current[k.id] = before
				}
				continue
			}
			current[k.id] = now
			if measured && !d.send(protocol.EncodeFromDrone(metrics(k.id, before, now))) {
				current[k.id] = before
			}
		}
		last = current
	}
}

func (d *Drone) stats(ctx context.Context, backendID string) (port.Stats, error) {
	ctx, cancel := port.WithTimeout(ctx, d.Clock, d.cfg.Timing.EngineCall/4)
	defer cancel()
	return d.Runtime.Stats(ctx, backendID)
}

func metrics(backendID string, before, now port.Stats) protocol.BackendMetrics {
	return protocol.BackendMetrics{
		BackendID: backendID,
		MemUsed:   now.MemUsed, MemTotal: now.MemTotal, MemActive: now.MemActive,
		MemInactive: now.MemInactive, MemUnevictable: now.MemUnevictable, MemLimit: now.MemLimit,
		CPUUsed: nanoseconds(now.CPU - before.CPU), SysCPU: nanoseconds(now.SystemCPU - before.SystemCPU),
	}
}

func nanoseconds(d time.Duration) uint64 { return uint64(max(d, 0)) } //nolint:gosec // not negative
