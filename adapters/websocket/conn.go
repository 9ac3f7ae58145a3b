package websocket

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"plane/system/port"
	"plane/system/protocol"
)

// How a silent peer is told from a quiet one.
const (
	PingEvery  = 10 * time.Second
	PeerSilent = 20 * time.Second
)

// start is what times in heard are counted from; on the monotonic clock.
var start = time.Now()

// heard notes when the peer last showed life, and whether anybody listens.
type heard struct {
	last      atomic.Int64 // time.Duration since start
	receiving atomic.Bool
}

func (h *heard) note() { h.last.Store(int64(time.Since(start))) }

func (h *heard) ping(context.Context, []byte) bool {
	h.note()
	return true
}

func (h *heard) pong(context.Context, []byte) { h.note() }

// silent reports for how long the peer has shown no life although somebody
// listened.
func (h *heard) silent() time.Duration {
	if !h.receiving.Load() {
		return 0
	}
	return time.Since(start) - time.Duration(h.last.Load())
}

type conn struct {
	ws     *websocket.Conn
	heard  *heard
	ctx    context.Context // ends with the session; its cause says why
	cancel context.CancelCauseFunc
	once   sync.Once
}

func newConn(ws *websocket.Conn, h *heard) *conn {
	ws.SetReadLimit(protocol.MaxFrame)
	c := &conn{ws: ws, heard: h}
	c.ctx, c.cancel = context.WithCancelCause(context.Background())
	h.note()
	go c.keep()
	return c
}

// keep pings until the session is over and then closes the network connection,
// which ends a Recv or Send that is under way.
func (c *conn) keep() {
	defer c.ws.CloseNow() //nolint:errcheck // there is nothing left to do with the answer
	tick := time.NewTicker(PingEvery)
	defer tick.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-tick.C:
		}
		// The answer is noted by heard.pong; waiting for it here only spaces
		// the pings.
		ctx, done := context.WithTimeout(c.ctx, PingEvery)
		_ = c.ws.Ping(ctx)
		done()
		if silent := c.heard.silent(); silent >= PeerSilent {
			c.end(fmt.Errorf("%w: peer was silent for %v", port.ErrClosed, silent.Round(time.Second)))
		}
	}
}

func (c *conn) end(why error) { c.once.Do(func() { c.cancel(why) }) }

// over ends the session after a failed call and gives the error to return.
func (c *conn) over(ctx context.Context, call string, err error) error {
	if ctx.Err() != nil {
		cause := context.Cause(ctx)
		c.end(fmt.Errorf("%w: a %s was canceled: %w", port.ErrClosed, call, cause))
		return cause
	}
	c.end(fmt.Errorf("%w: %s: %w", port.ErrClosed, call, err))
	return context.Cause(c.ctx)
}

// Send implements port.Conn.
func (c *conn) Send(ctx context.Context, msg []byte) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx)
	}
	if len(msg) > protocol.MaxFrame {
		return c.over(ctx, "send", fmt.Errorf("message of %d bytes is over the limit of %d", len(msg), protocol.MaxFrame))
	}
	if err := c.write(ctx, msg); err != nil {
		return c.over(ctx, "send", err)
	}
	return nil
}

// fragment is how much of a message goes into one frame. Pings and their
// answers pass between frames, so a long message on a slow network does not look
// like a dead peer.
const fragment = 64 << 10

func (c *conn) write(ctx context.Context, msg []byte) error {
	if len(msg) <= fragment {
		return c.ws.Write(ctx, websocket.MessageText, msg)
	}
	w, err := c.ws.Writer(ctx, websocket.MessageText)
	if err != nil {
		return err
	}
	for part := range slices.Chunk(msg, fragment) {
		if _, err := w.Write(part); err != nil {
			return err
		}
	}
	return w.Close()
}

// Recv implements port.Conn.
func (c *conn) Recv(ctx context.Context) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if c.ctx.Err() != nil {
		return nil, context.Cause(c.ctx)
	}
	c.heard.note() // nothing could be heard while nobody listened
	c.heard.receiving.Store(true)
	defer c.heard.receiving.Store(false)
	kind, r, err := c.ws.Reader(ctx)
	if err != nil {
		return nil, c.over(ctx, "receive", err)
	}
	if kind != websocket.MessageText {
		return nil, c.over(ctx, "receive", fmt.Errorf("peer sent a %v frame, want text", kind))
	}
	var msg bytes.Buffer
	if _, err := io.Copy(&msg, listening{r, c.heard}); err != nil {
		return nil, c.over(ctx, "receive", err)
	}
	return msg.Bytes(), nil
}

// listening notes every part of a long message as a sign of life.
type listening struct {
	r     io.Reader
	heard *heard
}

func (l listening) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	l.heard.note()
	return n, err
}

// Close implements port.Conn.
func (c *conn) Close(reason string) { c.end(fmt.Errorf("%w: %s", port.ErrClosed, reason)) }
