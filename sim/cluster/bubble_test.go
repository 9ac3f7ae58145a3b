package cluster

import (
	"flag"
	"testing"
	"testing/synctest"
	"time"

	"plane/sim/bubble"
)

var bubbleSeeds = flag.Int("bubble.seeds", 4, "how many seeds run on real goroutines")

// The same clusters on real goroutines: what the kernel cannot see is a data
// race. Run it with -race.
func TestOnRealGoroutines(t *testing.T) {
	for i := range *bubbleSeeds {
		seed := uint64(i + 1)
		synctest.Test(t, func(t *testing.T) {
			opt := Draw(seed, 3*time.Minute)
			w := bubble.New(seed)
			logs := &logger{leak: func(node, text string) { t.Errorf("seed %d: %s logs a secret: %s", seed, node, text) }}
			w.Lock()
			c := New(w, opt, logs.of)
			w.Unlock()
			w.Run(opt.Storm + opt.Calm)
			w.Lock()
			violations, started := c.Book.Violations, c.Book.Started()
			w.Unlock()
			w.Close()
			if started == 0 {
				t.Errorf("seed %d: no container was started", seed)
			}
			for _, v := range violations {
				t.Errorf("seed %d: %v", seed, v)
			}
		})
	}
}
