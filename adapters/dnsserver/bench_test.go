package dnsserver

import (
	"context"
	"log/slog"
	"testing"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/ipv4"

	"plane/system/zone"
)

type oneValue struct{}

func (oneValue) Challenges(context.Context, string) ([]string, error) {
	return []string{"gfj9Xq8v1zY2mZqk1m0m0m0m0m0m0m0m0m0m0m0m0m0"}, nil
}

func (v oneValue) Remembered(cluster string) ([]string, bool) {
	values, err := v.Challenges(context.Background(), cluster)
	return values, err == nil
}

// BenchmarkPacket is what one question costs beside the network; scripts/dnsbench
// measures whole servers.
func BenchmarkPacket(b *testing.B) {
	z, err := zone.New(zone.Config{Zone: "acme.example"})
	require.NoError(b, err)
	cfg := DefaultConfig()
	cfg.RateLimit = 0
	s, err := New(cfg, z, oneValue{}, slog.New(slog.DiscardHandler))
	require.NoError(b, err)
	packet, err := new(dns.Msg).SetQuestion("c1.mysite.com.acme.example.", dns.TypeTXT).SetEdns0(maxUDP, false).Pack()
	require.NoError(b, err)
	u, room := udpServer{Server: s}, make([]byte, 2*maxUDP)
	b.ReportAllocs()
	for b.Loop() {
		if u.packet(packet, room, ipv4.Message{}) == nil {
			b.Fatal("no answer")
		}
	}
}
