package httpproxy

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/name"
	"plane/system/protocol"
)

func TestG7NothingIsConnectedPastTheTimeForIt(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	dial := newTransport(DefaultConfig(name.Cluster{}, protocol.Version{}, nil)).DialContext
	p := &passage{info: protocol.RouteInfo{Address: listener.Addr().String()}, connectBy: time.Now().Add(time.Minute)}
	ctx := context.WithValue(t.Context(), passageKey{}, p)

	conn, err := dial(ctx, "tcp", "ignored:1")
	require.NoError(t, err)
	require.NoError(t, conn.Close())

	// The transport dials anew when a reused connection has died, which can be
	// long after the route was given.
	p.connectBy = time.Now()
	_, err = dial(ctx, "tcp", "ignored:1")
	var unreachable *unreachableError
	require.ErrorAs(t, err, &unreachable)
}

func TestPoolKeyTellsBackendsAndAddressesApart(t *testing.T) {
	seen := map[string]string{}
	for _, c := range [][2]string{
		{"one", "10.0.0.1:80"}, {"two", "10.0.0.1:80"}, {"one", "10.0.0.1:81"}, {"one", "10.0.0.2:80"}, {"one", "[::1]:80"}, {"one", "[::2]:80"},
	} {
		key, err := poolKey(c[0], c[1])
		require.NoError(t, err)
		require.Empty(t, seen[key], "%v", c)
		seen[key] = c[0] + c[1]
	}
	_, err := poolKey("one", "nowhere")
	require.ErrorContains(t, err, "backend one")
}
