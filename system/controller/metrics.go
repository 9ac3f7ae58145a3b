package controller

import (
	"context"
	"errors"
	"time"

	"plane/system/backend"
	"plane/system/port"
	"plane/system/protocol"
)

// What a drone tells of what its backends use stays with the controller that it
// is connected to: the store never hears of it (shortfall 12). Whoever asks
// another controller is answered by that one all the same, which asks on.
const (
	// mostMetrics is of how many backends a controller keeps what they use.
	mostMetrics = 100_000
	// metricsAge is how long it keeps that. Drones tell it every 10 s.
	metricsAge = time.Minute
	// metricsTries is how many failures in a row a stream lives through once it
	// has begun.
	metricsTries = 5
)

// metricsOf names a backend's entry. The drone is part of it, so that none can
// speak for another's.
func metricsOf(cluster, drone, backendID string) string {
	return cluster + " " + drone + " " + backendID
}

func metricsTopic(entry string) string { return "metrics " + entry }

func (s *droneSeat) keepMetrics(m protocol.BackendMetrics) {
	entry := metricsOf(s.cluster, s.name, m.BackendID)
	s.c.metrics.Put(entry, m, s.c.clock.Now())
	s.c.hints.Announce(metricsTopic(entry))
}

// Metrics implements port.ControllerAPI.
func (c *Controller) Metrics(ctx context.Context, q port.MetricsQuery) (protocol.MetricsEntry, error) {
	b, err := c.metricsSource(ctx, q)
	if err != nil {
		return protocol.MetricsEntry{}, err
	}
	if b.Controller != c.cfg.Name {
		entry, err := c.cfg.Peers.Metrics(ctx, b.PeerURL, q)
		return entry, peerError(b, err)
	}
	entry, _, ok := c.latestMetrics(b)
	if !ok {
		return entry, refuse(protocol.Unavailable, nil, "drone %s has not told yet what backend %q uses; it does so every 10 s while the backend runs", b.Drone, b.ID)
	}
	return entry, nil
}

// metricsSource finds the controller to ask: this one or, unless another
// controller asks this one, that which the backend's drone is connected to.
func (c *Controller) metricsSource(ctx context.Context, q port.MetricsQuery) (b port.Backend, err error) {
	err = c.call(ctx, func(ctx context.Context) (err error) {
		b, err = c.store.Backend(ctx, q.BackendID)
		return err
	})
	switch {
	case err != nil:
		return b, backendError(q.BackendID, err)
	case b.State.Status == backend.Terminated:
		return b, refuse(protocol.NotFound, nil, "backend %q has ended", b.ID)
	case b.Controller == "":
		return b, refuse(protocol.Unavailable, nil, "drone %s, where backend %q runs, is connected to no controller", b.Drone, b.ID)
	case b.Controller == c.cfg.Name:
		return b, nil
	case q.Forwarded:
		return b, refuse(protocol.Unavailable, nil, "drone %s has moved to controller %s just now; ask again", b.Drone, b.Controller)
	case b.PeerURL == "" || c.cfg.Peers == nil:
		return b, refuse(protocol.Unavailable, nil,
			"drone %s is connected to controller %s, which others cannot reach: start it with --peer-url, or ask it directly", b.Drone, b.Controller)
	}
	return b, nil
}

// latestMetrics returns an entry and its number.
func (c *Controller) latestMetrics(b port.Backend) (entry protocol.MetricsEntry, number uint64, ok bool) {
	now := c.clock.Now()
	kept, ok := c.metrics.Get(metricsOf(b.Cluster, b.Drone, b.ID), now)
	return protocol.MetricsEntry{BackendMetrics: kept.Value, AgeMillis: max(now.Sub(kept.At).Milliseconds(), 0)}, kept.Number, ok
}

// peerError says whom this controller has asked in vain.
func peerError(b port.Backend, err error) error {
	if errors.Is(err, port.ErrUnavailable) {
		return refuse(protocol.Unavailable, err, "drone %s is connected to controller %s, which does not answer", b.Drone, b.Controller)
	}
	return err
}

// MetricsStream implements port.ControllerAPI. Wherever the drone moves, the
// stream follows.
func (c *Controller) MetricsStream(ctx context.Context, q port.MetricsQuery, send func(protocol.MetricsEntry) error, idle func() error) error {
	s := &metricsStream{c: c, q: q, send: send, idle: idle, news: c.tasks.EventCount()}
	defer c.hints.Subscribe(backendTopic(q.BackendID), s.news.Advance)()
	for failures := 0; ; failures++ {
		told := s.told
		err := s.stretch(ctx)
		if s.told > told {
			failures = 0
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case s.refused != nil:
			return s.refused
		case err != nil && s.told == 0: // it can still be told as an error
			return err
		case isNotFound(err):
			return nil
		case err != nil && (q.Forwarded || failures >= metricsTries):
			return err
		}
		if err := c.clock.Sleep(ctx, storePause); err != nil {
			return err
		}
	}
}

func isNotFound(err error) bool {
	var api *protocol.APIError
	return errors.As(err, &api) && api.Kind == protocol.NotFound
}

// metricsStream is one caller's view of what a backend uses.
type metricsStream struct {
	c       *Controller
	q       port.MetricsQuery
	send    func(protocol.MetricsEntry) error
	idle    func() error
	news    port.EventCount
	latest  uint64 // the number of the entry of this controller's own that was sent last
	told    int    // how often the caller was told anything
	refused error  // the caller's, who wants no more
}

// stretch follows the backend for as long as it stays where it is.
func (s *metricsStream) stretch(ctx context.Context) error {
	b, err := s.c.metricsSource(ctx, s.q)
	switch {
	case err != nil:
		return err
	case b.Controller == s.c.cfg.Name:
		return s.own(ctx, b)
	}
	err = s.c.cfg.Peers.MetricsStream(ctx, b.PeerURL, s.q,
		func(e protocol.MetricsEntry) error { return s.tell(func() error { return s.send(e) }) },
		func() error { return s.tell(s.idle) })
	return peerError(b, err)
}

// own sends what comes to this controller until there is news that is none, or
// no news for a while: then somebody has to look where the backend is.
func (s *metricsStream) own(ctx context.Context, b port.Backend) error {
	entry := metricsOf(b.Cluster, b.Drone, b.ID)
	defer s.c.hints.Subscribe(metricsTopic(entry), s.news.Advance)()
	for waited := false; ; waited = true {
		seen := s.news.Read()
		e, number, ok := s.c.latestMetrics(b)
		switch {
		case ok && number > s.latest:
			s.latest = number
			if err := s.tell(func() error { return s.send(e) }); err != nil {
				return err
			}
		case waited:
			return s.tell(s.idle)
		}
		if err := s.c.await(ctx, s.news, seen, s.c.cfg.Timing.StreamPoll); err != nil {
			return err
		}
	}
}

func (s *metricsStream) tell(what func() error) error {
	s.told++
	s.refused = what()
	return s.refused
}
