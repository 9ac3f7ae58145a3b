package drone

import (
	"context"
	"errors"
	"fmt"

	"plane/system/backend"
	"plane/system/lease"
	"plane/system/name"
	"plane/system/port"
	"plane/system/protocol"
	"plane/system/session"
)

// serve runs one session with a controller.
func (d *Drone) serve(ctx context.Context, conn port.Conn) error {
	if err := d.greet(ctx, conn); err != nil {
		return err
	}
	out := session.NewOutbox(d.Tasks)
	g := d.Tasks.Group(ctx)
	g.Go("session", func(ctx context.Context) error {
		return session.Run(ctx, d.Clock, d.Tasks, conn, out, d.receive)
	})
	g.Go("heartbeats", func(ctx context.Context) error { return d.beat(ctx, out) })
	g.Go("events", func(ctx context.Context) error { return d.sendEvents(ctx, out) })
	d.out.Store(out)
	d.connected.Store(true)
	for _, k := range d.keepers.All() {
		k.tell(k.reconnected)
	}
	err := g.Wait()
	d.out.CompareAndSwap(out, nil)
	d.connected.Store(false)
	return err
}

func (d *Drone) greet(ctx context.Context, conn port.Conn) error {
	hello := protocol.Handshake{Version: d.cfg.Version, Name: d.cfg.Name}
	if has := protocol.Capacity(d.cfg.Capacity); has != (protocol.Capacity{}) {
		hello.Capacity = &has
	}
	if err := session.Send(ctx, d.Clock, conn, protocol.EncodeHandshake(hello)); err != nil {
		return err
	}
	frame, err := session.First(ctx, d.Clock, conn)
	if err != nil {
		return err
	}
	peer, err := protocol.DecodeHandshake(frame, name.Controller)
	if err != nil {
		return err
	}
	if peer.Version != d.cfg.Version {
		d.log.Warn("the controller runs another version", "controller", peer.Name, "version", peer.Version.Version, "own_version", d.cfg.Version.Version)
	}
	d.log.Info("connected", "controller", peer.Name)
	return nil
}

// beat says that the drone lives, once it knows what runs on its machine.
func (d *Drone) beat(ctx context.Context, out *session.Outbox) error {
	if err := d.surveyed.Await(ctx, 0); err != nil {
		return err
	}
	for {
		out.Put(protocol.EncodeFromDrone(protocol.Heartbeat{LocalTime: protocol.Millis{Time: d.Clock.Now()}}))
		if err := d.Clock.Sleep(ctx, d.cfg.Timing.Heartbeat); err != nil {
			return err
		}
	}
}

// receive sorts a message to whom it concerns; it does not block.
func (d *Drone) receive(_ context.Context, frame []byte) error {
	m, err := protocol.DecodeToDrone(frame)
	if err != nil {
		level := d.log.Warn
		if errors.Is(err, protocol.ErrUnknownMessage) {
			level = d.log.Debug
		}
		level("skipped a message of the controller", "error", err)
		return nil
	}
	switch m := m.(type) {
	case protocol.Action:
		d.act(m)
	case protocol.AckEvent:
		d.ackedIDs.Put(m.EventID)
		d.events.Advance()
	case protocol.RenewKeyResponse:
		if k, ok := d.keepers.Get(m.Backend); ok {
			k.tell(func() { k.renewed((*lease.Deadlines)(m.Deadlines)) })
		}
	}
	return nil
}

// act hands an action to the backend's keeper, who acknowledges it once it
// cannot be forgotten any more. To end a backend that is not known is no work:
// it never ran here, or is over.
func (d *Drone) act(m protocol.Action) {
	if s := m.Action.Spawn; s != nil {
		k, added := d.employ(d.hired(m.BackendID, *s))
		if !added {
			k.log.Debug("a spawn was handed over again")
		}
		k.tell(func() { k.owe(m.ActionID) })
		return
	}
	k, ok := d.keepers.Get(m.BackendID)
	if !ok {
		d.log.Info("asked to end a backend that is not here", "backend", m.BackendID)
		d.acknowledge(m.ActionID)
		return
	}
	t := *m.Action.Terminate
	k.tell(func() { k.terminate(m.ActionID, t) })
}

func (d *Drone) acknowledge(actionID string) {
	d.send(protocol.EncodeFromDrone(protocol.AckAction{ActionID: actionID}))
}

// sendEvents sends the state changes that no controller has acknowledged, in
// order of id, all of them at the beginning of a session and then each as it
// comes; and deals with acknowledgements.
func (d *Drone) sendEvents(ctx context.Context, out *session.Outbox) error {
	sent := int64(0)
	for {
		seen := d.events.Read()
		pending, err := d.settle(ctx)
		if err != nil {
			d.log.Error("state changes are not told because the journal fails; trying again", "error", err)
			if err := d.Clock.Sleep(ctx, d.jittered(d.cfg.Timing.DiskCall/5)); err != nil {
				return err
			}
			continue
		}
		for _, e := range pending {
			if e.ID <= sent {
				continue
			}
			out.Put(protocol.EncodeFromDrone(protocol.BackendEvent{
				EventID: e.ID, BackendID: e.BackendID, State: protocol.State(e.State), Timestamp: protocol.Millis{Time: e.Time},
			}))
			sent = e.ID
		}
		if err := d.events.Await(ctx, seen); err != nil {
			return err
		}
	}
}

// settle takes the acknowledged events out of the journal and returns the
// others. The end of a backend is left to its keeper, who has to give the port
// back first.
func (d *Drone) settle(ctx context.Context) ([]port.Event, error) {
	ctx, cancel := port.WithTimeout(ctx, d.Clock, d.cfg.Timing.DiskCall)
	defer cancel()
	pending, err := d.Journal.Events(ctx)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	byID := make(map[int64]port.Event, len(pending))
	for _, e := range pending {
		byID[e.ID] = e
	}
	acked := d.ackedIDs.TakeAll()
	for i, id := range acked {
		e, ok := byID[id]
		if !ok {
			continue
		}
		k, kept := d.keepers.Get(e.BackendID)
		if kept && e.State.Status == backend.Terminated {
			k.tell(k.endRecorded)
			continue
		}
		_, forgotten, err := d.Journal.Ack(ctx, id)
		if err != nil {
			for _, again := range acked[i:] {
				d.ackedIDs.Put(again)
			}
			return nil, fmt.Errorf("acknowledge event %d: %w", id, err)
		}
		if forgotten && kept {
			k.tell(k.dismiss)
		}
	}
	return pending, nil
}
