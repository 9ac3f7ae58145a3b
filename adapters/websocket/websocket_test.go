package websocket_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	coder "github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"plane/adapters/websocket"
	"plane/system/port"
	"plane/system/porttest"
	"plane/system/protocol"
)

var _ port.Dialer = (*websocket.Dialer)(nil)

// serve accepts sessions and gives them out on a channel.
func serve(t *testing.T) (address string, accepted <-chan port.Conn) {
	conns := make(chan port.Conn)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r)
		if err != nil {
			t.Error(err)
			return
		}
		select {
		case conns <- c:
		case <-t.Context().Done():
			c.Close("test over")
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL, conns
}

func dial(t *testing.T, o websocket.Options) port.Conn {
	d, err := websocket.NewDialer(o)
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	c, err := d.Dial(ctx)
	cancel() // must not touch the session
	require.NoError(t, err)
	return c
}

func TestConn(t *testing.T) {
	porttest.Conn(t, func(t *testing.T) (a, b port.Conn) {
		address, accepted := serve(t)
		a = dial(t, websocket.Options{URL: address})
		return a, <-accepted
	})
}

func TestTheLargestMessagePasses(t *testing.T) {
	address, accepted := serve(t)
	a := dial(t, websocket.Options{URL: address})
	defer a.Close("test over")
	b := <-accepted
	defer b.Close("test over")
	sent := make(chan error, 1)
	go func() { sent <- a.Send(t.Context(), make([]byte, protocol.MaxFrame)) }()
	msg, err := b.Recv(t.Context())
	require.NoError(t, err)
	require.Len(t, msg, protocol.MaxFrame)
	require.NoError(t, <-sent)
	require.ErrorContains(t, a.Send(t.Context(), make([]byte, protocol.MaxFrame+1)), "over the limit")
}

func TestWhatThePeerMayNotSend(t *testing.T) {
	for name, test := range map[string]struct {
		kind coder.MessageType
		size int
		want string
	}{
		"a binary frame":           {coder.MessageBinary, 3, "want text"},
		"a frame beyond the limit": {coder.MessageText, protocol.MaxFrame + 1, "limit"},
	} {
		t.Run(name, func(t *testing.T) {
			address, accepted := serve(t)
			raw, _, err := coder.Dial(t.Context(), address, nil) //nolint:bodyclose // never has to be
			require.NoError(t, err)
			defer raw.CloseNow() //nolint:errcheck // test over
			c := <-accepted
			go raw.Write(t.Context(), test.kind, make([]byte, test.size)) //nolint:errcheck // the receiver may cut it off
			_, err = c.Recv(t.Context())
			require.ErrorIs(t, err, port.ErrClosed)
			require.ErrorContains(t, err, test.want)
		})
	}
}

func TestHandshakeRequest(t *testing.T) {
	seen := make(chan *http.Request, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen <- r
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, "who are you?") //nolint:errcheck // the test looks at what arrived
	}))
	defer srv.Close()
	u, err := url.Parse(srv.URL)
	require.NoError(t, err)
	u.Scheme, u.User, u.Path = "ws", url.User("s3cret/token"), "/base"
	d, err := websocket.NewDialer(websocket.Options{
		URL: u.String(), Path: websocket.DronePath("localhost:9090", "big ones"), Version: protocol.Version{Version: "1.2.3"},
	})
	require.NoError(t, err)
	_, err = d.Dial(t.Context())
	require.ErrorContains(t, err, "401 Unauthorized: who are you?")
	require.NotContains(t, err.Error(), "s3cret")
	r := <-seen
	require.Equal(t, "/base/ctrl/c/localhost:9090/drone-socket?pool=big+ones", r.RequestURI)
	require.Equal(t, "Bearer s3cret/token", r.Header.Get("Authorization"))
	require.Equal(t, "plane/1.2.3", r.Header.Get("User-Agent"))
}

func TestBadControllerURLs(t *testing.T) {
	for address, want := range map[string]string{
		"ftp://s3cret@host":         "want http",
		"http:///path":              "host is missing",
		"localhost:8080":            "want http",
		"http://s3cret@ho st:99999": "malformed",
	} {
		_, err := websocket.NewDialer(websocket.Options{URL: address})
		require.ErrorContains(t, err, want, address)
		require.NotContains(t, err.Error(), "s3cret")
	}
}

// The following run real WebSockets over a network in memory, on virtual time.

func TestSilentPeer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, network := overMemory(t)
		ended := make(chan error, 2)
		for _, c := range []port.Conn{a, b} {
			go func() {
				_, err := c.Recv(t.Context())
				ended <- err
			}()
		}
		time.Sleep(time.Hour) //nolint:forbidigo // virtual time
		require.Empty(t, ended, "answered pings keep a quiet session")
		network.drop.Store(true)
		began := time.Now()
		for range 2 {
			err := <-ended
			require.ErrorIs(t, err, port.ErrClosed)
			require.ErrorContains(t, err, "silent")
		}
		require.LessOrEqual(t, time.Since(began), websocket.PeerSilent+2*websocket.PingEvery)
	})
}

func TestAReceiverMayTakeItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b, _ := overMemory(t)
		go b.Recv(t.Context())      //nolint:errcheck // answers pings until the test ends
		time.Sleep(5 * time.Minute) //nolint:forbidigo // virtual time
		require.NoError(t, b.Send(t.Context(), []byte(`"late"`)))
		msg, err := a.Recv(t.Context())
		require.NoError(t, err)
		require.Equal(t, `"late"`, string(msg))
	})
}

// overMemory opens a session over a network that knows no real time.
func overMemory(t *testing.T) (dialled, accepted port.Conn, n *network) {
	client, server, n := newNetwork()
	conns := make(chan port.Conn, 1)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r)
		if err != nil {
			t.Error(err)
		}
		conns <- c
	}), ReadHeaderTimeout: time.Minute}
	go srv.Serve(&oneConn{conn: server, closed: make(chan struct{})}) //nolint:errcheck // ends when closed
	d, err := websocket.NewDialer(websocket.Options{URL: "http://controller"})
	require.NoError(t, err)
	websocket.DialOver(d, client)
	a, err := d.Dial(t.Context())
	require.NoError(t, err)
	b := <-conns
	t.Cleanup(func() {
		a.Close("test over")
		b.Close("test over")
		client.Close() //nolint:errcheck // test over
		server.Close() //nolint:errcheck // test over
		srv.Close()    //nolint:errcheck // test over
	})
	return a, b, n
}

// network carries bytes between two ends, with room for those that nobody has
// read yet.
type network struct{ drop atomic.Bool }

func newNetwork() (client, server net.Conn, n *network) {
	n = &network{}
	client, nearClient := net.Pipe()
	server, nearServer := net.Pipe()
	n.carry(nearClient, nearServer)
	n.carry(nearServer, nearClient)
	return client, server, n
}

func (n *network) carry(from, to net.Conn) {
	underway := make(chan []byte, 1000)
	go func() {
		defer close(underway)
		for {
			part := make([]byte, 4096)
			size, err := from.Read(part)
			if err != nil {
				return
			}
			if !n.drop.Load() {
				underway <- part[:size]
			}
		}
	}()
	go func() {
		defer func() {
			if !n.drop.Load() { // else the other end learns nothing of it
				to.Close() //nolint:errcheck // nothing is written any more
			}
		}()
		for part := range underway {
			if _, err := to.Write(part); err != nil {
				return
			}
		}
	}()
}

// oneConn is a listener with one connection.
type oneConn struct {
	conn   net.Conn
	closed chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

func (l *oneConn) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}

func (*oneConn) Addr() net.Addr { return &net.TCPAddr{} }

func TestPaths(t *testing.T) {
	require.Equal(t, "/ctrl/c/localhost:9090/drone-socket", websocket.DronePath("localhost:9090", ""))
	require.Equal(t, "/ctrl/c/plane.test/proxy-socket", websocket.ProxyPath("plane.test"))
	require.NotContains(t, websocket.DronePath("a/b", "x&y"), "a/b")
}
