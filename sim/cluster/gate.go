package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"plane/sim/fake"
	"plane/sim/world"
	"plane/system/port"
	"plane/system/protocol"
)

// gate stands where a proxy's HTTP server stands: it asks the Router where a
// request goes, opens the use, and takes it to whatever container has the
// address by the time it gets there.
type gate struct {
	c      *Cluster
	p      *process
	node   world.Node
	router port.Router
}

// request is what a client sends to a proxy.
type request struct {
	Token    string `json:"token"`
	Upgraded bool   `json:"upgraded"`
}

// The outcomes of a request, as HTTP statuses.
const (
	switched    = 101
	passed      = 200
	gone        = 410
	unreachable = 502
	unavailable = 503
)

var errClientGone = errors.New("the client is gone")

func (g gate) serve(ctx context.Context, _ string, conn port.Conn) {
	defer conn.Close("over")
	frame, err := conn.Recv(ctx)
	if err != nil {
		return
	}
	var req request
	if err := json.Unmarshal(frame, &req); err != nil {
		panic("cluster: " + err.Error())
	}
	over := errors.New("over")
	group := g.node.Tasks().Group(ctx)
	group.Go("request", func(ctx context.Context) error {
		if status := g.lead(ctx, conn, req); ctx.Err() == nil {
			_ = sendStatus(ctx, conn, status) // a client that is gone needs no answer
		}
		return over
	})
	group.Go("client", func(ctx context.Context) error {
		if _, err := conn.Recv(ctx); err != nil {
			return errors.Join(errClientGone, err)
		}
		return nil
	})
	_ = group.Wait()
}

func sendStatus(ctx context.Context, conn port.Conn, status int) error {
	frame, err := json.Marshal(status)
	if err != nil {
		return err
	}
	return conn.Send(ctx, frame)
}

// lead takes one request through and returns how it ended.
func (g gate) lead(ctx context.Context, conn port.Conn, req request) int {
	info, err := g.router.Route(ctx, req.Token)
	if err != nil {
		return statusOf(err)
	}
	use, done, err := g.router.Open(ctx, req.Token, info, req.Upgraded)
	if err != nil {
		return statusOf(err)
	}
	defer done()
	g.c.Lock()
	sent, travel := g.c.Now(), g.c.load.Soon(200*time.Microsecond, time.Second)
	g.c.Unlock()
	if g.node.Sleep(use, travel) != nil {
		return gone
	}
	target, status := g.arrive(req, info, sent)
	if target == nil || !req.Upgraded {
		return status
	}
	if err := sendStatus(use, conn, switched); err != nil {
		return unreachable
	}
	g.hold(ctx, use, req, target)
	return gone
}

func statusOf(err error) int {
	if errors.Is(err, port.ErrNotFound) {
		return gone
	}
	return unavailable
}

// arrive is the moment in which the request meets what has the address.
func (g gate) arrive(req request, info protocol.RouteInfo, sent time.Time) (*fake.Container, int) {
	g.node.Enter()
	g.c.Lock()
	defer g.c.Unlock()
	target := g.c.at(info.Address)
	if target == nil || !g.c.Network.Connected(g.p.machine, target.Machine.Name) {
		return nil, unreachable
	}
	if token := g.c.Book.Token(req.Token); token != nil {
		g.c.Book.Arrive(token, g.p.name, target, sent, g.p.soundSince)
	}
	if !req.Upgraded {
		g.c.Book.Used(target)
	}
	return target, passed
}

// hold keeps an upgraded connection open until one of its ends, or Plane,
// closes it.
func (g gate) hold(ctx, use context.Context, req request, target *fake.Container) {
	ended := g.node.Tasks().EventCount()
	g.c.Lock()
	token := g.c.Book.Token(req.Token)
	if token == nil || !target.Running {
		g.c.Unlock()
		return
	}
	u := g.c.Book.Open(token, g.p.name, target, ended)
	g.c.Unlock()

	err := ended.Await(use, 0)
	g.node.Enter()
	g.c.Lock()
	defer g.c.Unlock()
	g.c.Book.Closed(u, err != nil && ctx.Err() == nil)
}

// at returns what runs and listens at an address, or nil.
func (c *Cluster) at(address string) *fake.Container {
	for _, m := range c.machines {
		if !m.Up() {
			continue
		}
		for _, container := range m.Running() {
			if container.Address == address {
				return container
			}
		}
	}
	return nil
}
