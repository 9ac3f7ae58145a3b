package dnsserver

import (
	"log/slog"
	"net"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/zone"
)

// A socket that is connected to where nobody listens fails for one of those that
// read from it, and for no other.
func TestOneReaderThatFailsIsTold(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4))
	nobody, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	require.NoError(t, err)
	require.NoError(t, nobody.Close())
	socket, err := net.DialUDP("udp4", nil, nobody.LocalAddr().(*net.UDPAddr))
	require.NoError(t, err)
	defer socket.Close() //nolint:errcheck // test over
	z, err := zone.New(zone.Config{Zone: "acme.example"})
	require.NoError(t, err)
	s, err := New(DefaultConfig(), z, oneValue{}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- s.overUDP(socket).serve() }()
	_, err = socket.Write([]byte("is anybody there?"))
	require.NoError(t, err)
	select {
	case err := <-ended:
		require.ErrorIs(t, err, syscall.ECONNREFUSED)
	case <-time.After(20 * time.Second):
		t.Fatal("nobody is told")
	}
}
