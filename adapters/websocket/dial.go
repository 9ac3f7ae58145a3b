// Package websocket puts the Dialer and Conn ports on WebSockets: one JSON
// message a text frame, as the protocol has it.
//
// A Conn owns its network connection. It promises what port.Conn promises:
// messages whole and in order, or ErrClosed. One task may send while another
// receives; Close is for anybody and never blocks. While a Recv is under way
// the peer has to show life (any byte, or the answer to a ping, which goes out
// every PingEvery) within PeerSilent, or the session ends; a receiver that takes
// its time between two calls is not taken for a silent peer. A Recv or Send
// whose context ends while it is under way ends the session, because half a
// frame may be left in the network.
//
// Each Conn has one goroutine, which pings and tidies up; it ends soon after
// the session does.
package websocket

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/coder/websocket"

	"plane/system/port"
	"plane/system/protocol"
)

// Options say where sessions are opened.
type Options struct {
	// URL is the controller's: http, https, ws or wss. Its user name, if it has
	// one, is sent as a bearer token; its path, if it has one, goes before Path.
	URL string
	// Path is the socket's, with its query: see DronePath, ProxyPath and DNSPath.
	Path string
	// Version goes into the user agent.
	Version protocol.Version
	// TLS may be nil.
	TLS *tls.Config
}

// DronePath is the path of a drone's socket.
func DronePath(cluster, pool string) string {
	path := "/ctrl/c/" + url.PathEscape(cluster) + "/drone-socket"
	if pool != "" {
		path += "?" + url.Values{"pool": {pool}}.Encode()
	}
	return path
}

// ProxyPath is the path of a proxy's socket.
func ProxyPath(cluster string) string {
	return "/ctrl/c/" + url.PathEscape(cluster) + "/proxy-socket"
}

// DNSPath is the path of a DNS receiver's socket.
const DNSPath = "/ctrl/dns-socket"

// Dialer opens sessions with a controller. It keeps nothing between two calls
// and may be used by any number of tasks at once.
type Dialer struct {
	address string // without the bearer token, so that no error shows it
	header  http.Header
	client  *http.Client
}

// NewDialer refuses options under which no session could ever be opened.
func NewDialer(o Options) (*Dialer, error) {
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, fmt.Errorf("controller URL is malformed; want http://host:port or https://host, with a bearer token before an @ if one is needed")
	}
	header := http.Header{"User-Agent": {"plane/" + o.Version.Version}}
	if u.User != nil {
		header.Set("Authorization", "Bearer "+u.User.Username())
		u.User = nil
	}
	switch u.Scheme {
	case "ws":
		u.Scheme = "http"
	case "wss":
		u.Scheme = "https"
	case "http", "https":
	default:
		return nil, fmt.Errorf("controller URL %q: want http, https, ws or wss", u)
	}
	if u.Host == "" {
		return nil, fmt.Errorf("controller URL %q: the host is missing", u)
	}
	path, query, _ := strings.Cut(o.Path, "?")
	u = u.JoinPath(path)
	u.RawQuery = query
	return &Dialer{address: u.String(), header: header, client: &http.Client{Transport: &http.Transport{
		Proxy:             http.ProxyFromEnvironment,
		DialContext:       (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:   o.TLS,
		DisableKeepAlives: true, // each session has its own connection
	}}}, nil
}

// Dial implements port.Dialer.
func (d *Dialer) Dial(ctx context.Context) (port.Conn, error) {
	h := &heard{}
	ws, resp, err := websocket.Dial(ctx, d.address, &websocket.DialOptions{
		HTTPClient: d.client, HTTPHeader: d.header, OnPingReceived: h.ping, OnPongReceived: h.pong,
	})
	switch {
	case err == nil:
		return newConn(ws, h), nil
	case ctx.Err() != nil:
		return nil, fmt.Errorf("open a session at %s: %w", d.address, context.Cause(ctx))
	case resp != nil && resp.StatusCode != http.StatusSwitchingProtocols:
		return nil, fmt.Errorf("open a session at %s: answered %s%s", d.address, resp.Status, excerpt(resp.Body))
	}
	return nil, fmt.Errorf("open a session at %s: %w", d.address, err)
}

// excerpt shows the beginning of an error answer.
func excerpt(body io.Reader) string {
	if body == nil {
		return ""
	}
	b, err := io.ReadAll(io.LimitReader(body, 300))
	if text := strings.TrimSpace(string(b)); err == nil && text != "" {
		return ": " + text
	}
	return ""
}

// Accept turns a request into a session. When it fails it has answered the
// request.
func Accept(w http.ResponseWriter, r *http.Request) (port.Conn, error) {
	h := &heard{}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{OnPingReceived: h.ping, OnPongReceived: h.pong})
	if err != nil {
		return nil, fmt.Errorf("accept a session: %w", err)
	}
	return newConn(ws, h), nil
}
