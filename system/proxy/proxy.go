// Package proxy is the proxy's role: it keeps a session with a controller, knows
// where tokens lead, and keeps backends alive that are used. The bytes of
// requests do not pass through here: an HTTP server asks it, through
// port.Router, where to take them. Nor do certificates: whoever orders one shows
// its challenges by way of the session, through port.Challenges.
//
// It owns nothing that outlives the process: what it knows is asked from a
// controller and believed for a short while (package route says for how long,
// and why that is safe). It promises that a request is led to the backend that
// its token was issued for, or nowhere (G7); that a revoked token opens nothing
// and keeps nothing open (G8); and that a backend in use is reported as such
// every seven seconds (G9).
//
// Every method may be called from any task at once.
//
// When the controller is gone: routes that are known keep working until they are
// too old, open uses go on, lookups wait for a while for the session to come
// back and then fail with port.ErrUnavailable. After a reconnect, everything
// known is asked anew when it is next used, and at once where connections are
// open.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"plane/system/challenge"
	"plane/system/name"
	"plane/system/port"
	"plane/system/protocol"
	"plane/system/route"
	"plane/system/session"
)

// Config is what a proxy is told at its start.
type Config struct {
	Name      string // px-…
	Version   protocol.Version
	Reconnect session.Reconnect
	Routes    route.Policy
	// ReadyTimeout is how long a request waits for its backend to start; it has
	// to be longer than a drone waits for a backend to answer.
	ReadyTimeout time.Duration
	// OfflineTimeout is how long a lookup waits while no controller is connected.
	OfflineTimeout time.Duration
}

// DefaultConfig has the default times and limits.
func DefaultConfig(nodeName string, version protocol.Version) Config {
	return Config{
		Name: nodeName, Version: version, Reconnect: session.DefaultReconnect(), Routes: route.DefaultPolicy(),
		ReadyTimeout: 310 * time.Second, OfflineTimeout: 10 * time.Second,
	}
}

// Validate refuses a configuration that could not work.
func (c Config) Validate() error {
	if err := name.Validate(name.Proxy, c.Name); err != nil {
		return err
	}
	if c.ReadyTimeout <= 0 || c.OfflineTimeout <= 0 {
		return errors.New("proxy: ReadyTimeout and OfflineTimeout must be positive")
	}
	return c.Routes.Validate()
}

// Proxy is one proxy. It implements port.Router.
type Proxy struct {
	cfg    Config
	clock  port.Clock
	tasks  port.Tasks
	rnd    port.Rand
	dialer port.Dialer
	log    *slog.Logger
	table  *route.Table
	work   port.EventCount // advances when there is something to send

	desk challenge.Desk
	told port.EventCount // advances with the desk's news from controllers
}

// New makes a proxy, which does nothing until Run.
func New(cfg Config, clock port.Clock, tasks port.Tasks, rnd port.Rand, dialer port.Dialer, log *slog.Logger) (*Proxy, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("proxy configuration: %w", err)
	}
	return &Proxy{
		cfg: cfg, clock: clock, tasks: tasks, rnd: rnd, dialer: dialer, log: log,
		table: route.NewTable(cfg.Routes), work: tasks.EventCount(), told: tasks.EventCount(),
	}, nil
}

// Run keeps a session with a controller until the context ends; it returns the
// context's cause.
func (p *Proxy) Run(ctx context.Context) error {
	session.Keep(ctx, p.cfg.Reconnect, p.clock, p.tasks, p.rnd, p.dialer, p.log, p.serve)
	return context.Cause(ctx)
}

// Ready implements port.Router.
func (p *Proxy) Ready() bool {
	connected, _ := p.table.Session()
	return connected
}

// Size is how much the proxy remembers and serves now, for metrics.
func (p *Proxy) Size() route.Size { return p.table.Size() }

// Route implements port.Router.
func (p *Proxy) Route(ctx context.Context, token string) (protocol.RouteInfo, error) {
	if !name.ValidToken(token) {
		return protocol.RouteInfo{}, fmt.Errorf("token is malformed: %w", port.ErrNotFound)
	}
	r, known, ask := p.table.Find(token, p.clock.Now())
	if ask {
		p.work.Advance()
	}
	if known == route.Unknown {
		return p.lookUp(ctx, token)
	}
	return result(r, known == route.Absent)
}

func result(r route.Route, absent bool) (protocol.RouteInfo, error) {
	if absent {
		return protocol.RouteInfo{}, fmt.Errorf("token is unknown, revoked or expired, or its backend is gone: %w", port.ErrNotFound)
	}
	return protocol.RouteInfo(r), nil
}

// lookUp waits for a controller's answer.
func (p *Proxy) lookUp(ctx context.Context, token string) (protocol.RouteInfo, error) {
	changed := p.tasks.EventCount()
	w, ask, err := p.table.Join(token, changed)
	if err != nil {
		return protocol.RouteInfo{}, fmt.Errorf("%w: %w", err, port.ErrUnavailable)
	}
	defer p.table.Leave(w)
	if ask {
		p.work.Advance()
	}
	for start := p.clock.Now(); ; {
		seen := changed.Read()
		if r, absent, done := p.table.Result(w); done {
			return result(r, absent)
		}
		deadline, late := p.deadline(start)
		if !p.clock.Now().Before(deadline) {
			return protocol.RouteInfo{}, late
		}
		waiting, cancel := p.clock.WithDeadline(ctx, deadline)
		err := changed.Await(waiting, seen)
		cancel()
		if err != nil && ctx.Err() != nil {
			return protocol.RouteInfo{}, context.Cause(ctx)
		}
	}
}

// deadline is until when a lookup that began at start may wait, as things are
// now, and what it ends with.
func (p *Proxy) deadline(start time.Time) (time.Time, error) {
	deadline := start.Add(p.cfg.ReadyTimeout)
	late := fmt.Errorf("backend was not ready within %v: %w", p.cfg.ReadyTimeout, context.DeadlineExceeded)
	connected, since := p.table.Session()
	if connected {
		return deadline, late
	}
	if since.Before(start) {
		since = start
	}
	if offline := since.Add(p.cfg.OfflineTimeout); offline.Before(deadline) {
		deadline, late = offline, fmt.Errorf("no controller connected for %v: %w", p.cfg.OfflineTimeout, port.ErrUnavailable)
	}
	return deadline, late
}

// Open implements port.Router.
func (p *Proxy) Open(ctx context.Context, token string, info protocol.RouteInfo, upgraded bool) (context.Context, func(), error) {
	ctx, end := context.WithCancelCause(ctx)
	use, fresh, ok := p.table.Open(token, route.Route(info), upgraded, p.clock.Now(), end)
	if !ok {
		end(nil)
		return nil, nil, fmt.Errorf("route to backend %s is void: %w", info.BackendID, port.ErrNotFound)
	}
	if fresh {
		p.work.Advance()
	}
	return ctx, func() {
		p.table.Close(use)
		end(nil)
	}, nil
}
