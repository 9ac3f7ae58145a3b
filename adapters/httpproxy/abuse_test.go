package httpproxy_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

func impatient(k *knobs) {
	k.server.Limits.Header = 50 * time.Millisecond
	k.server.Limits.Idle = 50 * time.Millisecond
}

func TestSlowClientsAreCutOff(t *testing.T) {
	s := startTLS(t, impatient)
	config := s.trust()
	config.NextProtos = []string{"h2"}
	for name, begin := range map[string]func() net.Conn{
		"silence": func() net.Conn {
			conn, err := net.Dial("tcp", s.address)
			require.NoError(t, err)
			return conn
		},
		"half a handshake": func() net.Conn {
			conn, err := net.Dial("tcp", s.address)
			require.NoError(t, err)
			_, err = conn.Write([]byte{22, 3, 1, 2, 0, 1})
			require.NoError(t, err)
			return conn
		},
		"no request": func() net.Conn { return s.dial(s.trust()) },
		"half a header": func() net.Conn {
			conn := s.dial(s.trust())
			fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: c.te")
			return conn
		},
		"no second request": func() net.Conn {
			conn := s.dial(s.trust())
			fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: c.test\r\n\r\n")
			return conn
		},
		"HTTP/2 without a request": func() net.Conn {
			conn := s.dial(config)
			fmt.Fprint(conn, http2.ClientPreface)
			require.NoError(t, http2.NewFramer(conn, conn).WriteSettings())
			return conn
		},
		"HTTP/2 with half a header": func() net.Conn {
			conn := s.dial(config)
			fmt.Fprint(conn, http2.ClientPreface)
			f := http2.NewFramer(conn, conn)
			require.NoError(t, f.WriteSettings())
			require.NoError(t, f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}}))
			return conn
		},
	} {
		t.Run(name, func(t *testing.T) {
			conn := begin()
			defer conn.Close()
			closed(t, conn)
		})
	}
}

func TestSlowBodiesAreNotCutOff(t *testing.T) {
	s := startTLS(t, impatient)
	first := make(chan struct{})
	tok := s.backend("one", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadFull(r.Body, make([]byte, 1))
		close(first)
		rest, _ := io.ReadAll(r.Body)
		fmt.Fprint(w, len(rest))
	})
	for _, http2 := range []bool{false, true} {
		first = make(chan struct{})
		body, feed := io.Pipe()
		go func() {
			fmt.Fprint(feed, "a")
			<-first
			<-time.After(200 * time.Millisecond) // four times what a header may take
			fmt.Fprint(feed, "bc")
			feed.Close()
		}()
		res, err := s.client(http2).Post(s.url(tok, "/"), "", body)
		require.NoError(t, err)
		answer, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		require.Equal(t, "2", string(answer))
	}
}

// h2 is a client that says what it likes.
type h2 struct {
	t      *testing.T
	conn   *tls.Conn
	frames *http2.Framer
	header bytes.Buffer
	hpack  *hpack.Encoder
	stream uint32

	decoder *hpack.Decoder
	scheme  string
}

func (s *secure) h2(t *testing.T) *h2 {
	t.Helper()
	config := s.trust()
	config.NextProtos = []string{"h2"}
	c := &h2{t: t, conn: s.dial(config), scheme: "https"}
	c.frames = http2.NewFramer(c.conn, c.conn)
	c.hpack = hpack.NewEncoder(&c.header)
	c.decoder = hpack.NewDecoder(4096, nil)
	fmt.Fprint(c.conn, http2.ClientPreface)
	require.NoError(t, c.frames.WriteSettings())
	return c
}

// next chooses the next stream; those of clients are odd.
func (c *h2) next() { c.stream += 1 + c.stream%2 }

// request begins a request; more are headers beside the usual ones.
func (c *h2) request(path string, more ...string) error {
	c.header.Reset()
	fields := append([]string{":method", "GET", ":scheme", c.scheme, ":authority", clusterHost, ":path", path}, more...)
	for i := 0; i < len(fields); i += 2 {
		if err := c.hpack.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
			return err
		}
	}
	c.next()
	block := c.header.Bytes()
	first := block[:min(len(block), 16<<10)]
	rest := block[len(first):]
	param := http2.HeadersFrameParam{StreamID: c.stream, BlockFragment: first, EndStream: true, EndHeaders: len(rest) == 0}
	if err := c.frames.WriteHeaders(param); err != nil {
		return err
	}
	for len(rest) > 0 {
		n := min(len(rest), 16<<10)
		if err := c.frames.WriteContinuation(c.stream, len(rest) == n, rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	return nil
}

// until reads frames until one is what is looked for.
func (c *h2) until(want func(http2.Frame) bool) {
	c.t.Helper()
	require.NoError(c.t, c.conn.SetReadDeadline(time.Now().Add(30*time.Second)))
	for {
		frame, err := c.frames.ReadFrame()
		require.NoError(c.t, err)
		if want(frame) {
			return
		}
	}
}

func TestRapidResetClosesTheConnectionAndHarmsNobodyElse(t *testing.T) {
	s := startTLS(t, func(k *knobs) { k.server.Limits.Resets, k.server.Limits.ResetsPerSecond = 100, 1 })
	tok := s.backend("one", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })
	other := s.client(true)
	fetch(t, other, s.url(tok, "/"))
	abuser := s.h2(t)
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, abuser.conn)
		ended <- err
	}()
	var err error
	for n := 0; err == nil; n++ {
		require.Less(t, n, 1_000_000, "it is never cut off")
		if err = abuser.request("/" + tok + "/"); err == nil {
			err = abuser.frames.WriteRSTStream(abuser.stream, http2.ErrCodeCancel)
		}
	}
	<-ended
	_, body := fetch(t, other, s.url(tok, "/"))
	require.Equal(t, "hello", body)
	require.Contains(t, s.log.String(), "cancels too many requests")
}

func TestAFewCancelledRequestsAreFine(t *testing.T) {
	s := startTLS(t, func(k *knobs) { k.server.Limits.Resets, k.server.Limits.ResetsPerSecond = 20, 0 })
	reached := make(chan struct{})
	gone := make(chan struct{})
	tok := s.backend("one", func(_ http.ResponseWriter, r *http.Request) {
		reached <- struct{}{}
		<-r.Context().Done()
		gone <- struct{}{}
	})
	c := s.h2(t)
	for range 20 {
		require.NoError(t, c.request("/"+tok+"/"))
		<-reached
		require.NoError(t, c.frames.WriteRSTStream(c.stream, http2.ErrCodeCancel))
		<-gone
	}
	require.NoError(t, c.request("/ready"))
	c.until(func(f http2.Frame) bool {
		return f.Header().Type == http2.FrameHeaders && f.Header().StreamID == c.stream
	})
}

// The scheme is what the client says, and it may say what it likes.
func TestWhatTheClientCallsTheSchemeDoesNotCount(t *testing.T) {
	s := startTLS(t, nil)
	seen := make(chan string, 1)
	tok := s.backend("one", func(_ http.ResponseWriter, r *http.Request) { seen <- r.Header.Get("X-Forwarded-Proto") })
	c := s.h2(t)
	c.scheme = "http"
	require.NoError(t, c.request("/"+tok+"/"))
	require.Equal(t, "https", <-seen)
}

func TestStreamsOfAConnectionAreLimited(t *testing.T) {
	s := startTLS(t, func(k *knobs) { k.server.Limits.Streams = 10 })
	tok := s.backend("one", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	c := s.h2(t)
	c.until(func(f http2.Frame) bool {
		settings, ok := f.(*http2.SettingsFrame)
		if !ok {
			return false
		}
		streams, ok := settings.Value(http2.SettingMaxConcurrentStreams)
		require.True(t, ok)
		require.EqualValues(t, 10, streams)
		return true
	})
	require.NoError(t, c.frames.WriteSettingsAck())
	for range 11 {
		require.NoError(t, c.request("/"+tok+"/"))
	}
	c.until(func(f http2.Frame) bool {
		reset, ok := f.(*http2.RSTStreamFrame)
		if ok {
			require.Equal(t, c.stream, reset.StreamID)
			require.Equal(t, http2.ErrCodeProtocol, reset.ErrCode, "it has seen the limit")
		}
		return ok
	})
}

func TestHeadersTooLargeOverHTTP2(t *testing.T) {
	s := startTLS(t, nil)
	tok := s.backend("one", func(http.ResponseWriter, *http.Request) { t.Error("reached") })
	c := s.h2(t)
	if c.request("/"+tok+"/", "x-big", strings.Repeat("x", 2*64<<10)) != nil {
		return // cut off before it had sent it all
	}
	refused := func(f http2.Frame) bool {
		switch f := f.(type) {
		case *http2.HeadersFrame:
			fields, err := c.decoder.DecodeFull(f.HeaderBlockFragment())
			require.NoError(t, err)
			require.Equal(t, "431", fields[0].Value)
			return true
		case *http2.GoAwayFrame:
			require.NotEqual(t, http2.ErrCodeNo, f.ErrCode)
			return true
		}
		return false
	}
	c.until(refused)
}
