// Package proxyprotocol learns the addresses of clients from a layer-4 balancer
// that announces them in the PROXY protocol, version 1 or 2.
//
// There is no guessing: a connection from a trusted source has to begin with a
// header, and is closed where it does not, or not in time. A connection from
// anywhere else is what it seems to be; a header there is not read as one, and
// so breaks the TLS handshake or the HTTP request that it stands in front of.
// What a trusted source says is believed, so clients must not be able to
// connect from an address of the list.
//
// A listener may be used like any other, its connections too; they know their
// client's address once their first byte has been asked for.
package proxyprotocol

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	proxyproto "github.com/pires/go-proxyproto"
)

// ParseSources reads a list of addresses and networks, separated by commas.
func ParseSources(list string) ([]netip.Prefix, error) {
	var sources []netip.Prefix
	for text := range strings.SplitSeq(list, ",") {
		text = strings.TrimSpace(text)
		source, err := netip.ParsePrefix(text)
		if address, addressErr := netip.ParseAddr(text); addressErr == nil {
			source, err = netip.PrefixFrom(address, address.BitLen()), nil
		}
		switch {
		case err != nil || source.Addr().Is4In6():
			return nil, fmt.Errorf("want addresses or networks such as 10.0.0.0/8,fd00::/8, not %q", text)
		case source.Bits() == 0:
			return nil, fmt.Errorf("%s would let every client choose its address: name the balancer's", text)
		}
		sources = append(sources, source.Masked())
	}
	return sources, nil
}

// Listen wraps a listener. A header has to be there within the time.
func Listen(listener net.Listener, sources []netip.Prefix, within time.Duration) net.Listener {
	return wrapped{&proxyproto.Listener{
		Listener:          listener,
		ReadHeaderTimeout: within,
		ConnPolicy: func(o proxyproto.ConnPolicyOptions) (proxyproto.Policy, error) {
			if trusted(o.Upstream, sources) {
				return proxyproto.REQUIRE, nil
			}
			return proxyproto.SKIP, nil
		},
	}}
}

func trusted(address net.Addr, sources []netip.Prefix) bool {
	tcp, ok := address.(*net.TCPAddr)
	if !ok {
		return false
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	for _, source := range sources {
		if source.Contains(ip) {
			return true
		}
	}
	return false
}

type wrapped struct{ net.Listener }

// Accept implements net.Listener.
func (l wrapped) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if announced, ok := c.(*proxyproto.Conn); ok {
		return conn{announced}, err
	}
	return c, err
}

// conn can close its half, which the library's cannot.
type conn struct{ *proxyproto.Conn }

// CloseWrite passes a half-close on.
func (c conn) CloseWrite() error {
	tcp, ok := c.TCPConn()
	if !ok {
		return errors.ErrUnsupported
	}
	return tcp.CloseWrite()
}
