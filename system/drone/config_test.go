package drone_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/drone"
)

func TestTimingsThatDoNotFitAreRefused(t *testing.T) {
	require.NoError(t, drone.DefaultConfig("dr-a").Validate())
	for name, c := range map[string]struct {
		change func(*drone.Config)
		says   string
	}{
		"a lease that two could hold":             {func(c *drone.Config) { c.Lease.Hard = 58 * time.Second }, "lease timing"},
		"a name of another kind":                  {func(c *drone.Config) { c.Name = "px-a" }, "px-a"},
		"no log":                                  {func(c *drone.Config) { c.Log = nil }, "log"},
		"less than no backends":                   {func(c *drone.Config) { c.Capacity.MaxBackends = -1 }, "capacity: -1 backends at most"},
		"less than no CPU":                        {func(c *drone.Config) { c.Capacity.MilliCPUs = -1 }, "capacity: -1 thousandths of a CPU"},
		"more memory than there is":               {func(c *drone.Config) { c.Capacity.MemoryBytes = 1 << 60 }, "bytes of memory"},
		"no grace":                                {func(c *drone.Config) { c.Timing.Grace = 0 }, "grace"},
		"pruning backwards":                       {func(c *drone.Config) { c.Timing.Prune = -1 }, "prune"},
		"heartbeats too far apart":                {func(c *drone.Config) { c.Timing.Heartbeat = 23 * time.Second }, "heartbeat"},
		"no time to repeat a renewal":             {func(c *drone.Config) { c.Timing.RenewRetry = 6 * time.Second }, "renew retry"},
		"slots before time":                       {func(c *drone.Config) { c.Timing.RenewSlot = -time.Second }, "renew slot"},
		"slots that no message can tell":          {func(c *drone.Config) { c.Timing.RenewSlot = 1500 * time.Microsecond }, "renew slot"},
		"asking before the lease begins":          {func(c *drone.Config) { c.Timing.RenewSlot = 12 * time.Second }, "slot 12s"},
		"a quarantine shorter than routes last":   {func(c *drone.Config) { c.Timing.Quarantine = 30 * time.Second }, "quarantine"},
		"lists too far apart to find every stray": {func(c *drone.Config) { c.Timing.Relist = time.Minute }, "relist"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := drone.DefaultConfig("dr-a")
			c.change(&cfg)
			require.ErrorContains(t, cfg.Validate(), c.says)
			_, err := drone.New(cfg, drone.World{})
			require.ErrorContains(t, err, c.says)
		})
	}
}
