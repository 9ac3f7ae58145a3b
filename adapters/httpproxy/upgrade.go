package httpproxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
)

// upgradeWriter gives out, when it is hijacked, an upgradedConn that is closed
// when the use ends.
type upgradeWriter struct {
	http.ResponseWriter
	use context.Context
}

// Unwrap is for http.ResponseController.
func (w upgradeWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Hijack implements http.Hijacker.
func (w upgradeWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buf, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	up := &upgradedConn{Conn: conn, in: conn}
	// The ReverseProxy closes the backend's side alone. Where the backend has
	// closed its half before, that would go unnoticed by a client that is silent.
	up.unhook = context.AfterFunc(w.use, func() { _ = conn.Close() }) // closed already is as good
	if n := buf.Reader.Buffered(); n > 0 {
		early, err := buf.Reader.Peek(n)
		if err != nil {
			return nil, nil, errors.Join(err, conn.Close())
		}
		up.in = io.MultiReader(strings.NewReader(string(early)), conn)
	}
	return up, buf, nil
}

// upgradedConn is the client's side of an upgraded connection. It begins with
// what the server has read behind the request, and it is copied from and to in
// a way that costs little while nothing moves.
type upgradedConn struct {
	net.Conn
	in     io.Reader
	unhook func() bool
}

// Close implements net.Conn.
func (c *upgradedConn) Close() error {
	c.unhook()
	return c.Conn.Close()
}

func (c *upgradedConn) Read(p []byte) (int, error) { return c.in.Read(p) }

// WriteTo implements io.WriterTo, for io.Copy.
func (c *upgradedConn) WriteTo(w io.Writer) (int64, error) { return stream(w, c.in) }

// ReadFrom implements io.ReaderFrom, for io.Copy.
func (c *upgradedConn) ReadFrom(r io.Reader) (int64, error) { return stream(c.Conn, r) }

// CloseWrite passes a half-close on, where the connection knows it.
func (c *upgradedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}

// idleBuffer is what waits for the next bytes of a connection. There are two to
// a connection, and most connections wait most of the time.
const idleBuffer = 1 << 10

// stream copies until the end of r. While little comes it reads into a small
// buffer; one that is filled is followed by a large one, which is given back as
// soon as it is not filled any more.
func stream(w io.Writer, r io.Reader) (written int64, err error) {
	small := make([]byte, idleBuffer)
	for {
		n, err := pass(w, r, small)
		written += int64(n)
		if n == len(small) && err == nil {
			var more int64
			more, err = burst(w, r)
			written += more
		}
		if errors.Is(err, io.EOF) {
			return written, nil
		}
		if err != nil {
			return written, err
		}
	}
}

// burst copies until less comes than the idle buffer takes.
func burst(w io.Writer, r io.Reader) (written int64, err error) {
	large := buffers{}.Get()
	defer buffers{}.Put(large)
	for {
		n, err := pass(w, r, large)
		written += int64(n)
		if err != nil || n <= idleBuffer {
			return written, err
		}
	}
}

// pass reads once and writes what came.
func pass(w io.Writer, r io.Reader, buf []byte) (int, error) {
	n, err := r.Read(buf)
	if n > 0 {
		if _, err := w.Write(buf[:n]); err != nil {
			return 0, err
		}
	}
	return n, err
}

// buffers lends out the buffers through which bodies are copied.
type buffers struct{}

const bufferSize = 32 << 10

var pool = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// Get implements httputil.BufferPool.
func (buffers) Get() []byte { return pool.Get().(*[bufferSize]byte)[:] }

// Put implements httputil.BufferPool.
func (buffers) Put(b []byte) { pool.Put((*[bufferSize]byte)(b)) }
