package dns

import (
	"context"
	"errors"
	"fmt"

	"plane/system/inquiry"
	"plane/system/name"
	"plane/system/port"
	"plane/system/protocol"
	"plane/system/session"
)

// serve runs one session.
func (r *Receiver) serve(ctx context.Context, conn port.Conn) error {
	if err := r.handshake(ctx, conn); err != nil {
		return err
	}
	wake(r.table.Connected())
	defer func() { wake(r.table.Disconnected(r.clock.Now())) }()

	out := session.NewOutbox(r.tasks)
	g := r.tasks.Group(ctx)
	g.Go("dns session", func(ctx context.Context) error {
		return session.Run(ctx, r.clock, r.tasks, conn, out, r.receive)
	})
	g.Go("dns questions", func(ctx context.Context) error { return r.feed(ctx, out) })
	return g.Wait()
}

func wake(all []inquiry.Waker) {
	for _, w := range all {
		w.Advance()
	}
}

func (r *Receiver) handshake(ctx context.Context, conn port.Conn) error {
	own := protocol.Handshake{Version: r.cfg.Version, Name: r.cfg.Name}
	if err := session.Send(ctx, r.clock, conn, protocol.EncodeHandshake(own)); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	frame, err := session.First(ctx, r.clock, conn)
	if err != nil {
		return err
	}
	theirs, err := protocol.DecodeHandshake(frame, name.Controller)
	if err != nil {
		return err
	}
	r.log.Info("session with controller", "controller", theirs.Name)
	if theirs.Version != r.cfg.Version {
		r.log.Warn("controller has another version", "controller", theirs.Name,
			"theirs", theirs.Version.Version+"-"+theirs.Version.GitHash, "ours", r.cfg.Version.Version+"-"+r.cfg.Version.GitHash)
	}
	return nil
}

// feed puts questions into the outbox.
func (r *Receiver) feed(ctx context.Context, out *session.Outbox) error {
	for {
		seen := r.work.Read()
		for _, ask := range r.table.TakeAsks(r.clock.Now()) {
			out.Put(protocol.EncodeFromDNS(protocol.TxtRecordRequest{Cluster: ask.Cluster, RequestID: ask.ID}))
		}
		if err := r.work.Await(ctx, seen); err != nil {
			return err
		}
	}
}

// receive takes one message of the controller. One that cannot be read is
// skipped: the rest of the session is not to suffer from it.
func (r *Receiver) receive(_ context.Context, frame []byte) error {
	m, err := protocol.DecodeToDNS(frame)
	switch {
	case errors.Is(err, protocol.ErrUnknownMessage):
		r.log.Debug("skipped a message", "error", err)
		return nil
	case err != nil:
		r.log.Warn("skipped a malformed message of the controller", "error", err)
		return nil
	}
	if m, ok := m.(protocol.TxtRecordResponse); ok {
		result := inquiry.Result{Values: m.Values(), Failed: m.Failed}
		waiting, ask := r.table.Answered(m.Cluster, m.RequestID, result, r.clock.Now())
		wake(waiting)
		if ask {
			r.work.Advance()
		}
	}
	return nil
}
