package dnsserver

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sync/errgroup"
)

// batch is how many packets are read, or written, by one call of the system.
const batch = 64

// udpServer answers what comes over UDP. Most of what a packet costs is its way
// through the system, so packets are read and written many at a time; and what
// needs no controller is answered by whoever read it. Only a question that has to
// wait gets a goroutine, and of those there are never more than Config.MaxAtOnce.
type udpServer struct {
	*Server
	socket  *net.UDPConn
	conn    *ipv4.PacketConn // the same, also where it is one of IPv6
	control int              // bytes that tell to which of our addresses a packet came; 0: there is but one
	waiting sync.WaitGroup
	done    chan struct{} // closed when all is answered
}

func (s *Server) overUDP(socket *net.UDPConn) *udpServer {
	u := &udpServer{Server: s, socket: socket, conn: ipv4.NewPacketConn(socket), done: make(chan struct{})}
	if socket.LocalAddr().(*net.UDPAddr).IP.IsUnspecified() {
		// a socket has one family, or both
		_ = ipv4.NewPacketConn(socket).SetControlMessage(ipv4.FlagDst|ipv4.FlagInterface, true)
		_ = ipv6.NewPacketConn(socket).SetControlMessage(ipv6.FlagDst|ipv6.FlagInterface, true)
		u.control = len(ipv4.NewControlMessage(ipv4.FlagDst|ipv4.FlagInterface)) + len(ipv6.NewControlMessage(ipv6.FlagDst|ipv6.FlagInterface))
	}
	return u
}

// serve answers until stop, or until a reader fails, and returns when nothing is
// under way any more.
func (u *udpServer) serve() error {
	defer close(u.done)
	var g errgroup.Group
	for range runtime.GOMAXPROCS(0) {
		g.Go(func() error {
			defer u.endReading() // the others would go on, and nobody be told
			return u.read()
		})
	}
	err := g.Wait()
	u.waiting.Wait()
	return err
}

// stop ends the reading, and waits until all is answered or the context ends.
func (u *udpServer) stop(ctx context.Context) {
	u.endReading()
	select {
	case <-u.done:
	case <-ctx.Done():
	}
}

func (u *udpServer) endReading() {
	_ = u.socket.SetReadDeadline(time.Unix(1, 0)) // it may be closed
}

func (u *udpServer) read() error {
	in, out := make([]ipv4.Message, batch), make([]ipv4.Message, 0, batch)
	for i := range in {
		in[i].Buffers, in[i].OOB = [][]byte{make([]byte, maxUDP)}, make([]byte, u.control)
	}
	answers := make([][]byte, batch)
	for i := range answers {
		answers[i] = make([]byte, 2*maxUDP) // the library wants room for an answer without compression
	}
	for {
		n, err := u.conn.ReadBatch(in, 0)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read UDP: %w", err)
		}
		out = out[:0]
		for i, m := range in[:n] {
			to := ipv4.Message{Addr: m.Addr, OOB: source(m.OOB[:m.NN])}
			if answer := u.packet(m.Buffers[0][:m.N], answers[i], to); answer != nil {
				to.Buffers = [][]byte{answer}
				out = append(out, to)
			}
		}
		u.write(out)
	}
}

func (u *udpServer) write(out []ipv4.Message) {
	for len(out) > 0 {
		n, err := u.conn.WriteBatch(out, 0)
		if err != nil {
			n = max(n, 0) + 1 // the first one cannot be sent: lost, as packets are
		}
		out = out[n:]
	}
}

// packet answers a packet, in the room if it suffices; nil: not at all, or later
// by a goroutine of its own.
func (u *udpServer) packet(packet, room []byte, to ipv4.Message) []byte {
	switch u.limit.take(addressOf(to.Addr), int64(time.Since(u.began))) {
	case slip:
		u.limited.Add(1)
		return truncated(packet)
	case drop:
		u.limited.Add(1)
		return nil
	case pass:
	}
	req, refusal := decode(packet)
	if req == nil {
		return refusal
	}
	r := u.begin(req, true)
	if cluster := r.pending.Cluster; cluster != "" {
		values, known := u.challenges.Remembered(cluster)
		switch {
		case known:
			r.complete(values)
		case u.enter():
			u.waiting.Go(func() {
				defer u.leave()
				u.ask(u.life, r)
				if answer := u.pack(r, nil); answer != nil {
					to.Buffers = [][]byte{answer}
					u.write([]ipv4.Message{to})
				}
			})
			return nil
		default:
			u.giveUp(r)
		}
	}
	return u.pack(r, room)
}

// decode reads a message, as the library's own server does; where there is none,
// refusal is what to tell, or nil.
func decode(packet []byte) (req *dns.Msg, refusal []byte) {
	if len(packet) < headerLen {
		return nil, nil
	}
	field := func(i int) uint16 { return binary.BigEndian.Uint16(packet[2*i:]) }
	switch accept(dns.Header{Id: field(0), Bits: field(1), Qdcount: field(2), Ancount: field(3), Nscount: field(4), Arcount: field(5)}) {
	case dns.MsgIgnore:
		return nil, nil
	case dns.MsgRejectNotImplemented:
		return nil, refuse(packet, dns.RcodeNotImplemented)
	case dns.MsgAccept:
		if req = new(dns.Msg); req.Unpack(packet) == nil {
			return req, nil
		}
	case dns.MsgReject:
	}
	return nil, refuse(packet, dns.RcodeFormatError)
}

// refuse is a header and nothing else.
func refuse(packet []byte, rcode byte) []byte {
	h := make([]byte, headerLen)
	copy(h, packet[:3])
	h[2] = h[2]&0x79 | 0x80 // QR; the operation and RD as they came
	h[3] = rcode
	return h
}

// source makes, of what the system told about a packet, what it has to be told to
// answer from the address to which that came; nil: nothing was told.
func source(told []byte) []byte {
	if len(told) == 0 {
		return nil
	}
	var six ipv6.ControlMessage
	var four ipv4.ControlMessage
	dst := net.IP(nil)
	if six.Parse(told) == nil {
		dst = six.Dst
	}
	if dst == nil && four.Parse(told) == nil {
		dst = four.Dst
	}
	switch {
	case dst == nil:
		return nil
	case dst.To4() == nil:
		return (&ipv6.ControlMessage{Src: dst}).Marshal()
	}
	return (&ipv4.ControlMessage{Src: dst}).Marshal()
}
