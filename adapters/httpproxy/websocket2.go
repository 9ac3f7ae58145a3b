package httpproxy

import (
	"bufio"
	"crypto/rand"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// A WebSocket in a stream of HTTP/2 (RFC 8441) goes on to its backend as an
// upgraded connection of HTTP/1.1, the only kind that backends have to know. Go
// lets clients open them only when the process was started with
// GODEBUG=http2xconnect=1.

// opensStream reports whether a request of HTTP/2 asks for a stream of another
// protocol, and for which.
func opensStream(r *http.Request) (protocol string, ok bool) {
	if r.Method != http.MethodConnect || r.ProtoMajor != 2 || len(r.Header[":protocol"]) != 1 {
		return "", false
	}
	return r.Header[":protocol"][0], true
}

// serveStream serves such a request.
func (h *Handler) serveStream(w http.ResponseWriter, r *http.Request, protocol string) {
	if !strings.EqualFold(protocol, "websocket") {
		h.refuse(w, r, http.StatusNotImplemented, "Only WebSockets can be opened in a stream.")
		return
	}
	s := &stream2{w: w, control: http.NewResponseController(w), body: r.Body, client: addr(r.RemoteAddr)}
	defer s.finish()
	h.serve(s, asUpgrade(r))
}

// asUpgrade is what a client of HTTP/1.1 would have sent.
func asUpgrade(r *http.Request) *http.Request {
	key := make([]byte, 16)
	rand.Read(key) //nolint:errcheck // it never fails
	up := r.WithContext(r.Context())
	up.Method, up.Proto, up.ProtoMajor, up.ProtoMinor = http.MethodGet, "HTTP/1.1", 1, 1
	up.Body, up.ContentLength = http.NoBody, 0
	up.Header = r.Header.Clone()
	delete(up.Header, ":protocol")
	up.Header["Connection"] = []string{"Upgrade"}
	up.Header["Upgrade"] = []string{"websocket"}
	up.Header["Sec-Websocket-Key"] = []string{base64.StdEncoding.EncodeToString(key)}
	return up
}

// stream2 is the client's side: a ResponseWriter that can be hijacked, and then
// a connection. Nothing may touch the stream once its handler has returned, so
// finish waits for all who do.
type stream2 struct {
	w       http.ResponseWriter
	control *http.ResponseController
	body    io.ReadCloser
	client  addr

	mu      sync.Mutex
	closed  bool
	writing bool
	calls   sync.WaitGroup
}

// Header implements http.ResponseWriter.
func (s *stream2) Header() http.Header { return s.w.Header() }

// WriteHeader implements http.ResponseWriter, for an answer that is no upgrade:
// one that would seem to open the WebSocket is a mistake of the backend.
func (s *stream2) WriteHeader(code int) {
	if code >= 200 && code < 300 {
		code = http.StatusBadGateway
	}
	s.w.WriteHeader(code)
}

// Write implements http.ResponseWriter, and net.Conn once it is hijacked.
func (s *stream2) Write(p []byte) (int, error) {
	if !s.enter(true) {
		return 0, net.ErrClosed
	}
	defer s.leave(true)
	n, err := s.w.Write(p)
	if err == nil {
		err = s.control.Flush()
	}
	return n, err
}

// Hijack implements http.Hijacker. What is written to the writer that it
// returns is the head of an answer of HTTP/1.1; its headers are in Header by
// then.
func (s *stream2) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return conn2{s}, bufio.NewReadWriter(bufio.NewReader(conn2{s}), bufio.NewWriter(&head2{stream: s})), nil
}

// enter reports whether the stream may still be used; leave ends that use.
func (s *stream2) enter(writes bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.writing = s.writing || writes
	s.calls.Add(1)
	return true
}

func (s *stream2) leave(writes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if writes {
		s.writing = false
	}
	s.calls.Done()
}

// close ends all uses, also those that wait for the client.
func (s *stream2) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if s.writing { // the client does not take what it is sent
		if err := s.control.SetWriteDeadline(time.Unix(1, 0)); err != nil {
			return err
		}
	}
	return s.body.Close()
}

func (s *stream2) finish() {
	_ = s.close() // it has ended, one way or the other
	s.calls.Wait()
}

// head2 takes the head of the answer that accepts the upgrade, and accepts the
// stream.
type head2 struct {
	stream   *stream2
	accepted bool
}

func (h *head2) Write(p []byte) (int, error) {
	if h.accepted {
		return len(p), nil
	}
	h.accepted = true
	s := h.stream
	if !s.enter(true) {
		return 0, net.ErrClosed
	}
	defer s.leave(true)
	for _, key := range []string{"Connection", "Upgrade", "Sec-Websocket-Accept"} {
		s.w.Header().Del(key)
	}
	s.w.WriteHeader(http.StatusOK)
	return len(p), s.control.Flush()
}

// conn2 is the stream as a connection.
type conn2 struct{ *stream2 }

func (c conn2) Read(p []byte) (int, error) {
	if !c.enter(false) {
		return 0, net.ErrClosed
	}
	defer c.leave(false)
	return c.body.Read(p)
}

func (c conn2) Close() error                       { return c.close() }
func (c conn2) LocalAddr() net.Addr                { return addr("") }
func (c conn2) RemoteAddr() net.Addr               { return c.client }
func (c conn2) SetDeadline(time.Time) error        { return http.ErrNotSupported }
func (c conn2) SetReadDeadline(t time.Time) error  { return c.control.SetReadDeadline(t) }
func (c conn2) SetWriteDeadline(t time.Time) error { return c.control.SetWriteDeadline(t) }

// addr is an address that is known as text.
type addr string

func (a addr) Network() string { return "tcp" }
func (a addr) String() string  { return string(a) }
