package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/net/ipv4"
)

// questions are what is asked, as often as they stand here; all but the last
// one exist at both servers.
var questions = []struct {
	name  string
	kind  uint16
	rcode int
}{
	{cluster + "." + zoneName, dns.TypeTXT, dns.RcodeSuccess},
	{cluster + "." + zoneName, dns.TypeTXT, dns.RcodeSuccess},
	{cluster + "." + zoneName, dns.TypeTXT, dns.RcodeSuccess},
	{cluster + "." + zoneName, dns.TypeTXT, dns.RcodeSuccess},
	{cluster + "." + zoneName, dns.TypeA, dns.RcodeSuccess},
	{cluster + "." + zoneName, dns.TypeCAA, dns.RcodeSuccess},
	{"mysite.example." + zoneName, dns.TypeA, dns.RcodeSuccess},
	{zoneName, dns.TypeSOA, dns.RcodeSuccess},
	{zoneName, dns.TypeNS, dns.RcodeSuccess},
	{"_dmarc." + zoneName, dns.TypeTXT, dns.RcodeNameError},
}

const (
	clients = 4  // sockets
	window  = 64 // questions of each that are under way
	patient = 100 * time.Millisecond
)

// result is what one turn brought.
type result struct {
	answered, lost, wrong int
	took                  time.Duration
}

func (r result) rate() float64 { return float64(r.answered) / r.took.Seconds() }

// load asks as fast as answers come, for a time.
func load(address string, d time.Duration) (result, error) {
	packets, err := encode()
	if err != nil {
		return result{}, err
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	var errs []error
	all, began := result{}, time.Now()
	for range clients {
		wg.Go(func() {
			r, err := client(address, packets, began.Add(d))
			mu.Lock()
			defer mu.Unlock()
			all.answered, all.lost, all.wrong = all.answered+r.answered, all.lost+r.lost, all.wrong+r.wrong
			errs = append(errs, err)
		})
	}
	wg.Wait()
	all.took = time.Since(began)
	return all, errors.Join(errs...)
}

func encode() (packets [][]byte, err error) {
	for _, q := range questions {
		m := new(dns.Msg).SetQuestion(q.name+".", q.kind).SetEdns0(1232, false)
		packet, err := m.Pack()
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", q.name, err)
		}
		packets = append(packets, packet)
	}
	return packets, nil
}

// client keeps a window of questions under way. A question's ID says which one
// it is.
func client(address string, packets [][]byte, until time.Time) (r result, err error) {
	c, err := new(net.Dialer).DialContext(context.Background(), "udp4", address)
	if err != nil {
		return r, err
	}
	defer c.Close() //nolint:errcheck // nothing is under way that matters
	batch := ipv4.NewPacketConn(c.(*net.UDPConn))
	in, out := messages(window, 2048), messages(window, 512)
	next, due, underWay := 0, window, 0
	for time.Now().Before(until) {
		for sent := 0; sent < due; {
			for i := range due - sent {
				p := packets[next%len(packets)]
				b := out[i].Buffers[0][:copy(out[i].Buffers[0][:512], p)]
				binary.BigEndian.PutUint16(b, uint16(next%len(packets)))
				out[i].Buffers[0] = b
				next++
			}
			n, err := batch.WriteBatch(out[:due-sent], 0)
			if err != nil {
				return r, err
			}
			sent += n
		}
		underWay += due
		if err := c.SetReadDeadline(time.Now().Add(patient)); err != nil {
			return r, err
		}
		n, err := batch.ReadBatch(in, 0)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			r.lost += underWay
			due, underWay = window, 0
			continue
		}
		if err != nil {
			return r, err
		}
		for _, m := range in[:n] {
			r.count(m.Buffers[0][:m.N])
		}
		due = n
		underWay -= n
	}
	return r, nil
}

func messages(n, size int) []ipv4.Message {
	all := make([]ipv4.Message, n)
	for i := range all {
		all[i].Buffers = [][]byte{make([]byte, size)}
	}
	return all
}

// count looks whether an answer is the right one, as far as its header tells.
func (r *result) count(packet []byte) {
	if len(packet) < 12 {
		r.wrong++
		return
	}
	id := int(binary.BigEndian.Uint16(packet))
	q := questions[id%len(questions)]
	answers := int(binary.BigEndian.Uint16(packet[6:]))
	wanted := q.rcode == dns.RcodeSuccess && (q.kind == dns.TypeTXT || q.kind == dns.TypeSOA || q.kind == dns.TypeNS)
	if int(packet[3]&0xF) != q.rcode || wanted != (answers == 1) {
		r.wrong++
		return
	}
	r.answered++
}
