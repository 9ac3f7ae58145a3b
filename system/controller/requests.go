package controller

import (
	"context"
	"errors"
	"time"

	"plane/system/backend"
	"plane/system/name"
	"plane/system/port"
	"plane/system/protocol"
)

// Terminate asks the backend's drone to end it. It blocks for a store call, not
// for the end; asking twice is harmless.
func (c *Controller) Terminate(ctx context.Context, backendID string, kind backend.Kind) error {
	p := port.TerminateParams{BackendID: backendID, ActionID: c.newActionID(), Kind: kind, Reason: backend.External}
	err := c.call(ctx, func(ctx context.Context) error { return c.store.Terminate(ctx, p) })
	return backendError(backendID, err)
}

// Revoke voids a user's tokens for a backend. All proxies in touch with a
// controller know within a second (G8).
func (c *Controller) Revoke(ctx context.Context, req protocol.RevokeRequest) error {
	if req.User == "" {
		return invalid("user: is missing")
	}
	if err := validUser(req.User); err != nil {
		return err
	}
	if err := name.Validate(name.Backend, req.BackendID); err != nil {
		return invalid("backend_id: %v", err)
	}
	err := c.call(ctx, func(ctx context.Context) error { return c.store.Revoke(ctx, req.BackendID, req.User) })
	return backendError(req.BackendID, err)
}

// Drain keeps new backends from a drone for good.
func (c *Controller) Drain(ctx context.Context, cluster, drone string) (r protocol.DrainResult, err error) {
	canonical, err := clusterName(cluster)
	if err != nil {
		return r, err
	}
	err = c.call(ctx, func(ctx context.Context) (err error) {
		r.Updated, err = c.store.Drain(ctx, canonical, drone)
		return err
	})
	switch {
	case errors.Is(err, port.ErrNotFound):
		return r, refuse(protocol.NotFound, nil, "cluster %s has no drone %q", canonical, drone)
	case err != nil:
		return r, databaseError(err)
	}
	c.cfg.Log.Info("drained a drone", "drone", drone, "cluster", canonical, "updated", r.Updated)
	return r, nil
}

// ClusterState lists the nodes of a cluster.
func (c *Controller) ClusterState(ctx context.Context, cluster string) (s protocol.ClusterState, err error) {
	canonical, err := clusterName(cluster)
	if err != nil {
		return s, err
	}
	err = c.call(ctx, func(ctx context.Context) (err error) {
		s, err = c.store.ClusterState(ctx, canonical)
		return err
	})
	if err != nil {
		return s, databaseError(err)
	}
	return s, nil
}

// Backends lists one page of a cluster's backends.
func (c *Controller) Backends(ctx context.Context, cluster string, req protocol.BackendsRequest) (page protocol.BackendsPage, err error) {
	q, err := backendQuery(cluster, req)
	if err != nil {
		return page, err
	}
	q.Limit++ // whether there is another page
	var found []port.Backend
	err = c.call(ctx, func(ctx context.Context) (err error) {
		found, err = c.store.Backends(ctx, q)
		return err
	})
	if err != nil {
		return page, databaseError(err)
	}
	if len(found) > req.Limit {
		found = found[:req.Limit]
		page.Next = &found[len(found)-1].ID
	}
	page.Backends = make([]protocol.BackendEntry, len(found))
	for i, b := range found {
		page.Backends[i] = protocol.BackendEntry{
			ID: b.ID, Key: b.Key, Drone: b.Drone, CreatedAt: protocol.Millis{Time: b.CreatedAt}, Address: b.State.Address,
			StatusEntry: protocol.NewStatusEntry(b.State, protocol.Millis{Time: b.StateTime}),
		}
	}
	return page, nil
}

// backendQuery checks a request; its errors name the parameter.
func backendQuery(cluster string, req protocol.BackendsRequest) (q port.BackendQuery, err error) {
	if q.Cluster, err = clusterName(cluster); err != nil {
		return q, err
	}
	if req.Limit < 1 || req.Limit > protocol.MostBackends {
		return q, invalid("limit: %d is not between 1 and %d", req.Limit, protocol.MostBackends)
	}
	if req.After != "" {
		if err := name.Validate(name.Backend, req.After); err != nil {
			return q, invalid("after: want what the page before has as its next: %v", err)
		}
	}
	if req.Drone != "" {
		if err := name.Validate(name.Drone, req.Drone); err != nil {
			return q, invalid("drone: %v", err)
		}
	}
	q.Statuses, q.Live, q.Drone, q.Key, q.Namespace = req.Statuses, req.Live, req.Drone, req.Key, req.Namespace
	q.After, q.Limit = req.After, req.Limit
	return q, nil
}

// Status returns the latest entry of a backend's history.
func (c *Controller) Status(ctx context.Context, backendID string) (protocol.StatusEntry, error) {
	var b port.Backend
	err := c.call(ctx, func(ctx context.Context) (err error) {
		b, err = c.store.Backend(ctx, backendID)
		return err
	})
	if err != nil {
		return protocol.StatusEntry{}, backendError(backendID, err)
	}
	return protocol.NewStatusEntry(b.State, protocol.Millis{Time: b.StateTime}), nil
}

// StatusStream implements port.ControllerAPI. It reads the history from its own
// last position whenever there may be news, so that a hint lost, doubled or out
// of order changes nothing (G3).
func (c *Controller) StatusStream(ctx context.Context, backendID string, after backend.Status, send func(protocol.StatusEntry) error, idle func() error) error {
	news := c.tasks.EventCount()
	defer c.hints.Subscribe(backendTopic(backendID), news.Advance)()
	for answered := c.clock.Now(); ; {
		seen := news.Read()
		entries, err := c.history(ctx, backendID, after)
		switch {
		case err == nil:
			answered = c.clock.Now()
		case errors.Is(err, port.ErrNotFound) || ctx.Err() != nil || c.clock.Now().Sub(answered) >= streamPatience:
			return backendError(backendID, err)
		}
		for _, e := range entries {
			if err := send(protocol.NewStatusEntry(e.State, protocol.Millis{Time: e.Time})); err != nil {
				return err
			}
			after = e.State.Status
		}
		if after == backend.Terminated {
			return nil
		}
		if len(entries) == 0 {
			if err := idle(); err != nil {
				return err
			}
		}
		if err := c.await(ctx, news, seen, c.cfg.Timing.StreamPoll); err != nil {
			return err
		}
	}
}

// streamPatience is for how long a status stream goes on, with nothing to tell
// but that it is still there, while the store does not answer: longer than a
// fail-over takes.
const streamPatience = time.Minute

func (c *Controller) history(ctx context.Context, backendID string, after backend.Status) (entries []port.HistoryEntry, err error) {
	err = c.call(ctx, func(ctx context.Context) (err error) {
		entries, err = c.store.History(ctx, backendID, after)
		return err
	})
	return entries, err
}

func clusterName(s string) (string, error) {
	cluster, err := name.ParseCluster(s)
	if err != nil {
		return "", refuse(protocol.InvalidClusterName, nil, "%v", err)
	}
	return cluster.String(), nil
}

func backendError(backendID string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, port.ErrNotFound):
		return refuse(protocol.NotFound, nil, "there is no backend %q", backendID)
	}
	return databaseError(err)
}
