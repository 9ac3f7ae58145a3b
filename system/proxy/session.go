package proxy

import (
	"context"
	"errors"
	"fmt"

	"plane/system/name"
	"plane/system/port"
	"plane/system/protocol"
	"plane/system/route"
	"plane/system/session"
)

// serve runs one session.
func (p *Proxy) serve(ctx context.Context, conn port.Conn) error {
	controller, err := p.handshake(ctx, conn)
	if err != nil {
		return err
	}
	p.table.Connected()
	defer func() { p.table.Disconnected(p.clock.Now()).Do() }()
	p.desk.Connected(controller.Before06())
	defer p.desk.Disconnected()
	p.told.Advance()

	out := session.NewOutbox(p.tasks)
	g := p.tasks.Group(ctx)
	g.Go("proxy session", func(ctx context.Context) error {
		return session.Run(ctx, p.clock, p.tasks, conn, out, p.receive)
	})
	g.Go("proxy heartbeats and questions", func(ctx context.Context) error { return p.feed(ctx, out) })
	return g.Wait()
}

// handshake returns the controller's version.
func (p *Proxy) handshake(ctx context.Context, conn port.Conn) (protocol.Version, error) {
	own := protocol.Handshake{Version: p.cfg.Version, Name: p.cfg.Name}
	if err := session.Send(ctx, p.clock, conn, protocol.EncodeHandshake(own)); err != nil {
		return protocol.Version{}, fmt.Errorf("handshake: %w", err)
	}
	frame, err := session.First(ctx, p.clock, conn)
	if err != nil {
		return protocol.Version{}, err
	}
	theirs, err := protocol.DecodeHandshake(frame, name.Controller)
	if err != nil {
		return protocol.Version{}, err
	}
	p.log.Info("session with controller", "controller", theirs.Name)
	if theirs.Version != p.cfg.Version {
		p.log.Warn("controller has another version", "controller", theirs.Name,
			"theirs", theirs.Version.Version+"-"+theirs.Version.GitHash, "ours", p.cfg.Version.Version+"-"+p.cfg.Version.GitHash)
	}
	return theirs.Version, nil
}

// feed puts heartbeats, keep-alives and questions into the outbox. A heartbeat
// comes right after a keep-alive for every backend in use, so that the
// controller knows that these are all; the first comes at once. In between, a
// backend that comes into use is told at once, and so are challenges.
func (p *Proxy) feed(ctx context.Context, out *session.Outbox) error {
	put := func(m protocol.FromProxy) { out.Put(protocol.EncodeFromProxy(m)) }
	beat := p.clock.Now()
	for {
		seen := p.work.Read()
		now := p.clock.Now()
		if !now.Before(beat) {
			for _, b := range p.table.Used(now) {
				put(protocol.KeepAlive{Backend: b})
			}
			put(protocol.Heartbeat{LocalTime: protocol.Millis{Time: now}})
			beat = now.Add(p.cfg.Routes.UseFor)
		}
		for _, b := range p.table.TakeFresh() {
			put(protocol.KeepAlive{Backend: b})
		}
		for _, token := range p.table.TakeAsks(now) {
			put(protocol.RouteInfoRequest{Token: token})
		}
		again, err := p.feedChallenges(now, put)
		if err != nil {
			return err
		}
		if again.IsZero() || beat.Before(again) {
			again = beat
		}
		waiting, cancel := p.clock.WithDeadline(ctx, again)
		err = p.work.Await(waiting, seen)
		cancel()
		if err != nil && ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// receive takes one message of the controller. One that cannot be read is
// skipped: the rest of the session is not to suffer from it.
func (p *Proxy) receive(_ context.Context, frame []byte) error {
	m, err := protocol.DecodeToProxy(frame)
	switch {
	case errors.Is(err, protocol.ErrUnknownMessage):
		p.log.Debug("skipped a message", "error", err)
		return nil
	case err != nil:
		p.log.Warn("skipped a malformed message of the controller", "error", err)
		return nil
	}
	switch m := m.(type) {
	case protocol.RouteInfoResponse:
		effects := p.table.Answered(m.Token, (*route.Route)(m.RouteInfo), p.clock.Now())
		effects.Do()
		if effects.Ask {
			p.work.Advance()
		}
	case protocol.CertManagerResponse:
		p.takeAnswer(m)
	case protocol.BackendRemoved:
		p.log.Debug("backend removed", "backend", m.Backend)
		p.table.Removed(m.Backend)
	case protocol.TokenRevoked:
		p.log.Info("token revoked", "backend", m.Backend)
		p.table.Revoked(m.Backend, m.User).Do()
	}
	return nil
}
