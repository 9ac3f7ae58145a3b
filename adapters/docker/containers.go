package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/go-connections/nat"

	"plane/system/port"
	"plane/system/protocol"
)

// ContainerName is what a backend's container is called.
func ContainerName(backendID string) string { return "plane-" + backendID }

var servedPort = nat.Port(strconv.Itoa(protocol.ContainerPort) + "/tcp")

// errForeign: the container has the right name but is another drone's.
var errForeign = errors.New("belongs to another drone")

// inspect returns the engine's view of a backend's container; ErrNoContainer
// when there is none, errForeign when it is not this drone's.
func (r *Runtime) inspect(ctx context.Context, nameOrID string) (container.InspectResponse, error) {
	c, err := r.look(ctx, nameOrID)
	switch {
	case err != nil:
		return c, err
	case c.Config.Labels[DroneLabel] != r.cfg.Drone || c.Config.Labels[BackendLabel] == "":
		return c, errForeign
	}
	return c, nil
}

// look is the engine's view of any container, whoever's it is; ErrNoContainer when
// there is none.
func (r *Runtime) look(ctx context.Context, nameOrID string) (container.InspectResponse, error) {
	ctx, cancel := r.call(ctx)
	defer cancel()
	c, err := r.engine.ContainerInspect(ctx, nameOrID)
	switch {
	case errdefs.IsNotFound(err):
		return c, port.ErrNoContainer
	case err != nil:
		return c, fmt.Errorf("inspect container %s: %w", nameOrID, cause(ctx, err))
	case c.ContainerJSONBase == nil || c.State == nil || c.HostConfig == nil || c.Config == nil:
		return c, fmt.Errorf("inspect container %s: the engine's answer is not whole", nameOrID)
	}
	return c, nil
}

// own is inspect where another drone's container counts as none.
func (r *Runtime) own(ctx context.Context, backendID string) (container.InspectResponse, error) {
	c, err := r.inspect(ctx, ContainerName(backendID))
	if errors.Is(err, errForeign) {
		return c, port.ErrNoContainer
	}
	return c, err
}

// Inspect implements port.ContainerRuntime.
func (r *Runtime) Inspect(ctx context.Context, backendID string) (port.Container, error) {
	c, err := r.own(ctx, backendID)
	if err != nil {
		return port.Container{}, err
	}
	return r.container(c), nil
}

// List implements port.ContainerRuntime.
func (r *Runtime) List(ctx context.Context) ([]port.Container, error) {
	summaries, err := r.summaries(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]port.Container, 0, len(summaries))
	for _, s := range summaries {
		c, err := r.inspect(ctx, s.ID)
		if errors.Is(err, port.ErrNoContainer) || errors.Is(err, errForeign) {
			continue // removed since
		}
		if err != nil {
			return nil, err
		}
		list = append(list, r.container(c))
	}
	slices.SortFunc(list, func(a, b port.Container) int { return cmp.Compare(a.BackendID, b.BackendID) })
	return list, nil
}

func (r *Runtime) summaries(ctx context.Context) ([]container.Summary, error) {
	ctx, cancel := r.call(ctx)
	defer cancel()
	summaries, err := r.engine.ContainerList(ctx, container.ListOptions{
		All: true, Filters: filters.NewArgs(filters.Arg("label", DroneLabel+"="+r.cfg.Drone)),
	})
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", cause(ctx, err))
	}
	return summaries, nil
}

// container translates the engine's view.
func (r *Runtime) container(c container.InspectResponse) port.Container {
	out := port.Container{
		BackendID: c.Config.Labels[BackendLabel],
		ID:        c.ID,
		Running:   c.State.Running,
		Started:   hasStarted(c),
	}
	if p := publishedPort(c); p != 0 {
		out.Address = netip.AddrPortFrom(r.cfg.IP, p).String()
	}
	if out.Started && !out.Running {
		code := c.State.ExitCode
		// The engine also notes when some other process of the container ran
		// out of memory; only if the container failed did that end it.
		out.ExitCode, out.OOM = &code, c.State.OOMKilled && code != 0
	}
	return out
}

func hasStarted(c container.InspectResponse) bool {
	started, err := time.Parse(time.RFC3339Nano, c.State.StartedAt)
	return c.State.Running || err == nil && !started.IsZero()
}

// publishedPort is the host port that the container was created with. It is
// fixed, so it is known also while the container does not run.
func publishedPort(c container.InspectResponse) uint16 {
	for _, binding := range c.HostConfig.PortBindings[servedPort] {
		if p, err := strconv.ParseUint(binding.HostPort, 10, 16); err == nil {
			return uint16(p)
		}
	}
	return 0
}

// Stop implements port.ContainerRuntime.
func (r *Runtime) Stop(ctx context.Context, backendID string) error {
	c, err := r.own(ctx, backendID)
	if err != nil {
		return err
	}
	return r.signal(ctx, c, "SIGTERM")
}

// Kill implements port.ContainerRuntime.
func (r *Runtime) Kill(ctx context.Context, backendID string) error {
	c, err := r.own(ctx, backendID)
	if err != nil {
		return err
	}
	if err := r.signal(ctx, c, "SIGKILL"); err != nil {
		return err
	}
	err = r.wait(ctx, c.ID, container.WaitConditionNotRunning)
	if errors.Is(err, port.ErrNoContainer) {
		return nil // removed as soon as it had ended
	}
	return err
}

// signal sends a signal to a container's first process; nothing happens when it
// does not run.
func (r *Runtime) signal(ctx context.Context, c container.InspectResponse, signal string) error {
	if !c.State.Running {
		return nil
	}
	ctx, cancel := r.call(ctx)
	defer cancel()
	switch err := r.engine.ContainerKill(ctx, c.ID, signal); {
	case err == nil, errdefs.IsConflict(err): // it has ended since
		return nil
	case errdefs.IsNotFound(err):
		return port.ErrNoContainer
	default:
		return fmt.Errorf("send %s to container %s: %w", signal, c.Name, cause(ctx, err))
	}
}

// wait blocks until the container is in the condition.
func (r *Runtime) wait(ctx context.Context, id string, condition container.WaitCondition) error {
	ctx, cancel := r.call(ctx)
	defer cancel()
	done, failed := r.engine.ContainerWait(ctx, id, condition)
	select {
	case result := <-done:
		if result.Error != nil {
			return fmt.Errorf("wait for container %s: %s", id, result.Error.Message)
		}
		return nil
	case err := <-failed:
		if errdefs.IsNotFound(err) {
			return port.ErrNoContainer
		}
		return fmt.Errorf("wait for container %s: %w", id, cause(ctx, err))
	}
}

// Remove implements port.ContainerRuntime.
func (r *Runtime) Remove(ctx context.Context, backendID string) error {
	c, err := r.own(ctx, backendID)
	if errors.Is(err, port.ErrNoContainer) {
		return nil
	}
	if err != nil {
		return err
	}
	return r.remove(ctx, c.ID)
}

func (r *Runtime) remove(ctx context.Context, id string) error {
	err := r.removeNow(ctx, id)
	if errdefs.IsConflict(err) { // another call removes it at this moment
		err = r.wait(ctx, id, container.WaitConditionRemoved)
	}
	if err == nil || errdefs.IsNotFound(err) || errors.Is(err, port.ErrNoContainer) {
		return nil
	}
	return fmt.Errorf("remove container %s: %w", id, err)
}

func (r *Runtime) removeNow(ctx context.Context, id string) error {
	ctx, cancel := r.call(ctx)
	defer cancel()
	err := r.engine.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
	return cause(ctx, err)
}
