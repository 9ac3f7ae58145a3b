package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"plane/system/name"
	"plane/system/placement"
	"plane/system/port"
	"plane/system/protocol"
	"plane/system/session"
)

// node is what a drone's and a proxy's session have in common.
type node struct {
	c       *Controller
	id      port.NodeID
	cluster string
	name    string
	conn    string // names this connection in the store
	out     *session.Outbox
	log     *slog.Logger
}

// storePause is the wait before a store call of a session is tried again.
const storePause = time.Second

// greet exchanges handshakes and registers the node.
func (c *Controller) greet(ctx context.Context, kind port.NodeKind, cluster, pool string, conn port.Conn) (node, error) {
	prefix := name.Drone
	if kind == port.ProxyNode {
		prefix = name.Proxy
	}
	canonical, err := clusterName(cluster)
	if err != nil {
		return node{}, err
	}
	hello, err := c.welcome(ctx, prefix, conn)
	if err != nil {
		return node{}, err
	}
	log := c.cfg.Log.With(string(kind), hello.Name, "cluster", canonical)
	c.compare(hello.Version, log)
	registration := port.NodeRegistration{Kind: kind, Cluster: canonical, Name: hello.Name, Pool: pool, Controller: c.cfg.Name, Version: hello.Version}
	if kind == port.DroneNode && hello.Capacity != nil {
		registration.Capacity = placement.Capacity(*hello.Capacity)
	}
	n := node{c: c, cluster: canonical, name: hello.Name, conn: name.New(name.Backend, c.rnd), out: session.NewOutbox(c.tasks), log: log}
	err = c.call(ctx, func(ctx context.Context) (err error) {
		registration.Connection = n.conn
		n.id, err = c.store.RegisterNode(ctx, registration)
		return err
	})
	if err != nil {
		return node{}, fmt.Errorf("register %s %s: %w", kind, hello.Name, err)
	}
	log.Info("connected")
	return n, nil
}

// welcome exchanges handshakes.
func (c *Controller) welcome(ctx context.Context, kind name.Kind, conn port.Conn) (protocol.Handshake, error) {
	frame, err := session.First(ctx, c.clock, conn)
	if err != nil {
		return protocol.Handshake{}, err
	}
	hello, err := protocol.DecodeHandshake(frame, kind)
	if err != nil {
		return hello, err
	}
	reply := protocol.EncodeHandshake(protocol.Handshake{Version: c.cfg.Version, Name: c.cfg.Name})
	return hello, session.Send(ctx, c.clock, conn, reply)
}

// compare warns of a peer that runs another version.
func (c *Controller) compare(theirs protocol.Version, log *slog.Logger) {
	if theirs != c.cfg.Version {
		log.Warn("the node runs another version", "version", theirs.Version, "git_hash", theirs.GitHash)
	}
}

// leave tells the store that the connection is over. The store finds out by
// itself should this fail.
func (n *node) leave(ctx context.Context, why error) {
	n.log.Info("disconnected", "reason", why)
	err := n.c.call(ctx, func(ctx context.Context) error { return n.c.store.DisconnectNode(ctx, n.id, n.conn) })
	if err != nil && ctx.Err() == nil {
		n.log.Warn("cannot note the disconnection; the node counts as silent instead", "error", err)
	}
}

// insist repeats a store call until it is clear that it worked, or the session
// is over.
func (n *node) insist(ctx context.Context, what string, fn func(ctx context.Context) error) error {
	for {
		err := n.c.call(ctx, fn)
		if err == nil || ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n.log.Warn(what+" failed; trying again", "error", err)
		if err := n.c.clock.Sleep(ctx, storePause); err != nil {
			return err
		}
	}
}

// attempt makes a store call once: the node itself repeats what matters.
func (n *node) attempt(ctx context.Context, what string, fn func(ctx context.Context) error) error {
	if err := n.c.call(ctx, fn); err != nil && ctx.Err() == nil {
		n.log.Warn(what+" failed; the node will repeat it", "error", err)
	}
	return context.Cause(ctx)
}

// skip decides what becomes of a message that cannot be read: it has no effect,
// and the session goes on.
func (n *node) skip(err error) { skip(n.log, err) }

func skip(log *slog.Logger, err error) {
	if errors.Is(err, protocol.ErrUnknownMessage) {
		log.Debug("skipped a message", "error", err)
		return
	}
	log.Warn("refused a malformed message", "error", err)
}
