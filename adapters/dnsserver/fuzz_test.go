package dnsserver

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/ipv4"

	"plane/system/zone"
)

// oddValues are values that are as bad as they can be.
type oddValues struct{}

func (oddValues) Challenges(_ context.Context, cluster string) ([]string, error) {
	return []string{cluster, "", strings.Repeat(cluster+"\\\"\x00", 50)}, nil
}

func (v oddValues) Remembered(cluster string) ([]string, bool) {
	values, err := v.Challenges(context.Background(), cluster)
	return values, err == nil
}

// FuzzPacket gives the server any bytes: those of one packet, by the same way
// through the library as packets from the network go, and then a good question.
func FuzzPacket(f *testing.F) {
	good, err := new(dns.Msg).SetQuestion("c1.acme.example.", dns.TypeTXT).Pack()
	require.NoError(f, err)
	edns, err := new(dns.Msg).SetQuestion("c1.Acme.exAmple.", dns.TypeTXT).SetEdns0(512, true).Pack()
	require.NoError(f, err)
	for _, seed := range [][]byte{
		nil, good, edns, good[:11], good[:12], good[:20], append(good, 0), append(good, edns[len(edns)-11:]...),
		[]byte("\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x10\x00\x01"),
		[]byte("\x00\x01\x28\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x06\x00\x01"),
		[]byte("\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03\x5c.\x00\x04acme\x07example\x00\x00\x10\x00\x01"),
	} {
		f.Add(seed)
	}
	z, err := zone.New(zone.Config{Zone: "acme.example"})
	require.NoError(f, err)
	cfg := DefaultConfig()
	cfg.RateLimit = 0
	s, err := New(cfg, z, oddValues{}, slog.New(slog.DiscardHandler))
	require.NoError(f, err)
	s.life = f.Context()
	f.Fuzz(func(t *testing.T, packet []byte) {
		if len(packet) > dns.MaxMsgSize {
			return
		}
		checkTruncated(t, packet)
		checkUDP(t, s, packet)
		checkServer(t, s, packet, good)
	})
}

// checkTruncated: what is told beyond the rate can be read, and is no longer
// than what was asked.
func checkTruncated(t *testing.T, packet []byte) {
	again := truncated(packet)
	if again == nil {
		return
	}
	require.LessOrEqual(t, len(again), len(packet))
	var m dns.Msg
	if err := m.Unpack(again); err != nil {
		return // a name that is longer than 255 bytes
	}
	require.True(t, m.Response && m.Truncated)
	require.Equal(t, packet[:2], again[:2])
	require.Nil(t, truncated(again), "an answer is not answered")
}

// checkUDP: an answer can be read, belongs to its question, and fits. What the
// library cannot read has a header for an answer, or none.
func checkUDP(t *testing.T, s *Server, packet []byte) {
	var req, m dns.Msg
	u := udpServer{Server: s}
	answer := u.packet(packet, make([]byte, 2*maxUDP), ipv4.Message{})
	if len(packet) < headerLen || packet[2]&0x80 != 0 {
		require.Nil(t, answer)
		return
	}
	if len(answer) == headerLen {
		require.NoError(t, m.Unpack(answer))
		require.True(t, m.Response)
		require.Equal(t, packet[:2], answer[:2])
		require.Contains(t, []int{dns.RcodeFormatError, dns.RcodeNotImplemented}, m.Rcode)
		return
	}
	require.NoError(t, req.Unpack(packet))
	require.Equal(t, s.respond(t.Context(), &req, true), answer, "the same when it has to wait")
	require.NoError(t, m.Unpack(answer))
	require.True(t, m.Response)
	require.Equal(t, req.Id, m.Id)
	most := dns.MinMsgSize
	if opt := req.IsEdns0(); opt != nil {
		most = min(max(most, int(opt.UDPSize())), maxUDP)
	}
	require.LessOrEqual(t, len(answer), most)
	require.False(t, m.RecursionAvailable)
	if len(req.Question) == 1 && len(m.Question) == 1 {
		require.Equal(t, req.Question, m.Question)
	}
}

// checkServer: whatever came before on a connection, a good question has its
// answer.
func checkServer(t *testing.T, s *Server, packet, good []byte) {
	near, far := net.Pipe()
	listener := &oneConn{conn: far, over: make(chan struct{})}
	server := s.overTCP()
	server.Listener = listener
	ended := make(chan error, 1)
	go func() { ended <- server.ActivateAndServe() }()
	go func() {
		for _, p := range [][]byte{packet, good} {
			_, _ = near.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(p))), p...)) // read fails then
		}
	}()
	conn := dns.Conn{Conn: near}
	for {
		m, err := conn.ReadMsg()
		require.NoError(t, err)
		if len(m.Question) == 1 && m.Rcode == dns.RcodeSuccess && m.Question[0].Name == "c1.acme.example." {
			break
		}
	}
	_ = near.Close()
	_ = listener.Close()
	require.ErrorIs(t, <-ended, io.EOF)
}

// oneConn is a listener to whom one connection comes.
type oneConn struct {
	conn net.Conn
	over chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	<-l.over
	return nil, io.EOF
}

func (l *oneConn) Close() error {
	select {
	case <-l.over:
	default:
		close(l.over)
	}
	return nil
}

func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }
