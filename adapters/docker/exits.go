package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/system"
)

// exits is the event stream, which stays open between calls of Exits.
type exits struct {
	mu       sync.Mutex // held by the one call
	messages <-chan events.Message
	failed   <-chan error
	cancel   context.CancelFunc
	since    string // the engine's time of the last event seen
}

// Exits implements port.ContainerRuntime. After a cut the stream is opened
// again from the last event seen, on the engine's own clock, so that as long as
// the engine itself remembers, nothing is lost between List and this.
func (r *Runtime) Exits(ctx context.Context) (string, error) {
	if !r.exits.mu.TryLock() {
		return "", errors.New("docker: Exits is called twice at once")
	}
	defer r.exits.mu.Unlock()
	if r.exits.messages == nil {
		r.openExits()
	}
	for {
		select {
		case m := <-r.exits.messages:
			r.exits.since = timestamp(m.TimeNano)
			if backendID := m.Actor.Attributes[BackendLabel]; backendID != "" {
				return backendID, nil
			}
		case err := <-r.exits.failed:
			r.exits.cancel()
			r.exits.messages, r.exits.failed = nil, nil
			if err == nil || errors.Is(err, io.EOF) {
				err = errors.New("the engine closed it")
			}
			return "", fmt.Errorf("event stream: %w", err)
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

// openExits subscribes. A failure comes out of the stream.
func (r *Runtime) openExits() {
	ctx, cancel := context.WithCancel(r.life)
	r.exits.cancel = cancel
	// Events blocks until the engine has answered, and only the stream after
	// that may take for ever.
	deadline := time.AfterFunc(r.cfg.CallTimeout, cancel)
	defer deadline.Stop()
	r.exits.messages, r.exits.failed = r.engine.Events(ctx, events.ListOptions{
		Since: r.exits.since,
		Filters: filters.NewArgs(
			filters.Arg("type", string(events.ContainerEventType)),
			filters.Arg("event", string(events.ActionDie)),
			filters.Arg("label", DroneLabel+"="+r.cfg.Drone),
		),
	})
}

// engineTime is the engine's clock, in the form that it takes for since. Without
// it the stream begins when it is opened.
func engineTime(info system.Info) string {
	t, err := time.Parse(time.RFC3339Nano, info.SystemTime)
	if err != nil {
		return ""
	}
	return timestamp(t.UnixNano())
}

func timestamp(nanos int64) string {
	return strconv.FormatInt(nanos/1e9, 10) + "." + fmt.Sprintf("%09d", nanos%1e9)
}
