package controller

import (
	"context"
	"time"

	"plane/system/backend"
	"plane/system/port"
	"plane/system/protocol"
	"plane/system/session"
)

// droneSeat is one drone's session.
type droneSeat struct {
	node
	beats    *inbox[protocol.Heartbeat]
	events   *inbox[protocol.BackendEvent]
	renewals *inbox[protocol.RenewKey]
	acks     *inbox[protocol.AckAction]
}

// renewGather is how long renewals wait for more. A drone asks for those of a
// slot at once, and 18 s ahead; the store extends together what comes together.
const renewGather = 20 * time.Millisecond

// ServeDrone implements port.ControllerAPI.
func (c *Controller) ServeDrone(ctx context.Context, cluster, pool string, conn port.Conn) error {
	defer conn.Close("session over")
	n, err := c.greet(ctx, port.DroneNode, cluster, pool, conn)
	if err != nil {
		return err
	}
	s := &droneSeat{
		node:     n,
		beats:    newInbox[protocol.Heartbeat](c.tasks),
		events:   newInbox[protocol.BackendEvent](c.tasks),
		renewals: newInbox[protocol.RenewKey](c.tasks).gathering(c.clock, renewGather),
		acks:     newInbox[protocol.AckAction](c.tasks),
	}
	g := c.tasks.Group(ctx)
	g.Go("drone session", func(ctx context.Context) error {
		return session.Run(ctx, c.clock, c.tasks, conn, s.out, s.receive)
	})
	g.Go("drone heartbeats", s.beats.serve(s.recordBeats))
	g.Go("drone events", s.events.serve(s.recordEvents))
	g.Go("drone renewals", s.renewals.serve(s.renew))
	g.Go("drone acknowledgements", s.acks.serve(s.recordAcks))
	g.Go("drone actions", s.sendActions)
	err = g.Wait()
	s.leave(ctx, err)
	return err
}

// receive sorts a message to the task that deals with its kind.
func (s *droneSeat) receive(_ context.Context, frame []byte) error {
	m, err := protocol.DecodeFromDrone(frame)
	if err != nil {
		s.skip(err)
		return nil
	}
	switch m := m.(type) {
	case protocol.Heartbeat:
		s.beats.put(m)
	case protocol.BackendEvent:
		s.events.put(m)
	case protocol.RenewKey:
		s.renewals.put(m)
	case protocol.AckAction:
		s.acks.put(m)
	case protocol.BackendMetrics:
		s.keepMetrics(m)
	}
	return nil
}

// recordBeats notes the latest of some heartbeats.
func (s *droneSeat) recordBeats(ctx context.Context, batch []protocol.Heartbeat) error {
	beat := port.DroneHeartbeat{Drone: s.id, Connection: s.conn, LocalTime: batch[len(batch)-1].LocalTime.Time}
	return s.attempt(ctx, "heartbeat", func(ctx context.Context) error {
		return s.c.store.Heartbeats(ctx, []port.DroneHeartbeat{beat})
	})
}

// recordEvents records state changes and acknowledges them, none before it is
// recorded. The drone sends unacknowledged ones again only when it connects
// anew, so the store is asked until it answers.
func (s *droneSeat) recordEvents(ctx context.Context, batch []protocol.BackendEvent) error {
	reports := make([]port.StateReport, len(batch))
	for i, e := range batch {
		reports[i] = port.StateReport{Drone: s.id, BackendID: e.BackendID, State: backend.State(e.State), Time: e.Timestamp.Time}
	}
	var outcomes []port.RecordOutcome
	err := s.insist(ctx, "recording states", func(ctx context.Context) (err error) {
		outcomes, err = s.c.store.RecordStates(ctx, reports)
		return err
	})
	if err != nil {
		return err
	}
	for i, e := range batch {
		if outcomes[i] == port.NotOfDrone {
			s.log.Warn("the drone reports a backend that is not its own", "backend", e.BackendID, "status", e.State.Status)
		}
		s.out.Put(protocol.EncodeToDrone(protocol.AckEvent{EventID: e.EventID}))
	}
	return nil
}

// renew extends leases. An unclear answer is none: the drone asks again.
func (s *droneSeat) renew(ctx context.Context, batch []protocol.RenewKey) error {
	renewals := make([]port.Renewal, len(batch))
	for i, r := range batch {
		renewals[i] = port.Renewal{Drone: s.id, BackendID: r.Backend, Lease: s.c.cfg.Lease}
	}
	var held []bool
	err := s.attempt(ctx, "renewing keys", func(ctx context.Context) (err error) {
		held, err = s.c.store.RenewKeys(ctx, renewals)
		return err
	})
	if err != nil || held == nil {
		return err
	}
	for i, r := range batch {
		answer := protocol.RenewKeyResponse{Backend: r.Backend}
		if held[i] {
			d := protocol.Deadlines(s.c.cfg.Lease.Deadlines(r.LocalTime.Time))
			answer.Deadlines = &d
		} else {
			s.log.Warn("refused to renew a key that the backend does not hold", "backend", r.Backend)
		}
		s.out.Put(protocol.EncodeToDrone(answer))
	}
	return nil
}

func (s *droneSeat) recordAcks(ctx context.Context, batch []protocol.AckAction) error {
	ids := make([]string, len(batch))
	for i, a := range batch {
		ids[i] = a.ActionID
	}
	return s.attempt(ctx, "acknowledging actions", func(ctx context.Context) error {
		return s.c.store.AckActions(ctx, s.id, ids)
	})
}

// sendActions hands the drone what it has to do: on connecting, on a hint, and
// again until it is acknowledged.
func (s *droneSeat) sendActions(ctx context.Context) error {
	news := s.c.tasks.EventCount()
	defer s.c.hints.Subscribe(actionTopic(s.id), news.Advance)()
	sent := map[string]time.Time{}
	for {
		seen := news.Read()
		var pending []port.PendingAction
		err := s.attempt(ctx, "reading actions", func(ctx context.Context) (err error) {
			pending, err = s.c.store.PendingActions(ctx, s.id)
			return err
		})
		if err != nil {
			return err
		}
		sent = s.sendDue(pending, sent)
		if err := s.c.await(ctx, news, seen, s.c.cfg.Timing.ActionRepeat); err != nil {
			return err
		}
	}
}

// sendDue sends the actions that were not sent of late, and returns when each
// that is pending was sent last.
func (s *droneSeat) sendDue(pending []port.PendingAction, sent map[string]time.Time) map[string]time.Time {
	now := s.c.clock.Now()
	still := make(map[string]time.Time, len(pending))
	for _, p := range pending {
		id := p.Action.ActionID
		at, before := sent[id]
		if !before || now.Sub(at) >= s.c.cfg.Timing.ActionRepeat {
			at = now
			s.out.Put(protocol.EncodeToDrone(p.Action))
		}
		still[id] = at
	}
	return still
}
