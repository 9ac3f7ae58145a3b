package docker

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	dockermount "github.com/docker/docker/api/types/mount"
	"golang.org/x/sys/unix"

	"plane/system/port"
)

// siblingLabel is on a container that StartSibling has made; it is a hash of all
// that the container was made from.
const siblingLabel = "dev.plane.sibling"

// Mounts returns where in the container the volumes and bind mounts are that
// another container could share: no tmpfs. port.ErrNoContainer when the engine
// does not know the container.
func (r *Runtime) Mounts(ctx context.Context, containerID string) ([]string, error) {
	c, err := r.look(ctx, containerID)
	if err != nil {
		return nil, err
	}
	var at []string
	for _, m := range shared(c) {
		at = append(at, m.Target)
	}
	return at, nil
}

// StartSibling makes sure that a container of this name runs cmd, a program of
// the image with its arguments, like another container in its image, mounts,
// environment, user, network and what else a program needs to reach the engine;
// it has the restart policy unless-stopped. Of several networks it is in the
// one that the other container was created with.
//
// One that is there and does not run is started; one that was made from
// something else, such as an earlier image, is ended and replaced. Harmless when
// it runs as it should. A container of that name that StartSibling has not made
// is left alone, and an error. Only one call for a name may be under way.
func (r *Runtime) StartSibling(ctx context.Context, name, like string, cmd []string) error {
	ctx, cancel := r.call(ctx) // in all
	defer cancel()
	other, err := r.look(ctx, like)
	if err != nil {
		return fmt.Errorf("look at container %s: %w", like, err)
	}
	inside, outside, err := sibling(other, cmd)
	if err != nil {
		return err
	}
	for {
		err := r.trySibling(ctx, name, inside, outside)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, errUnsettled):
			return fmt.Errorf("container %s: %w", name, err)
		case !pause(ctx, 20*time.Millisecond):
			return fmt.Errorf("container %s: %w (last: %w)", name, context.Cause(ctx), err)
		}
	}
}

// errUnsettled: the engine is about to make or to remove the container, or it
// has just been removed so that another takes its place.
var errUnsettled = errors.New("not settled yet")

func (r *Runtime) trySibling(ctx context.Context, name string, inside *container.Config, outside *container.HostConfig) error {
	id, err := r.siblingAsWanted(ctx, name, inside.Labels[siblingLabel])
	if err == nil {
		if err := r.startSibling(ctx, id); err == nil || ctx.Err() != nil {
			return err
		}
		// It may be paused, or want a network that was replaced: a new one works.
		return errors.Join(errUnsettled, r.remove(ctx, id))
	}
	if !errors.Is(err, port.ErrNoContainer) {
		return err
	}
	id, err = r.createSibling(ctx, name, inside, outside)
	switch {
	case errdefs.IsConflict(err): // the engine reserves a name some time before it shows the container
		return errors.Join(errUnsettled, err)
	case err != nil:
		return err
	}
	if err := r.startSibling(ctx, id); err != nil {
		return errors.Join(err, r.remove(ctx, id))
	}
	return nil
}

// siblingAsWanted returns the id of the container that is there, if it was made
// from the same; another one is removed.
func (r *Runtime) siblingAsWanted(ctx context.Context, name, content string) (id string, err error) {
	c, err := r.look(ctx, name)
	if err != nil {
		return "", err
	}
	switch c.Config.Labels[siblingLabel] {
	case content:
		return c.ID, nil
	case "":
		return "", errors.New("a container of that name is there already, and is none of Plane's: remove it")
	}
	if err := r.remove(ctx, c.ID); err != nil {
		return "", err
	}
	return "", port.ErrNoContainer
}

func (r *Runtime) createSibling(ctx context.Context, name string, inside *container.Config, outside *container.HostConfig) (id string, err error) {
	ctx, cancel := r.call(ctx)
	defer cancel()
	made, err := r.engine.ContainerCreate(ctx, inside, outside, nil, nil, name)
	return made.ID, cause(ctx, err)
}

func (r *Runtime) startSibling(ctx context.Context, id string) error {
	ctx, cancel := r.call(ctx)
	defer cancel()
	return cause(ctx, r.engine.ContainerStart(ctx, id, container.StartOptions{}))
}

// sibling is what a container is made from that is like another one. Labels are
// not taken over: they would make whatever looks after the other container, such
// as compose, look after this one.
func sibling(like container.InspectResponse, cmd []string) (*container.Config, *container.HostConfig, error) {
	inside := &container.Config{
		Image:      like.Image,
		Entrypoint: cmd[:1],
		Cmd:        cmd[1:],
		Env:        like.Config.Env,
		User:       like.Config.User,
		WorkingDir: like.Config.WorkingDir,
	}
	h := like.HostConfig
	outside := &container.HostConfig{
		Mounts:        shared(like),
		NetworkMode:   h.NetworkMode,
		DNS:           h.DNS,
		ExtraHosts:    h.ExtraHosts,
		GroupAdd:      h.GroupAdd, // such as that which may use the engine's socket
		UsernsMode:    h.UsernsMode,
		SecurityOpt:   h.SecurityOpt,
		Privileged:    h.Privileged,
		Runtime:       h.Runtime,
		LogConfig:     h.LogConfig,
		RestartPolicy: container.RestartPolicy{Name: container.RestartPolicyUnlessStopped},
	}
	content, err := json.Marshal([]any{inside, outside})
	if err != nil {
		return nil, nil, err
	}
	hash := sha256.Sum256(content)
	inside.Labels = map[string]string{siblingLabel: hex.EncodeToString(hash[:])}
	return inside, outside, nil
}

// shared returns a container's volumes and bind mounts, as another container
// would have them. The engine's own volumes-from would bind the two together for
// longer, and does not tell when they have come to differ.
func shared(c container.InspectResponse) []dockermount.Mount {
	var mounts []dockermount.Mount
	for _, m := range c.Mounts {
		same := dockermount.Mount{Type: m.Type, Target: m.Destination, ReadOnly: !m.RW}
		switch m.Type {
		case dockermount.TypeBind:
			same.Source = m.Source
			if m.Propagation != "" {
				same.BindOptions = &dockermount.BindOptions{Propagation: m.Propagation}
			}
		case dockermount.TypeVolume:
			same.Source = m.Name
			same.VolumeOptions = &dockermount.VolumeOptions{NoCopy: true}
		default:
			continue
		}
		mounts = append(mounts, same)
	}
	// The engine has no order of its own.
	slices.SortFunc(mounts, func(a, b dockermount.Mount) int { return cmp.Compare(a.Target, b.Target) })
	return mounts
}

// Socket is the path of the Unix socket by which the engine is reached; empty
// when it is reached in another way.
func (r *Runtime) Socket() string {
	path, isUnix := strings.CutPrefix(r.engine.DaemonHost(), "unix://")
	if !isUnix {
		return ""
	}
	return path
}

// Beside reports whether the engine runs on the machine that this process sees:
// not outside of its container, and not elsewhere.
func (r *Runtime) Beside(ctx context.Context) (bool, error) {
	path := r.Socket()
	if path == "" {
		return false, nil
	}
	pid, err := listener(ctx, path)
	if err != nil {
		return false, fmt.Errorf("find out where the engine at %s runs: %w", path, err)
	}
	return pid != 0, nil // what is outside of our process namespace has no number in it
}

// listener returns the process that listens on a Unix socket.
func listener(ctx context.Context, path string) (pid int32, err error) {
	c, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", path)
	if err != nil {
		return 0, err
	}
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, errors.Join(err, c.Close())
	}
	var peer *unix.Ucred
	var asked error
	err = raw.Control(func(fd uintptr) { peer, asked = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, asked, c.Close()); err != nil {
		return 0, err
	}
	return peer.Pid, nil
}
