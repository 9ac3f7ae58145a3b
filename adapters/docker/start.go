package docker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/container"
	dockermount "github.com/docker/docker/api/types/mount"
	"github.com/docker/go-connections/nat"

	"plane/system/mount"
	"plane/system/port"
	"plane/system/protocol"
)

// The engine's own limits, checked here so that the user hears of them before
// anything is pulled.
const (
	leastMemory  = 6 << 20
	maxProcesses = 16384
)

// Validate implements port.ContainerRuntime.
func (r *Runtime) Validate(spec port.ContainerSpec) error {
	_, _, err := r.parse(spec)
	return err
}

// parse returns the executable and the directory to mount, if any.
func (r *Runtime) parse(spec port.ContainerSpec) (protocol.DockerExecutable, string, error) {
	e, err := protocol.ParseDockerExecutable(spec.Executable)
	if err != nil {
		return e, "", bad("%w", err)
	}
	if _, err := reference.ParseNormalizedNamed(e.Image); err != nil {
		return e, "", bad("executable: image: %q is no image reference: %w", e.Image, err)
	}
	if m := e.Limits.MemoryBytes; m > 0 && m < leastMemory {
		return e, "", bad("executable: resource_limits: memory_limit_bytes: %d is below the least that works, %d", m, leastMemory)
	}
	// With these the backend would have no port of its own, or another's.
	if mode := container.NetworkMode(e.NetworkName); mode.IsHost() || mode.IsNone() || mode.IsContainer() {
		return e, "", bad("executable: network_name: %q is no network that a backend can be reached on", e.NetworkName)
	}
	if !e.Mount.On {
		return e, "", nil
	}
	var rel *string
	if e.Mount.Path != "" {
		rel = &e.Mount.Path
	}
	dir, err := mount.Path(r.cfg.MountBase, spec.Key.Name, rel)
	if err != nil {
		return e, "", bad("executable: %w", err)
	}
	return e, dir, nil
}

// Start implements port.ContainerRuntime.
func (r *Runtime) Start(ctx context.Context, spec port.ContainerSpec) (port.Container, error) {
	e, dir, err := r.parse(spec)
	if err != nil {
		return port.Container{}, err
	}
	c, err := r.prepared(ctx, spec, e, dir)
	if err != nil {
		return port.Container{}, fmt.Errorf("create container %s: %w", ContainerName(spec.BackendID), err)
	}
	if hasStarted(c) {
		return r.container(c), nil
	}
	if err := r.start(ctx, c.ID, e.NetworkName); err != nil {
		err = fmt.Errorf("start container %s: %w", ContainerName(spec.BackendID), err)
		if errors.Is(err, port.ErrPortTaken) || errors.Is(err, port.ErrBadExecutable) {
			// Refused for certain: leave nothing behind that has another port.
			err = errors.Join(err, r.remove(ctx, c.ID))
		}
		return port.Container{}, err
	}
	c, err = r.inspect(ctx, c.ID)
	if err != nil {
		return port.Container{}, err
	}
	return r.container(c), nil
}

// prepared returns the backend's container: the one that is there, unless it
// has never run and was made for another port, or a new one.
func (r *Runtime) prepared(ctx context.Context, spec port.ContainerSpec, e protocol.DockerExecutable, dir string) (container.InspectResponse, error) {
	ctx, cancel := r.call(ctx)
	defer cancel()
	for {
		c, err := r.inspect(ctx, ContainerName(spec.BackendID))
		switch {
		case err == nil && !hasStarted(c) && publishedPort(c) != uint16(spec.Port):
			if err := r.remove(ctx, c.ID); err != nil {
				return c, err
			}
		case err == nil:
			return c, nil
		case errors.Is(err, errForeign):
			return c, fmt.Errorf("a container of that name is there already and %w", err)
		case !errors.Is(err, port.ErrNoContainer):
			return c, err
		}
		err = r.create(ctx, spec, e, dir)
		if err != nil && !errdefs.IsConflict(err) {
			return c, err
		}
		// The engine reserves a name some time before it shows the container.
		if err != nil && !pause(ctx, 20*time.Millisecond) {
			return c, context.Cause(ctx)
		}
	}
}

// pause is false when the context ends first.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

func (r *Runtime) create(ctx context.Context, spec port.ContainerSpec, e protocol.DockerExecutable, dir string) error {
	if dir != "" {
		if err := makeDirectory(r.cfg.MountBase, dir); err != nil {
			return err
		}
	}
	r.noteUse(e.Image)
	ctx, cancel := r.call(ctx)
	defer cancel()
	_, err := r.engine.ContainerCreate(ctx, r.inside(spec, e), r.outside(spec, e, dir), nil, nil, ContainerName(spec.BackendID))
	switch {
	case err == nil, errdefs.IsConflict(err):
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return refusal(err, e.NetworkName)
}

func (r *Runtime) start(ctx context.Context, id, network string) error {
	ctx, cancel := r.call(ctx)
	defer cancel()
	err := r.engine.ContainerStart(ctx, id, container.StartOptions{})
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return refusal(err, network)
}

// inside is what the container's program sees.
func (r *Runtime) inside(spec port.ContainerSpec, e protocol.DockerExecutable) *container.Config {
	session := protocol.Session{
		BackendID: spec.BackendID, KeyName: spec.Key.Name, FencingToken: spec.FencingToken,
		StaticToken: spec.StaticToken, Port: protocol.ContainerPort,
	}
	return &container.Config{
		Image:        e.Image,
		Env:          session.Environ(e.Env),
		ExposedPorts: nat.PortSet{servedPort: {}},
		Labels:       map[string]string{BackendLabel: spec.BackendID, DroneLabel: r.cfg.Drone},
	}
}

// outside is what surrounds it.
func (r *Runtime) outside(spec port.ContainerSpec, e protocol.DockerExecutable, dir string) *container.HostConfig {
	processes := int64(maxProcesses)
	h := &container.HostConfig{
		PortBindings: nat.PortMap{servedPort: {{HostIP: r.bind.String(), HostPort: strconv.Itoa(spec.Port)}}},
		NetworkMode:  container.NetworkMode(e.NetworkName), // one endpoint, as old engines want it
		Runtime:      r.cfg.Runtime,
		LogConfig:    r.logConfig,
		CapDrop:      []string{"NET_RAW", "MKNOD"},
		Resources:    container.Resources{PidsLimit: &processes},
	}
	if l := e.Limits; l.CPUQuota() > 0 {
		h.CPUPeriod, h.CPUQuota = l.CPUPeriod, l.CPUQuota()
	}
	if s := e.Limits.CPUTimeLimit; s > 0 {
		h.Ulimits = []*container.Ulimit{{Name: "cpu", Soft: s, Hard: s}}
	}
	if m := e.Limits.MemoryBytes; m > 0 {
		h.Memory, h.MemorySwap = m, m
	}
	if d := e.Limits.DiskBytes; d > 0 {
		h.StorageOpt = map[string]string{"size": strconv.FormatInt(d, 10)}
	}
	if dir != "" {
		h.Mounts = []dockermount.Mount{{Type: dockermount.TypeBind, Source: dir, Target: protocol.MountTarget}}
	}
	return h
}
