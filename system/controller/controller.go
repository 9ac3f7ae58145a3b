// Package controller is the role that decides: it gives keys to backends,
// chooses drones, tells drones what to do and proxies where tokens lead, and
// ends what has to end.
//
// A controller keeps nothing that matters. All state is in the Store; any
// number of controllers work on it at once, and each may stop at any moment:
// drones and proxies dial another, and whatever was under way is taken up from
// the store. Between controllers and within one, news travels as hints that may
// be lost, so every task that waits for one also looks for itself now and then.
//
// All methods may be called at once. Errors for API callers are
// *protocol.APIError; their Cause is for the log.
package controller

import (
	"cmp"
	"context"
	"strconv"
	"sync/atomic"
	"time"

	"plane/system/name"
	"plane/system/port"
	"plane/system/protocol"
	"plane/system/recent"
	"plane/system/watch"
)

// Controller implements port.ControllerAPI. Make it with New, then Run it.
type Controller struct {
	cfg      Config
	clock    port.Clock
	tasks    port.Tasks
	rnd      port.Rand
	store    port.Store
	listener port.Listener

	hints   watch.Hub                // by topic, as hintTopic makes them
	proxies watch.Roster[*proxySeat] // the sessions of this controller
	metrics *recent.Table[protocol.BackendMetrics]

	storeTime atomic.Pointer[time.Time] // what the store's clock showed when it was read last
	storeBack atomic.Pointer[time.Time] // when, on the own clock, the store was last back from a gap
}

// New checks the configuration and makes a controller; it does nothing yet.
func New(cfg Config, clock port.Clock, tasks port.Tasks, rnd port.Rand, store port.Store, listener port.Listener) (*Controller, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.CleanupBatch = cmp.Or(cfg.CleanupBatch, defaultCleanupBatch)
	return &Controller{
		cfg: cfg, clock: clock, tasks: tasks, rnd: rnd, store: store, listener: listener,
		metrics: recent.New[protocol.BackendMetrics](mostMetrics, metricsAge),
	}, nil
}

// Run does what a controller does of its own accord, until the context ends. It
// always returns the context's cause.
func (c *Controller) Run(ctx context.Context) error {
	g := c.tasks.Group(ctx)
	g.Go("hints", c.listen)
	g.Go("heartbeat", c.beat)
	g.Go("sweep", c.sweep)
	g.Go("revocations", c.spreadRevocations)
	g.Go("cleanup", c.cleanUp)
	g.Go("watch", c.lookForEnds)
	return g.Wait()
}

// Health returns nil when the store answers.
func (c *Controller) Health(ctx context.Context) error {
	return c.call(ctx, c.store.Health)
}

// call bounds one store call in time.
func (c *Controller) call(ctx context.Context, fn func(ctx context.Context) error) error {
	ctx, cancel := port.WithTimeout(ctx, c.clock, c.cfg.Timing.StoreCall)
	defer cancel()
	return fn(ctx)
}

func (c *Controller) newActionID() string { return name.New(name.Action, c.rnd) }

func hintTopic(topic port.Topic, subject string) string { return string(topic) + " " + subject }

func backendTopic(backendID string) string { return hintTopic(port.BackendTopic, backendID) }

func actionTopic(drone port.NodeID) string {
	return hintTopic(port.ActionTopic, strconv.FormatInt(int64(drone), 10))
}

// listen passes hints on to whoever waits for them. After a cut everybody looks
// again.
func (c *Controller) listen(ctx context.Context) error {
	for {
		hint, err := c.listener.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			c.cfg.Log.Warn("lost the store's hints; subscribing again", "error", err)
			if err := c.clock.Sleep(ctx, listenPause); err != nil {
				return err
			}
			c.hints.AnnounceAll()
		case hint.Topic == port.ResyncTopic:
			c.hints.AnnounceAll()
		default:
			c.hints.Announce(hintTopic(hint.Topic, hint.Subject))
		}
	}
}
