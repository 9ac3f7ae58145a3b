package httpproxy

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// takers is a listener whose connections end when their peer takes no byte for
// the time, while there are some for it. http.Server's own WriteTimeout bounds
// the whole answer instead, and knows nothing of upgraded connections.
type takers struct {
	net.Listener
	within time.Duration
}

// Accept implements net.Listener.
func (l takers) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &taker{Conn: c, within: l.within}, nil
}

// looks is how often in that time it is tried whether the peer has taken
// something. The kernel would only tell once a third of a large buffer is free,
// which takes a slow peer longer.
const looks = 8

// taker is a connection of takers. It loses no splice(2): bodies are copied by way
// of buffers anyhow, see ReverseProxy and stream.
type taker struct {
	net.Conn
	within time.Duration

	writing sync.Mutex // held by whoever writes

	mu       sync.Mutex
	deadline time.Time // for writes, as asked for; zero: none
	look     time.Time // when a write is to be interrupted
}

// Write implements net.Conn.
func (c *taker) Write(p []byte) (written int, err error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	now := time.Now()
	taken := now // when something was, last
	for {
		if err := c.arm(now.Add(c.within / looks)); err != nil {
			return written, err
		}
		n, err := c.Conn.Write(p[written:])
		written += n
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return written, err
		}
		now = time.Now()
		if n > 0 {
			taken = now
		}
		if now.Sub(taken) >= c.within || c.late(now) {
			return written, err
		}
	}
}

// arm sets when the write is interrupted.
func (c *taker) arm(look time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.look = look
	return c.apply()
}

// apply gives the earlier one of both times to the connection. Needs the lock.
func (c *taker) apply() error {
	if c.deadline.IsZero() || c.look.Before(c.deadline) {
		return c.Conn.SetWriteDeadline(c.look)
	}
	return c.Conn.SetWriteDeadline(c.deadline)
}

// late reports whether the deadline that was asked for is over.
func (c *taker) late(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.deadline.IsZero() && !now.Before(c.deadline)
}

// SetWriteDeadline implements net.Conn.
func (c *taker) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = t
	return c.apply()
}

// SetDeadline implements net.Conn.
func (c *taker) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// CloseWrite passes a half-close on, where the connection knows it.
func (c *taker) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
