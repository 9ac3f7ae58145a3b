package httpproxy_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

func TestStreamsBothWaysAtTheSameTime(t *testing.T) {
	p := start(t, nil)
	tok := p.backend("one", func(w http.ResponseWriter, r *http.Request) {
		both := http.NewResponseController(w)
		_ = both.EnableFullDuplex()
		_ = both.Flush()
		lines := bufio.NewScanner(r.Body)
		for lines.Scan() {
			fmt.Fprintf(w, "echo %s\n", lines.Text())
			_ = both.Flush()
		}
	})
	body, feed := io.Pipe()
	req, err := http.NewRequest(http.MethodPost, p.url(tok, "/"), body)
	require.NoError(t, err)
	res, err := client.Do(req)
	require.NoError(t, err)
	defer res.Body.Close()
	answers := bufio.NewScanner(res.Body)
	for i := range 3 {
		fmt.Fprintf(feed, "%d\n", i)
		require.True(t, answers.Scan())
		require.Equal(t, fmt.Sprintf("echo %d", i), answers.Text())
	}
	require.NoError(t, feed.Close())
	require.False(t, answers.Scan())
}

func TestAnswersAreNotHeldBack(t *testing.T) {
	for name, header := range map[string]http.Header{
		"server-sent events": {"Content-Type": {"text/event-stream"}},
		"chunks":             {},
		"known length":       {"Content-Length": {"12"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, nil)
			next := make(chan struct{})
			tok := p.backend("one", func(w http.ResponseWriter, _ *http.Request) {
				for key, values := range header {
					w.Header()[key] = values
				}
				for range 2 {
					fmt.Fprint(w, "data\n\n")
					_ = http.NewResponseController(w).Flush()
					<-next // the client has it before there is more
				}
			})
			res, err := client.Get(p.url(tok, "/"))
			require.NoError(t, err)
			defer res.Body.Close()
			for range 2 {
				_, err = io.ReadFull(res.Body, make([]byte, 6))
				require.NoError(t, err)
				next <- struct{}{}
			}
		})
	}
}

func TestTrailersBothWays(t *testing.T) {
	p := start(t, nil)
	seen := make(chan http.Header, 1)
	tok := p.backend("one", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		seen <- r.Trailer
		w.Header().Set("Trailer", "X-Sum")
		fmt.Fprint(w, "body")
		w.Header().Set("X-Sum", "7")
	})
	conn := p.raw("POST /%s/ HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: chunked\r\nTrailer: X-Count, X-Verified-Username\r\n\r\n"+
		"1\r\na\r\n0\r\nX-Count: 1\r\nX-Verified-Username: root\r\nX_Verified_Secret: root\r\n\r\n", tok, p.addr)
	require.Equal(t, http.Header{"X-Count": {"1"}}, <-seen)
	res := readResponse(t, conn)
	_, err := io.Copy(io.Discard, res.Body)
	require.NoError(t, err)
	require.Equal(t, http.Header{"X-Sum": {"7"}}, res.Trailer)
}

func TestContinueComesFromTheBackend(t *testing.T) {
	p := start(t, nil)
	tok := p.backend("one", func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/refuse") {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		_, _ = io.Copy(w, r.Body) // reading makes the server continue
	})
	const head = "POST /%s%s HTTP/1.1\r\nHost: %s\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
	conn := p.raw(head, tok, "/take", p.addr)
	in := bufio.NewReader(conn)
	line, err := in.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, "HTTP/1.1 100 Continue\r\n", line)
	_, err = in.ReadString('\n')
	require.NoError(t, err)
	fmt.Fprint(conn, "body")
	res, err := http.ReadResponse(in, nil)
	require.NoError(t, err)
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.Equal(t, "body", string(body))

	require.Equal(t, http.StatusForbidden, readResponse(t, p.raw(head, tok, "/refuse", p.addr)).StatusCode)
}

func TestEarlyHintsGoThrough(t *testing.T) {
	p := start(t, nil)
	tok := p.backend("one", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</style.css>")
		w.WriteHeader(http.StatusEarlyHints)
	})
	res := readResponse(t, p.raw("GET /%s/ HTTP/1.1\r\nHost: %s\r\n\r\n", tok, p.addr))
	require.Equal(t, http.StatusEarlyHints, res.StatusCode)
	require.Equal(t, "</style.css>", res.Header.Get("Link"))
}

func TestLargeUpload(t *testing.T) {
	const size = 64 << 20
	p := start(t, nil)
	tok := p.backend("one", func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		n, err := io.Copy(sum, r.Body)
		fmt.Fprint(w, n, err, hex.EncodeToString(sum.Sum(nil)))
	})
	sum := sha256.New()
	req, err := http.NewRequest(http.MethodPut, p.url(tok, "/"), io.TeeReader(io.LimitReader(rand.Reader, size), sum))
	require.NoError(t, err)
	_, body := p.do(req)
	require.Equal(t, fmt.Sprint(size, nil, hex.EncodeToString(sum.Sum(nil))), body)
}

// echoSocket is a backend that sends back what it receives.
func echoSocket(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"echo"}})
	if err != nil {
		return
	}
	defer conn.CloseNow() //nolint:errcheck // it is over
	for {
		kind, msg, err := conn.Read(r.Context())
		if err != nil {
			return
		}
		if err := conn.Write(r.Context(), kind, msg); err != nil {
			return
		}
	}
}

func (p *plane) socket(token string) *websocket.Conn {
	p.t.Helper()
	conn, res, err := websocket.Dial(p.t.Context(), p.url(token, "/ws?x=y"), &websocket.DialOptions{Subprotocols: []string{"echo"}})
	require.NoError(p.t, err)
	require.Equal(p.t, "one", res.Header.Get("X-Plane-Backend-Id"))
	return conn
}

func TestWebSocket(t *testing.T) {
	p := start(t, nil)
	conn := p.socket(p.backend("one", echoSocket))
	require.Equal(t, "echo", conn.Subprotocol())
	for _, msg := range []string{"hello", strings.Repeat("x", 1000), strings.Repeat("y", 30_000), "bye"} {
		require.NoError(t, conn.Write(t.Context(), websocket.MessageText, []byte(msg)))
		_, got, err := conn.Read(t.Context())
		require.NoError(t, err)
		require.Equal(t, msg, string(got))
	}
	require.NoError(t, conn.Close(websocket.StatusNormalClosure, "bye"))
}

// upgraded makes a backend that takes over the connection after an upgrade.
func (p *plane) upgraded(handle func(conn *net.TCPConn, in io.Reader)) (token string) {
	return p.backend("one", func(w http.ResponseWriter, r *http.Request) {
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: %s\r\n\r\n", r.Header.Get("Upgrade"))
		handle(conn.(*net.TCPConn), buf.Reader)
	})
}

const upgradeHead = "GET /%s/ HTTP/1.1\r\nHost: %s\r\nConnection: keep-alive, Upgrade\r\nUpgrade: words\r\n\r\n"

func TestUpgradeWithHalfClose(t *testing.T) {
	p := start(t, nil)
	t.Run("by the client", func(t *testing.T) {
		tok := p.upgraded(func(conn *net.TCPConn, in io.Reader) {
			all, _ := io.ReadAll(in) // until the client has closed its side
			fmt.Fprintf(conn, "%d bytes", len(all))
		})
		// These words come before the backend has agreed to the upgrade.
		conn := p.raw(upgradeHead+"early ", tok, p.addr)
		in := bufio.NewReader(conn)
		res, err := http.ReadResponse(in, nil)
		require.NoError(t, err)
		require.Equal(t, 101, res.StatusCode)
		require.Equal(t, "words", res.Header.Get("Upgrade"))
		fmt.Fprint(conn, "and late")
		require.NoError(t, conn.(*net.TCPConn).CloseWrite())
		answer, err := io.ReadAll(in)
		require.NoError(t, err)
		require.Equal(t, "14 bytes", string(answer))
	})
	t.Run("by the backend", func(t *testing.T) {
		heard := make(chan string, 1)
		tok := p.upgraded(func(conn *net.TCPConn, in io.Reader) {
			fmt.Fprint(conn, "over to you")
			_ = conn.CloseWrite()
			all, _ := io.ReadAll(in)
			heard <- string(all)
		})
		conn := p.raw(upgradeHead, tok, p.addr)
		in := bufio.NewReader(conn)
		_, err := http.ReadResponse(in, nil)
		require.NoError(t, err)
		all, err := io.ReadAll(in)
		require.NoError(t, err)
		require.Equal(t, "over to you", string(all))
		fmt.Fprint(conn, "thanks")
		require.NoError(t, conn.Close())
		require.Equal(t, "thanks", <-heard)
	})
}

func TestG8RevocationClosesWhatIsOpen(t *testing.T) {
	p := start(t, nil)
	t.Run("upgraded", func(t *testing.T) {
		ended := make(chan struct{})
		tok := p.upgraded(func(_ *net.TCPConn, in io.Reader) {
			_, _ = io.Copy(io.Discard, in)
			close(ended)
		})
		conn := p.raw(upgradeHead, tok, p.addr)
		in := bufio.NewReader(conn)
		_, err := http.ReadResponse(in, nil)
		require.NoError(t, err)
		p.router.revoke(tok)
		_, err = in.ReadByte()
		require.Error(t, err)
		<-ended
	})
	t.Run("answer under way", func(t *testing.T) {
		ended := make(chan struct{})
		tok := p.backend("one", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "begin")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			close(ended)
		})
		res, err := client.Get(p.url(tok, "/"))
		require.NoError(t, err)
		defer res.Body.Close()
		p.router.revoke(tok)
		_, err = io.ReadAll(res.Body)
		require.Error(t, err)
		<-ended
	})
	t.Run("before the answer", func(t *testing.T) {
		reached := make(chan struct{})
		tok := p.backend("one", func(_ http.ResponseWriter, r *http.Request) {
			close(reached)
			<-r.Context().Done()
		})
		conn := p.raw("GET /%s/ HTTP/1.1\r\nHost: %s\r\n\r\n", tok, p.addr)
		<-reached
		p.router.revoke(tok)
		require.Equal(t, http.StatusGone, readResponse(t, conn).StatusCode)
	})
}

func TestClientThatGoesEndsTheBackendsRequest(t *testing.T) {
	p := start(t, nil)
	reached, ended := make(chan struct{}), make(chan struct{})
	tok := p.backend("one", func(_ http.ResponseWriter, r *http.Request) {
		close(reached)
		<-r.Context().Done()
		close(ended)
	})
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url(tok, "/"), nil)
	require.NoError(t, err)
	go func() {
		<-reached
		cancel()
	}()
	_, err = client.Do(req) //nolint:bodyclose // there is none
	require.ErrorIs(t, err, context.Canceled)
	<-ended
}

func TestServerThatStopsClosesWhatIsOpen(t *testing.T) {
	p := start(t, nil)
	conn := p.socket(p.backend("one", echoSocket))
	p.stop()
	_, _, err := conn.Read(t.Context())
	require.Error(t, err)
	_, err = net.Dial("tcp", p.addr)
	require.Error(t, err)
}

// A client that says nothing after the backend has closed its half is not waited
// for.
func TestServerThatStopsClosesHalfClosedConnections(t *testing.T) {
	p := start(t, nil)
	tok := p.upgraded(func(conn *net.TCPConn, in io.Reader) {
		_ = conn.CloseWrite()
		_, _ = io.Copy(io.Discard, in)
	})
	conn := p.raw(upgradeHead, tok, p.addr)
	in := bufio.NewReader(conn)
	_, err := http.ReadResponse(in, nil)
	require.NoError(t, err)
	_, err = in.ReadByte()
	require.ErrorIs(t, err, io.EOF)
	stopped := make(chan struct{})
	go func() {
		p.stop()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-time.After(10 * time.Second):
		require.Fail(t, "the server waits for the client")
	}
}

func TestUpgradedConnectionCarriesMuch(t *testing.T) {
	const size = 20 << 20
	p := start(t, nil)
	tok := p.upgraded(func(conn *net.TCPConn, in io.Reader) {
		_, _ = io.Copy(conn, in)
		_ = conn.CloseWrite()
	})
	conn := p.raw(upgradeHead, tok, p.addr)
	in := bufio.NewReader(conn)
	_, err := http.ReadResponse(in, nil)
	require.NoError(t, err)
	sent, got := sha256.New(), sha256.New()
	go func() {
		_, _ = io.Copy(conn, io.TeeReader(io.LimitReader(rand.Reader, size), sent))
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	n, err := io.Copy(got, in)
	require.NoError(t, err)
	require.EqualValues(t, size, n)
	require.Equal(t, sent.Sum(nil), got.Sum(nil))
}
