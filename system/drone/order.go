package drone

import (
	"context"
	"errors"

	"plane/system/lifecycle"
	"plane/system/port"
)

// errNotRunning and errStillRuns: the engine says that it has done what it was
// asked, and shows that it has not.
var (
	errNotRunning = errors.New("the engine has started the container, but it does not run")
	errStillRuns  = errors.New("the engine has killed the container, but it still runs")
)

// order is one step with all that is needed to carry it out away from its
// keeper.
type order struct {
	d        *Drone
	id       string
	spec     port.ContainerSpec
	address  string
	endEvent int64
}

func (o order) carryOut(ctx context.Context, step lifecycle.Step) outcome {
	switch step {
	case lifecycle.Inspect:
		return o.inspect(ctx)
	case lifecycle.Pull:
		return o.pull(ctx)
	case lifecycle.NewPort:
		return o.newPort(ctx)
	case lifecycle.Start:
		return o.start(ctx)
	case lifecycle.Probe:
		return outcome{err: o.d.Prober.Probe(ctx, o.address)}
	case lifecycle.Stop:
		return o.stop(ctx)
	case lifecycle.Kill:
		return o.kill(ctx)
	case lifecycle.Discard:
		return outcome{err: o.d.discard(ctx, o.id)}
	case lifecycle.Release:
		return outcome{err: o.d.Ports.Release(ctx, o.id, o.d.cfg.Timing.Quarantine)}
	case lifecycle.Forget:
		_, forgotten, err := o.d.Journal.Ack(ctx, o.endEvent)
		return outcome{err: err, forgotten: forgotten}
	}
	panic("drone: no such step: " + step.String())
}

func (o order) inspect(ctx context.Context) outcome {
	c, err := o.d.Runtime.Inspect(ctx, o.id)
	if errors.Is(err, port.ErrNoContainer) {
		return outcome{sight: lifecycle.Sight{Presence: lifecycle.Absent}}
	}
	return outcome{err: err, sight: sight(c)}
}

func (o order) pull(ctx context.Context) outcome {
	log := o.d.log.With("backend", o.id)
	progress := func(what string) { log.Debug("pulling the image", "progress", what) }
	if err := o.d.Runtime.Pull(ctx, o.spec, progress); err != nil {
		return outcome{err: err}
	}
	p, err := o.d.Ports.Acquire(ctx, o.id)
	return outcome{err: err, port: p}
}

// newPort removes what was created with the old port before it asks for another.
// A container that runs is left alone, and seen: an earlier start, over which an
// agent died, has taken effect after all.
func (o order) newPort(ctx context.Context) outcome {
	c, err := o.d.Runtime.Inspect(ctx, o.id)
	switch {
	case errors.Is(err, port.ErrNoContainer):
	case err != nil:
		return outcome{err: err}
	case c.Running:
		return outcome{sight: sight(c)}
	default:
		if err := o.d.Runtime.Remove(ctx, o.id); err != nil && !errors.Is(err, port.ErrNoContainer) {
			return outcome{err: err}
		}
	}
	p, err := o.d.Ports.Replace(ctx, o.id)
	return outcome{err: err, port: p}
}

func (o order) start(ctx context.Context) outcome {
	c, err := o.d.Runtime.Start(ctx, o.spec)
	if err != nil {
		return outcome{err: err}
	}
	seen := sight(c)
	if seen.Presence == lifecycle.Created {
		return outcome{err: errNotRunning}
	}
	return outcome{sight: seen}
}

func (o order) stop(ctx context.Context) outcome {
	err := o.d.Runtime.Stop(ctx, o.id)
	if errors.Is(err, port.ErrNoContainer) {
		err = nil // the next look shows how it ended
	}
	return outcome{err: err}
}

func (o order) kill(ctx context.Context) outcome {
	if err := o.d.Runtime.Kill(ctx, o.id); err != nil && !errors.Is(err, port.ErrNoContainer) {
		return outcome{err: err}
	}
	seen := o.inspect(ctx)
	if seen.err == nil && seen.sight.Presence == lifecycle.Running {
		seen.err = errStillRuns
	}
	return seen
}

func sight(c port.Container) lifecycle.Sight {
	s := lifecycle.Sight{Address: c.Address, ExitCode: c.ExitCode, OOM: c.OOM}
	switch {
	case c.Running:
		s.Presence = lifecycle.Running
	case c.Started:
		s.Presence = lifecycle.Ended
	default:
		s.Presence = lifecycle.Created
	}
	return s
}
