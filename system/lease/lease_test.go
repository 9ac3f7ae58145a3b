package lease_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/lease"
)

func TestTimingThatCouldRunTwoBackendsIsRefused(t *testing.T) {
	s := func(n float64) time.Duration { return time.Duration(n * float64(time.Second)) }
	for _, c := range []struct {
		name   string
		timing lease.Timing
		want   string // "" when it is fine
	}{
		{"the defaults", lease.Default(), ""},
		{"short, for tests", lease.Timing{Renew: s(3), Soft: s(4), Hard: s(5), Expiry: s(10.5)}, ""},
		{"soft before renew", lease.Timing{Renew: s(30), Soft: s(20), Hard: s(50), Expiry: s(60)}, "renew < soft < hard"},
		{"hard at soft", lease.Timing{Renew: s(30), Soft: s(50), Hard: s(50), Expiry: s(60)}, "renew < soft < hard"},
		{"no room for drift and a kill", lease.Timing{Renew: s(30), Soft: s(40), Hard: s(54), Expiry: s(60)}, "make hard shorter"},
		{"nothing set", lease.Timing{}, "renew < soft < hard"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.timing.Validate()
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.want)
		})
	}
}

// Shortfall 1: the hard deadline is not the soft one.
func TestDeadlinesCountFromTheDronesTime(t *testing.T) {
	local := time.UnixMilli(1_700_000_000_000)
	d := lease.Default().Deadlines(local)
	require.Equal(t, local.Add(30*time.Second), d.RenewAt)
	require.Equal(t, local.Add(40*time.Second), d.SoftTerminateAt)
	require.Equal(t, local.Add(50*time.Second), d.HardTerminateAt)
}
