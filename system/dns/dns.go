// Package dns is the DNS receiver's role: it keeps a session with a controller
// and says which values the ACME challenges of a cluster have now. Names, types
// and packets are not its matter: a DNS server asks it, through port.ChallengeReader,
// and package zone makes answers of what it says.
//
// It owns nothing that outlives the process. Whoever asks is told what was so
// after it asked, so that a value, once set, is seen by all; only in a flood of
// questions answers are remembered, for less than a second, so that it is none to
// the controller; and in a flood of names those that had values lately come first
// (package inquiry).
//
// Every method may be called from any task at once.
//
// When the controller is gone, questions wait for it for a moment (a node moves
// to another controller now and then), and from then on fail at once with
// port.ErrUnavailable, as they do when the controller cannot ask the store, takes
// too long, or when too many are under way: then the oldest give way.
package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"plane/system/inquiry"
	"plane/system/name"
	"plane/system/port"
	"plane/system/protocol"
	"plane/system/session"
)

// Config is what a receiver is told at its start.
type Config struct {
	Name      string // ns-…
	Version   protocol.Version
	Reconnect session.Reconnect
	Inquiries inquiry.Policy
	// Patience is how long a question may take; resolvers ask again after a
	// second or so.
	Patience time.Duration
	// OfflineTimeout is how long a question waits while no controller is
	// connected, counted from when the last one was lost.
	OfflineTimeout time.Duration
}

// DefaultConfig has the default times and limits.
func DefaultConfig(nodeName string, version protocol.Version) Config {
	return Config{
		Name: nodeName, Version: version, Reconnect: session.DefaultReconnect(), Inquiries: inquiry.DefaultPolicy(),
		Patience: 1500 * time.Millisecond, OfflineTimeout: time.Second,
	}
}

// Validate refuses a configuration that could not work.
func (c Config) Validate() error {
	if err := name.Validate(name.DNS, c.Name); err != nil {
		return err
	}
	if c.Patience <= 0 || c.OfflineTimeout < 0 {
		return errors.New("dns: Patience must be positive, and OfflineTimeout not negative")
	}
	return c.Inquiries.Validate()
}

// Receiver is one DNS receiver. It implements port.ChallengeReader.
type Receiver struct {
	cfg    Config
	clock  port.Clock
	tasks  port.Tasks
	rnd    port.Rand
	dialer port.Dialer
	log    *slog.Logger
	table  *inquiry.Table
	work   port.EventCount // advances when there is something to send
}

// New makes a receiver, which does nothing until Run.
func New(cfg Config, clock port.Clock, tasks port.Tasks, rnd port.Rand, dialer port.Dialer, log *slog.Logger) (*Receiver, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("DNS receiver configuration: %w", err)
	}
	return &Receiver{
		cfg: cfg, clock: clock, tasks: tasks, rnd: rnd, dialer: dialer, log: log,
		table: inquiry.NewTable(cfg.Inquiries, clock.Now()), work: tasks.EventCount(),
	}, nil
}

// Run keeps a session with a controller until the context ends; it returns the
// context's cause.
func (r *Receiver) Run(ctx context.Context) error {
	session.Keep(ctx, r.cfg.Reconnect, r.clock, r.tasks, r.rnd, r.dialer, r.log, r.serve)
	return context.Cause(ctx)
}

// Connected reports whether a controller is connected.
func (r *Receiver) Connected() bool {
	connected, _ := r.table.Session()
	return connected
}

// Size is how many questions are under way, and how many answers remembered.
func (r *Receiver) Size() (asked, remembered int) { return r.table.Size() }

// Challenges implements port.ChallengeReader.
func (r *Receiver) Challenges(ctx context.Context, cluster string) ([]string, error) {
	start := r.clock.Now()
	if known, ok := r.table.Find(cluster, start); ok {
		return told(known)
	}
	if deadline, late := r.deadline(start); !start.Before(deadline) {
		return nil, late
	}
	changed := r.tasks.EventCount()
	j, err := r.table.Join(cluster, changed, start)
	wake(j.Wake)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, port.ErrUnavailable)
	}
	defer r.leave(j.Waiter)
	if j.Ask {
		r.work.Advance()
	}
	for {
		seen := changed.Read()
		if result, done := r.table.Result(j.Waiter); done {
			return told(result)
		}
		deadline, late := r.deadline(start)
		if !r.clock.Now().Before(deadline) {
			return nil, late
		}
		waiting, cancel := r.clock.WithDeadline(ctx, deadline)
		err := changed.Await(waiting, seen)
		cancel()
		if err != nil && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
}

func (r *Receiver) leave(w *inquiry.Waiter) {
	if r.table.Leave(w) {
		r.work.Advance()
	}
}

// Remembered implements port.ChallengeReader.
func (r *Receiver) Remembered(cluster string) ([]string, bool) {
	known, ok := r.table.Find(cluster, r.clock.Now())
	return known.Values, ok && !known.Failed
}

func told(result inquiry.Result) ([]string, error) {
	switch {
	case result.GaveWay:
		return nil, fmt.Errorf("%w: %w", inquiry.ErrTooMany, port.ErrUnavailable)
	case result.Failed:
		return nil, fmt.Errorf("the controller cannot ask its store: %w", port.ErrUnavailable)
	}
	return result.Values, nil
}

// deadline is until when a question that began at start may wait, as things are
// now, and what it ends with.
func (r *Receiver) deadline(start time.Time) (time.Time, error) {
	deadline := start.Add(r.cfg.Patience)
	late := fmt.Errorf("no controller answered within %v: %w", r.cfg.Patience, port.ErrUnavailable)
	connected, since := r.table.Session()
	if connected {
		return deadline, late
	}
	if offline := since.Add(r.cfg.OfflineTimeout); offline.Before(deadline) {
		deadline, late = offline, fmt.Errorf("no controller connected for %v: %w", r.cfg.OfflineTimeout, port.ErrUnavailable)
	}
	return deadline, late
}
