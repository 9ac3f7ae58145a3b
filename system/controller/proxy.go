package controller

import (
	"context"
	"maps"
	"slices"
	"time"

	"plane/system/port"
	"plane/system/protocol"
	"plane/system/queue"
	"plane/system/session"
	"plane/system/watch"
)

// proxySeat is one proxy's session.
type proxySeat struct {
	node
	uses    *inbox[word]
	lookups queue.Queue[string] // tokens that the proxy asked for
	changed watch.Marks         // backends of which there may be news
	news    port.EventCount     // of lookups and changed

	certificates *inbox[protocol.CertManagerRequest]
	allowance    allowance // for certificate requests; belongs to the reader
}

// ServeProxy implements port.ControllerAPI.
func (c *Controller) ServeProxy(ctx context.Context, cluster string, conn port.Conn) error {
	defer conn.Close("session over")
	n, err := c.greet(ctx, port.ProxyNode, cluster, "", conn)
	if err != nil {
		return err
	}
	s := &proxySeat{
		node: n,
		uses: newInbox[word](c.tasks),
		news: c.tasks.EventCount(),

		certificates: newInbox[protocol.CertManagerRequest](c.tasks),
		allowance:    newAllowance(c.clock.Now()),
	}
	defer c.proxies.Join(s)()
	g := c.tasks.Group(ctx)
	g.Go("proxy session", func(ctx context.Context) error {
		return session.Run(ctx, c.clock, c.tasks, conn, s.out, s.receive)
	})
	g.Go("proxy keep-alives", s.recordUses)
	g.Go("proxy routes", s.serveRoutes)
	g.Go("proxy certificates", s.serveCertificates)
	err = g.Wait()
	s.leave(ctx, err)
	return err
}

func (s *proxySeat) receive(_ context.Context, frame []byte) error {
	m, err := protocol.DecodeFromProxy(frame)
	if err != nil {
		s.skip(err)
		return nil
	}
	switch m := m.(type) {
	case protocol.RouteInfoRequest:
		s.lookups.Put(m.Token)
		s.news.Advance()
	case protocol.KeepAlive, protocol.Heartbeat:
		s.uses.put(word{m, s.c.lastStoreTime()})
	case protocol.CertManagerRequest:
		s.takeCertificateRequest(m)
	}
	return nil
}

// word is a KeepAlive or a Heartbeat, and a time of the store's clock from before
// it came in.
type word struct {
	message protocol.FromProxy
	asOf    time.Time
}

// lastStoreTime is what the store's clock showed when it was last read; zero
// before that.
func (c *Controller) lastStoreTime() time.Time {
	if at := c.storeTime.Load(); at != nil {
		return *at
	}
	return time.Time{}
}

// recordUses notes which backends the proxy uses. Order matters: a heartbeat
// says that the keep-alives before it were all, so no call is given up. A
// backend that was among all of them the last time is noted with the next
// heartbeat and not before: the store takes it to be in use until then.
func (s *proxySeat) recordUses(ctx context.Context) error {
	// A 0.5.x proxy sends no heartbeats. What it said in twice the time in which
	// it repeats itself is taken for all that it uses.
	patience := 2 * s.c.cfg.Timing.Heartbeat
	since, speaks, last := map[string]bool{}, false, s.c.clock.Now()
	known := map[string]bool{} // what the last heartbeat said
	for {
		seen := s.uses.arrived.Read()
		batch := s.uses.messages.TakeAll()
		fresh := map[string]bool{}
		for _, w := range batch {
			switch m := w.message.(type) {
			case protocol.KeepAlive:
				since[m.Backend] = true
				if !known[m.Backend] {
					fresh[m.Backend] = true
				}
			case protocol.Heartbeat:
				speaks = true
				if err := s.noteUses(ctx, since, true, w.asOf); err != nil {
					return err
				}
				known, since, fresh = since, map[string]bool{}, map[string]bool{}
			}
		}
		if len(fresh) > 0 {
			if err := s.noteUses(ctx, fresh, false, time.Time{}); err != nil {
				return err
			}
		}
		if !speaks && s.c.clock.Now().Sub(last) >= patience {
			if err := s.noteUses(ctx, since, true, s.c.lastStoreTime()); err != nil {
				return err
			}
			since, last = map[string]bool{}, s.c.clock.Now()
		}
		if len(batch) > 0 {
			continue
		}
		if err := s.c.await(ctx, s.uses.arrived, seen, patience); err != nil {
			return err
		}
	}
}

func (s *proxySeat) noteUses(ctx context.Context, backends map[string]bool, complete bool, asOf time.Time) error {
	u := port.ProxyUse{Proxy: s.id, Backends: slices.Sorted(maps.Keys(backends)), Complete: complete, AsOf: asOf}
	return s.insist(ctx, "noting keep-alives", func(ctx context.Context) error {
		return s.c.store.KeepAlive(ctx, u)
	})
}
