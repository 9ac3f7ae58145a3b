package httpproxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"

	"plane/adapters/httpproxy"
)

// endless writes until nobody takes it any more.
func endless(w io.Writer) {
	for chunk := make([]byte, 32<<10); ; {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

// Each keeps a connection to a backend, and what waits for it in buffers.
func TestAClientThatTakesNothingIsCutOff(t *testing.T) {
	s := startTLS(t, func(k *knobs) { k.server.Limits.Write = 100 * time.Millisecond })
	ended := make(chan struct{})
	plain := s.backend("plain", func(w http.ResponseWriter, _ *http.Request) {
		endless(w)
		ended <- struct{}{}
	})
	upgraded := s.upgraded(func(conn *net.TCPConn, _ io.Reader) {
		endless(conn)
		ended <- struct{}{}
	})
	for name, begin := range map[string]func() net.Conn{
		"HTTP/1.1": func() net.Conn {
			conn := s.dial(s.trust())
			fmt.Fprintf(conn, "GET /%s/ HTTP/1.1\r\nHost: %s\r\n\r\n", plain, clusterHost)
			return conn
		},
		"HTTP/2": func() net.Conn {
			c := s.h2(t)
			require.NoError(t, c.frames.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1}))
			require.NoError(t, c.frames.WriteWindowUpdate(0, 1<<30))
			require.NoError(t, c.request("/"+plain+"/"))
			return c.conn
		},
		"upgraded": func() net.Conn {
			conn := s.dial(s.trust())
			fmt.Fprintf(conn, upgradeHead, upgraded, clusterHost)
			return conn
		},
	} {
		t.Run(name, func(t *testing.T) {
			conn := begin()
			defer conn.Close()
			select {
			case <-ended:
			case <-time.After(30 * time.Second):
				require.Fail(t, "the backend is still busy with a client that takes nothing")
			}
			closed(t, conn)
		})
	}
}

// pipes is a listener whose connections have no buffer at all.
type pipes struct {
	accepted chan net.Conn
	over     chan struct{}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.accepted:
		return c, nil
	case <-p.over:
		return nil, net.ErrClosed
	}
}

func (p pipes) Close() error {
	close(p.over)
	return nil
}

func (pipes) Addr() net.Addr { return &net.TCPAddr{} }

// download runs a test in a bubble, with a client that has just asked for more
// than it can take.
func download(t *testing.T, test func(in *bufio.Reader, ended <-chan struct{})) {
	synctest.Test(t, func(t *testing.T) {
		listener := pipes{make(chan net.Conn), make(chan struct{})}
		ended := make(chan struct{})
		server := httpproxy.Server{
			Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				defer close(ended)
				endless(w)
			}),
			Limits: httpproxy.DefaultLimits(), Log: slog.New(slog.DiscardHandler),
		}
		ctx, cancel := context.WithCancel(t.Context())
		stopped := make(chan error)
		go func() { stopped <- server.Serve(ctx, listener) }()
		client, accepted := net.Pipe()
		listener.accepted <- accepted
		fmt.Fprint(client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		test(bufio.NewReaderSize(client, 16), ended)
		client.Close()
		cancel()
		require.NoError(t, <-stopped)
	})
}

func TestATakersTimeBeginsWithEachByte(t *testing.T) {
	download(t, func(in *bufio.Reader, ended <-chan struct{}) {
		began := time.Now()
		for range 100 { // 16 bytes at a time, where 4 KB are written at once
			time.Sleep(50 * time.Second) //nolint:forbidigo // the time of the bubble
			_, err := in.Discard(16)
			require.NoError(t, err)
		}
		select {
		case <-ended:
			require.Fail(t, "a slow client is cut off")
		default:
		}
		require.Equal(t, 5000*time.Second, time.Since(began))
		<-ended
		require.InDelta(t, 5060, time.Since(began).Seconds(), 8)
	})
}

func TestAClientThatTakesNothingIsCutOffInTime(t *testing.T) {
	download(t, func(_ *bufio.Reader, ended <-chan struct{}) {
		began := time.Now()
		<-ended
		require.Equal(t, httpproxy.DefaultLimits().Write, time.Since(began))
	})
}
