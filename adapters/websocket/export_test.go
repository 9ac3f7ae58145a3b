package websocket

import (
	"context"
	"net"
	"net/http"
)

// DialOver makes the dialer use one connection that is there already.
func DialOver(d *Dialer, c net.Conn) {
	t := d.client.Transport.(*http.Transport)
	t.Proxy = nil
	t.DialContext = func(context.Context, string, string) (net.Conn, error) { return c, nil }
}
