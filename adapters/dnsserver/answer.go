package dnsserver

import (
	"context"
	"strings"

	"github.com/miekg/dns"

	"plane/system/zone"
)

// serve answers one question that came over TCP.
func (s *Server) serve(w dns.ResponseWriter, req *dns.Msg) {
	if packet := s.respond(s.life, req, false); packet != nil {
		_, _ = w.Write(packet) // whoever asked may be gone
	}
}

// respond makes the answer to a message that accept has let through, and waits
// for what it needs; nil when it cannot be encoded.
func (s *Server) respond(ctx context.Context, req *dns.Msg, udp bool) []byte {
	r := s.begin(req, udp)
	switch {
	case r.pending.Cluster == "":
	case s.enter():
		defer s.leave()
		s.ask(ctx, r)
	default:
		s.giveUp(r)
	}
	return s.pack(r, nil)
}

// reply is an answer in the making.
type reply struct {
	*dns.Msg
	limit   int          // bytes
	pending zone.Pending // if it has a cluster, the values are missing
}

// begin makes what can be said to a message without any values.
func (s *Server) begin(req *dns.Msg, udp bool) *reply {
	s.questions.Add(1)
	r := &reply{Msg: new(dns.Msg).SetReply(req), limit: dns.MaxMsgSize}
	r.Zero = false
	if udp {
		r.limit = dns.MinMsgSize
	}
	opts, lone := 0, (*dns.OPT)(nil)
	for _, rr := range req.Extra {
		if opt, ok := rr.(*dns.OPT); ok {
			opts, lone = opts+1, opt
		}
	}
	switch {
	case len(req.Question) != 1 || opts > 1 || lone != nil && lone.Hdr.Name != ".":
		r.Rcode = dns.RcodeFormatError
		return r
	case opts == 1:
		if udp {
			r.limit = min(max(int(lone.UDPSize()), dns.MinMsgSize), maxUDP)
		}
		r.SetEdns0(maxUDP, lone.Do())
		if lone.Version() != 0 {
			r.Rcode = dns.RcodeBadVers
			return r
		}
	}
	q := req.Question[0]
	r.pending = s.zone.Ask(zone.Question{Labels: dns.SplitDomainName(q.Name), Type: zone.Type(q.Qtype), Class: q.Qclass})
	if r.pending.Cluster == "" {
		r.complete(nil)
	}
	return r
}

// complete fills the answer in.
func (r *reply) complete(values []string) {
	a := r.pending.With(values)
	r.Rcode, r.Authoritative = int(a.RCode), a.Authoritative
	r.Compress = true
	r.Answer, r.Ns = records(a.Records), records(a.Authority)
	r.Extra = append(records(a.Additional), r.Extra...) // OPT is in it
}

// ask completes an answer with what a controller says.
func (s *Server) ask(ctx context.Context, r *reply) {
	values, err := s.challenges.Challenges(ctx, r.pending.Cluster)
	if err != nil {
		s.log.Debug("no controller could say what the challenges are", "cluster", r.pending.Cluster, "error", err)
		s.giveUp(r)
		return
	}
	r.complete(values)
}

// giveUp completes an answer whose values are not to be had.
func (s *Server) giveUp(r *reply) {
	s.unavailable.Add(1)
	r.Rcode = int(r.pending.Unavailable().RCode)
}

// enter takes one of the places of those that wait for a controller, if there is
// one; leave gives it back.
func (s *Server) enter() bool {
	select {
	case s.busy <- struct{}{}:
		return true
	default:
		return false
	}
}

func (s *Server) leave() { <-s.busy }

// pack encodes an answer, or that it is too long, in the room if that suffices;
// nil when it cannot be done.
func (s *Server) pack(r *reply, room []byte) []byte {
	packet, err := r.PackBuffer(room)
	if err == nil && len(packet) > r.limit {
		r.Truncated = true
		r.Answer, r.Ns = nil, nil
		opt := r.IsEdns0()
		if r.Extra = nil; opt != nil {
			r.Extra = []dns.RR{opt}
		}
		packet, err = r.PackBuffer(room)
	}
	if err != nil {
		s.log.Error("an answer cannot be encoded", "error", err)
		return nil
	}
	return packet
}

func records(all []zone.Record) []dns.RR {
	if len(all) == 0 {
		return nil
	}
	out := make([]dns.RR, 0, len(all)+1)
	for _, r := range all {
		out = append(out, record(r))
	}
	return out
}

// The times of the SOA are for secondary servers, of which there are none. The
// serial number never changes, as nothing can be transferred.
const soaSerial, soaRefresh, soaRetry, soaExpire = 1, 3600, 600, 86400

func record(r zone.Record) dns.RR {
	h := dns.RR_Header{Name: r.Name, Rrtype: uint16(r.Type), Class: dns.ClassINET, Ttl: r.TTL}
	switch r.Type {
	case zone.TXT:
		return &dns.TXT{Hdr: h, Txt: pieces(r.Value)}
	case zone.SOA:
		return &dns.SOA{
			Hdr: h, Ns: r.Host, Mbox: r.Mail, Serial: soaSerial, Refresh: soaRefresh, Retry: soaRetry, Expire: soaExpire,
			Minttl: zone.NoneTTL,
		}
	case zone.NS:
		return &dns.NS{Hdr: h, Ns: r.Host}
	case zone.A:
		return &dns.A{Hdr: h, A: r.Addr.AsSlice()}
	case zone.AAAA:
		return &dns.AAAA{Hdr: h, AAAA: r.Addr.AsSlice()}
	case zone.HINFO:
		return &dns.HINFO{Hdr: h, Cpu: r.Value}
	}
	panic("dnsserver: the zone's rules made a record of a type that they do not know")
}

// pieces cuts a value into strings of 255 bytes, written as the library wants
// them: a backslash is an escape there.
func pieces(value string) []string {
	const most = 255
	var out []string
	for len(value) > most {
		out = append(out, strings.ReplaceAll(value[:most], `\`, `\\`))
		value = value[most:]
	}
	return append(out, strings.ReplaceAll(value, `\`, `\\`))
}
