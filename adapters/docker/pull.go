package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/registry"
	"github.com/docker/go-units"

	"plane/system/port"
	"plane/system/protocol"
)

// progressEvery bounds how often Pull tells how far it is.
const progressEvery = time.Second

// Pull implements port.ContainerRuntime.
func (r *Runtime) Pull(ctx context.Context, spec port.ContainerSpec, progress func(string)) error {
	e, _, err := r.parse(spec)
	if err != nil {
		return err
	}
	r.noteUse(e.Image)
	if e.PullPolicy != protocol.PullAlways {
		present, err := r.present(ctx, e.Image)
		switch {
		case err != nil:
			return err
		case present:
			return nil
		case e.PullPolicy == protocol.PullNever:
			return bad("image %q is not on this drone, and pull_policy is Never", e.Image)
		}
	}
	if err := r.pull(ctx, e, progress); err != nil {
		return fmt.Errorf("pull image %q: %w", e.Image, withoutPassword(err, e.Credentials))
	}
	return nil
}

func (r *Runtime) present(ctx context.Context, ref string) (bool, error) {
	ctx, cancel := r.call(ctx)
	defer cancel()
	_, err := r.engine.ImageInspect(ctx, ref)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for image %q: %w", ref, cause(ctx, err))
	}
	return true, nil
}

func (r *Runtime) pull(ctx context.Context, e protocol.DockerExecutable, progress func(string)) error {
	auth, err := registryAuth(e)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, r.cfg.PullTimeout, fmt.Errorf("not done in %v", r.cfg.PullTimeout))
	defer cancel()
	ctx, stall := context.WithCancelCause(ctx)
	defer stall(nil)
	watchdog := time.AfterFunc(r.cfg.PullStall, func() { stall(fmt.Errorf("no progress for %v", r.cfg.PullStall)) })
	defer watchdog.Stop()

	body, err := r.engine.ImagePull(ctx, e.Image, image.PullOptions{RegistryAuth: auth})
	if err == nil {
		defer body.Close()
		p := pulling{tell: progress, layers: map[string]layer{}}
		err = readMessages(body, func(m message) {
			watchdog.Reset(r.cfg.PullStall)
			p.note(m, time.Now())
		})
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return pullRefusal(err, e.Image)
}

// registryAuth is the engine's form of the credentials.
func registryAuth(e protocol.DockerExecutable) (string, error) {
	if e.Credentials == nil {
		return "", nil
	}
	named, err := reference.ParseNormalizedNamed(e.Image)
	if err != nil {
		return "", bad("image: %w", err)
	}
	return registry.EncodeAuthConfig(registry.AuthConfig{
		Username: e.Credentials.Username, Password: e.Credentials.Password, ServerAddress: reference.Domain(named),
	})
}

// withoutPassword guards against an engine or a registry that repeats what it
// was sent.
func withoutPassword(err error, c *protocol.Credentials) error {
	if err == nil || c == nil || !strings.Contains(err.Error(), c.Password) {
		return err
	}
	clean := errors.New(strings.ReplaceAll(err.Error(), c.Password, "[password]"))
	if errors.Is(err, port.ErrBadExecutable) {
		return bad("%w", clean)
	}
	return clean
}

// message is one line of what the engine tells while it pulls or imports.
type message struct {
	Status   string `json:"status"`
	ID       string `json:"id"`
	Progress struct {
		Current int64 `json:"current"`
		Total   int64 `json:"total"`
	} `json:"progressDetail"`
	Error *struct {
		Message string `json:"message"`
	} `json:"errorDetail"`
}

// readMessages reads to the end; an error that the engine tells is returned.
func readMessages(body io.Reader, each func(message)) error {
	for decoder := json.NewDecoder(body); ; {
		var m message
		if err := decoder.Decode(&m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if m.Error != nil {
			return errors.New(m.Error.Message)
		}
		each(m)
	}
}

// pulling sums the layers up.
type pulling struct {
	tell   func(string)
	told   time.Time
	layers map[string]layer
}

type layer struct {
	current, total int64
	done           bool
}

func (p *pulling) note(m message, now time.Time) {
	l := p.layers[m.ID]
	switch m.Status {
	case "Downloading":
		l.current, l.total = m.Progress.Current, m.Progress.Total
	case "Pull complete", "Already exists":
		l.current, l.done = l.total, true
	case "Pulling fs layer", "Waiting", "Verifying Checksum", "Download complete", "Extracting":
	default:
		return
	}
	p.layers[m.ID] = l
	if now.Sub(p.told) < progressEvery {
		return
	}
	p.told = now
	var current, total int64
	done := 0
	for _, l := range p.layers {
		current, total = current+l.current, total+l.total
		if l.done {
			done++
		}
	}
	p.tell(fmt.Sprintf("%d of %d layers, %s of %s", done, len(p.layers), units.HumanSize(float64(current)), units.HumanSize(float64(total))))
}
