package dnsserver_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"

	"plane/adapters/dnsserver"
)

// deaf is a client that asks without end and reads no answer, with as little room
// for answers as it can have.
type deaf struct {
	net.Conn
	question []byte
}

func dialDeaf(t *testing.T, port int) deaf {
	t.Helper()
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var mss, room error
		return errors.Join(c.Control(func(fd uintptr) {
			mss = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 536)
			room = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 2048)
		}), mss, room)
	}}
	c, err := d.Dial("tcp", (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}).String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() }) // the server may have done it
	packet, err := new(dns.Msg).SetQuestion(strings.Repeat(strings.Repeat("a", 60)+".", 3)+strings.Repeat("b", 40)+".acme.example.", dns.TypeA).Pack()
	require.NoError(t, err)
	return deaf{c, append(binary.BigEndian.AppendUint16(nil, uint16(len(packet))), packet...)}
}

// ask asks until nothing goes through for so long, or the connection ends, and
// returns why.
func (d deaf) ask(t *testing.T, patience time.Duration) error {
	t.Helper()
	for {
		require.NoError(t, d.SetWriteDeadline(time.Now().Add(patience)))
		if _, err := d.Write(d.question); err != nil {
			return err
		}
	}
}

func TestAClientThatDoesNotReadLosesItsConnection(t *testing.T) {
	port, end := serve(t, "127.0.0.1", values, func(c *dnsserver.Config) {
		c.ReadTimeout, c.MaxPerConnection = 100*time.Millisecond, 1<<30
	})
	err := dialDeaf(t, port).ask(t, 20*time.Second)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "the server closes it")
	require.ErrorIs(t, end(), context.Canceled)
}

func TestAClientThatDoesNotReadDoesNotHoldUpTheEnd(t *testing.T) {
	port, end := serve(t, "127.0.0.1", values, func(c *dnsserver.Config) {
		c.ReadTimeout, c.Grace, c.MaxPerConnection = time.Hour, 50*time.Millisecond, 1<<30
	})
	require.ErrorIs(t, dialDeaf(t, port).ask(t, 300*time.Millisecond), os.ErrDeadlineExceeded, "it is stuck")
	ended := make(chan error, 1)
	go func() { ended <- end() }()
	select {
	case err := <-ended:
		require.ErrorIs(t, err, context.Canceled)
	case <-time.After(20 * time.Second):
		t.Fatal("it has not ended")
	}
}

func (s server) dial(t *testing.T) *dns.Conn {
	t.Helper()
	c, err := dns.DialTimeout("tcp", s.address, 5*time.Second)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() }) // the server may have done it
	require.NoError(t, c.SetDeadline(time.Now().Add(5*time.Second)))
	return c
}

func served(t *testing.T, c *dns.Conn) bool {
	t.Helper()
	if c.WriteMsg(question(t, "acme.example SOA")) != nil {
		return false
	}
	_, err := c.ReadMsg()
	return err == nil
}

func TestConnectionsOfANetworkBeyondTheLimitAreClosedAtOnce(t *testing.T) {
	s := start(t, func(c *dnsserver.Config) { c.MaxPerNetwork = 2 }, "acme.example")
	a, b, c := s.dial(t), s.dial(t), s.dial(t)
	require.True(t, served(t, a))
	require.True(t, served(t, b))
	require.False(t, served(t, c))
	require.Equal(t, 2, s.Counts().Connections)
	require.NoError(t, a.Close())
	for end := time.Now().Add(5 * time.Second); s.Counts().Connections > 1 && time.Now().Before(end); {
		require.True(t, served(t, b)) // it takes a moment until the server has seen it
	}
	require.True(t, served(t, s.dial(t)))
}

func TestTheOldestConnectionGivesWay(t *testing.T) {
	s := start(t, func(c *dnsserver.Config) { c.MaxConnections = 2 }, "acme.example")
	var all []*dns.Conn
	for range 4 {
		c := s.dial(t)
		require.True(t, served(t, c), "whoever comes is served")
		all = append(all, c)
	}
	require.Equal(t, 2, s.Counts().Connections)
	for i, c := range all {
		require.Equal(t, i >= 2, served(t, c), "connection %d", i)
	}
}
