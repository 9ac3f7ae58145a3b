package dnsserver

import (
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRateLimit(t *testing.T) {
	l := newRateLimit(10)
	a := netip.MustParseAddr("192.0.2.1")
	passed := func(from netip.Addr, at time.Duration) (n int) {
		for range 100 {
			if l.take(from, int64(at)) == pass {
				n++
			}
		}
		return n
	}
	require.Equal(t, 10, passed(a, 0), "a second's worth at once")
	require.Equal(t, 0, passed(netip.MustParseAddr("::ffff:192.0.2.200"), 0), "the same network")
	require.Equal(t, 1, passed(a, 100*time.Millisecond))
	require.Equal(t, 10, passed(a, time.Hour), "no more is saved up")
	require.Equal(t, 10, passed(netip.MustParseAddr("198.51.100.1"), 0), "another network")
	require.Equal(t, 10, passed(netip.MustParseAddr("2001:db8::1"), 0))
	require.Equal(t, 0, passed(netip.MustParseAddr("2001:db8:0:ff::1"), 0), "the same /56")
	require.Equal(t, 100, func() (n int) {
		l := newRateLimit(0)
		for range 100 {
			if l.take(a, 0) == pass {
				n++
			}
		}
		return n
	}(), "no limit")
}

func TestEverySecondPacketBeyondTheRateSlips(t *testing.T) {
	l := newRateLimit(1)
	got := map[verdict]int{}
	for range 101 {
		got[l.take(netip.Addr{}, 0)]++
	}
	require.Equal(t, map[verdict]int{pass: 1, slip: 50, drop: 50}, got)
}
