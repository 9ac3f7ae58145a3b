package httpproxy_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// TestWebSocketOverHTTP2 runs itself in a process of its own: Go looks at the
// setting when the process starts.
func TestWebSocketOverHTTP2(t *testing.T) {
	if !strings.Contains(os.Getenv("GODEBUG"), "http2xconnect=1") {
		cmd := exec.Command(os.Args[0], "-test.run=^TestWebSocketOverHTTP2$", "-test.v")
		cmd.Env = append(os.Environ(), "GODEBUG=http2xconnect=1")
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		require.Contains(t, string(out), "--- PASS: TestWebSocketOverHTTP2/echo")
		return
	}
	t.Run("echo", testStreamEcho)
	t.Run("revocation", testStreamRevoked)
	t.Run("client that does not read", testStreamStuck)
	t.Run("refusals", testStreamRefused)
	t.Run("server that stops", func(t *testing.T) {
		s := startTLS(t, nil)
		c := s.h2(t)
		require.Equal(t, "200", c.open(s.backend("one", echoSocket), "websocket").status)
		s.stop()
	})
}

// answer2 is the head of an answer.
type answer2 struct {
	status string
	fields map[string]string
}

// open asks for a stream and waits for the answer.
func (c *h2) open(tok, protocol string) answer2 {
	c.t.Helper()
	c.header.Reset()
	fields := []string{
		":method", "CONNECT", ":protocol", protocol, ":scheme", "https", ":authority", clusterHost, ":path", "/" + tok + "/ws?x=y",
		"sec-websocket-version", "13", "sec-websocket-protocol", "echo", "x-verified-username", "root",
	}
	for i := 0; i < len(fields); i += 2 {
		require.NoError(c.t, c.hpack.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	c.next()
	require.NoError(c.t, c.frames.WriteHeaders(http2.HeadersFrameParam{StreamID: c.stream, BlockFragment: c.header.Bytes(), EndHeaders: true}))
	got := answer2{fields: map[string]string{}}
	c.until(func(f http2.Frame) bool {
		if reset, ok := f.(*http2.RSTStreamFrame); ok && reset.StreamID == c.stream {
			c.t.Fatalf("the stream is refused: %v", reset.ErrCode)
		}
		head, ok := f.(*http2.HeadersFrame)
		if !ok || head.StreamID != c.stream {
			return false
		}
		all, err := c.decoder.DecodeFull(head.HeaderBlockFragment())
		require.NoError(c.t, err)
		for _, field := range all {
			got.fields[field.Name] = field.Value
		}
		got.status = got.fields[":status"]
		return true
	})
	return got
}

// say sends a text message; its mask is zero.
func (c *h2) say(text string) {
	c.t.Helper()
	message := append([]byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}, text...)
	require.NoError(c.t, c.frames.WriteData(c.stream, false, message))
}

// hears reads as many bytes of the stream as a message takes, and requires that
// it is this one.
func (c *h2) hears(text string) {
	c.t.Helper()
	var got bytes.Buffer
	c.until(func(f http2.Frame) bool {
		if data, ok := f.(*http2.DataFrame); ok {
			got.Write(data.Data())
		}
		return got.Len() >= len(text)+2
	})
	require.Equal(c.t, string([]byte{0x81, byte(len(text))})+text, got.String())
}

// ends waits until the other side has closed the stream.
func (c *h2) ends() {
	c.t.Helper()
	c.until(func(f http2.Frame) bool {
		switch f := f.(type) {
		case *http2.RSTStreamFrame:
			return f.StreamID == c.stream
		case *http2.DataFrame:
			return f.StreamID == c.stream && f.StreamEnded()
		}
		return false
	})
}

func testStreamEcho(t *testing.T) {
	s := startTLS(t, nil)
	seen := make(chan *http.Request, 2)
	gone := make(chan struct{}, 2)
	tok := s.backend("one", func(w http.ResponseWriter, r *http.Request) {
		seen <- r
		echoSocket(w, r)
		gone <- struct{}{}
	})
	c := s.h2(t)
	c.until(func(f http2.Frame) bool {
		settings, ok := f.(*http2.SettingsFrame)
		if ok {
			allowed, _ := settings.Value(http2.SettingEnableConnectProtocol)
			require.EqualValues(t, 1, allowed)
		}
		return ok
	})
	got := c.open(tok, "websocket")
	require.Equal(t, "200", got.status)
	require.Equal(t, "one", got.fields["x-plane-backend-id"])
	require.Equal(t, "echo", got.fields["sec-websocket-protocol"])
	require.Empty(t, got.fields["sec-websocket-accept"])
	c.say("hello")
	c.hears("hello")
	c.say("again")
	c.hears("again")

	r := <-seen
	require.Equal(t, "GET /ws?x=y HTTP/1.1", fmt.Sprint(r.Method, " ", r.RequestURI, " ", r.Proto))
	require.Equal(t, "https", r.Header.Get("X-Forwarded-Proto"))
	require.Empty(t, r.Header["X-Verified-Username"])
	require.Empty(t, r.Header[":protocol"])

	require.NoError(t, c.frames.WriteData(c.stream, true, nil))
	c.ends()
	<-gone
	require.Equal(t, "200", c.open(tok, "websocket").status, "the connection is as good as new")
}

func testStreamRevoked(t *testing.T) {
	s := startTLS(t, nil)
	tok := s.backend("one", echoSocket)
	c := s.h2(t)
	require.Equal(t, "200", c.open(tok, "websocket").status)
	c.say("hello")
	c.hears("hello")
	s.router.revoke(tok)
	c.ends()
}

// The backend sends more than the client takes; when the use ends, that is not
// waited for.
func testStreamStuck(t *testing.T) {
	s := startTLS(t, nil)
	full := make(chan struct{})
	tok := s.backend("one", func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
		conn.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
		for err == nil {
			_, err = conn.Write(make([]byte, 1<<20))
		}
		close(full)
		_, _ = io.Copy(io.Discard, conn)
	})
	c := s.h2(t)
	require.Equal(t, "200", c.open(tok, "websocket").status)
	<-full
	s.router.revoke(tok)
	c.ends()
}

func testStreamRefused(t *testing.T) {
	s := startTLS(t, nil)
	c := s.h2(t)
	require.Equal(t, "501", c.open(s.backend("one", echoSocket), "connect-udp").status)
	require.Equal(t, "410", c.open(token("none"), "websocket").status)
	plain := s.backend("plain", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "no WebSocket here") })
	require.Equal(t, "502", c.open(plain, "websocket").status)
	closed := s.backend("closed", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
	require.Equal(t, "401", c.open(closed, "websocket").status)
}
