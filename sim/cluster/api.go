package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"plane/sim/world"
	"plane/system/backend"
	"plane/system/port"
	"plane/system/protocol"
)

// api is a controller's HTTP surface, carried over message sessions: one
// request and one answer, or a stream of status entries.
type api struct {
	c          *Cluster
	node       world.Node
	controller port.ControllerAPI
}

// call is a request to a controller.
type call struct {
	Connect   *protocol.ConnectRequest `json:"connect,omitempty"`
	Terminate *terminateCall           `json:"terminate,omitempty"`
	Revoke    *protocol.RevokeRequest  `json:"revoke,omitempty"`
	Drain     string                   `json:"drain,omitempty"`
	Stream    *streamCall              `json:"stream,omitempty"`
}

type terminateCall struct {
	Backend string       `json:"backend"`
	Kind    backend.Kind `json:"kind"`
}

type streamCall struct {
	Backend string         `json:"backend"`
	After   backend.Status `json:"after,omitempty"`
}

// reply is an answer; Error is set when there is none.
type reply struct {
	Connect *protocol.ConnectResponse `json:"connect,omitempty"`
	Entry   *protocol.StatusEntry     `json:"entry,omitempty"`
	End     bool                      `json:"end,omitempty"` // of a stream: the backend has terminated
	Error   *protocol.APIError        `json:"error,omitempty"`
}

func (a api) serve(ctx context.Context, path string, conn port.Conn) {
	switch path {
	case "/drone":
		_ = a.controller.ServeDrone(ctx, Name, "", conn) // its log has the reason
	case "/proxy":
		_ = a.controller.ServeProxy(ctx, Name, conn)
	case "/dns":
		_ = a.controller.ServeDNS(ctx, conn)
	case "/api":
		defer conn.Close("answered")
		if err := a.answer(ctx, conn); err != nil && ctx.Err() == nil && !errors.Is(err, port.ErrClosed) {
			panic(fmt.Sprintf("cluster: api: %v", err))
		}
	default:
		panic("cluster: no such path: " + path)
	}
}

func (a api) answer(ctx context.Context, conn port.Conn) error {
	frame, err := conn.Recv(ctx)
	if err != nil {
		return err
	}
	var req call
	if err := json.Unmarshal(frame, &req); err != nil {
		return err
	}
	if req.Stream != nil {
		return a.stream(ctx, conn, *req.Stream)
	}
	var r reply
	switch {
	case req.Connect != nil:
		var res protocol.ConnectResponse
		if res, err = a.controller.Connect(ctx, *req.Connect); err == nil {
			r.Connect = &res
		}
	case req.Terminate != nil:
		err = a.controller.Terminate(ctx, req.Terminate.Backend, req.Terminate.Kind)
	case req.Revoke != nil:
		err = a.controller.Revoke(ctx, *req.Revoke)
	case req.Drain != "":
		_, err = a.controller.Drain(ctx, Name, req.Drain)
	}
	if err != nil {
		r = reply{Error: a.apiError(err)}
	}
	return send(ctx, conn, r)
}

// apiError is the error as HTTP would carry it.
func (a api) apiError(err error) *protocol.APIError {
	if e, ok := errors.AsType[*protocol.APIError](err); ok {
		return e
	}
	return &protocol.APIError{Kind: protocol.Other, Message: err.Error()}
}

func (a api) stream(ctx context.Context, conn port.Conn, req streamCall) error {
	g := a.node.Tasks().Group(ctx)
	over := errors.New("over")
	g.Go("stream", func(ctx context.Context) error {
		err := a.controller.StatusStream(ctx, req.Backend, req.After,
			func(e protocol.StatusEntry) error { return send(ctx, conn, reply{Entry: &e}) },
			func() error { return nil })
		if err == nil {
			err = send(ctx, conn, reply{End: true})
		} else if ctx.Err() == nil && !errors.Is(err, port.ErrClosed) {
			err = send(ctx, conn, reply{Error: a.apiError(err)})
		}
		return errors.Join(err, over)
	})
	g.Go("client", func(ctx context.Context) error {
		_, err := conn.Recv(ctx)
		return err
	})
	if err := g.Wait(); err != nil && !errors.Is(err, over) {
		return err
	}
	return nil
}

func send(ctx context.Context, conn port.Conn, r reply) error {
	frame, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return conn.Send(ctx, frame)
}

// ask sends one request to an address and returns the answer. Any error means
// that it is unclear what became of it.
func (c *Cluster) ask(ctx context.Context, address string, req call) (reply, error) {
	ctx, cancel := port.WithTimeout(ctx, c.clients.Clock(), askTimeout)
	defer cancel()
	conn, err := c.Network.Dial(ctx, c.clients, "m-clients", address, "/api")
	if err != nil {
		return reply{}, err
	}
	defer conn.Close("done")
	frame, err := json.Marshal(req)
	if err != nil {
		return reply{}, err
	}
	if err := conn.Send(ctx, frame); err != nil {
		return reply{}, err
	}
	return recv(ctx, conn)
}

func recv(ctx context.Context, conn port.Conn) (reply, error) {
	frame, err := conn.Recv(ctx)
	if err != nil {
		return reply{}, err
	}
	var r reply
	if err := json.Unmarshal(frame, &r); err != nil {
		return reply{}, fmt.Errorf("answer %s: %w", strings.ToValidUTF8(string(frame), "?"), err)
	}
	return r, nil
}
