package placement_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"plane/system/placement"
)

func TestExplain(t *testing.T) {
	asks := placement.Resources{MilliCPUs: 2000, MemoryBytes: 4 * gib}
	has := placement.Capacity{MaxBackends: 10, MilliCPUs: 4000, MemoryBytes: 16 * gib}
	a := placement.Refused{Name: "dr-a", Load: placement.Load{Backends: 3, Has: has, Promised: placement.Resources{MilliCPUs: 2500, MemoryBytes: 8 * gib}}}
	b := placement.Refused{Name: "dr-b", Load: placement.Load{Backends: 10, Has: has}}
	c := placement.Refused{Name: "dr-c", Draining: true, Load: b.Load}
	over := placement.Refused{Name: "dr-o", Load: placement.Load{Has: has, Promised: placement.Resources{MilliCPUs: 9000, MemoryBytes: 16*gib - 1}}}
	cpu := placement.Refused{Name: "dr-p", Load: placement.Load{Has: placement.Capacity{MilliCPUs: 1000}}}
	silent := placement.Refused{Name: "dr-s", Silent: 50 * time.Second, Unheard: true}
	fresh := placement.Refused{Name: "dr-u", Unheard: true}
	roomy := placement.Refused{Name: "dr-r", Load: placement.Load{Has: has}}
	var many []placement.Refused
	for i := range 13 {
		d := b
		d.Name = fmt.Sprintf("dr-%02d", 12-i)
		many = append(many, d)
	}
	tests := map[string]struct {
		asks   placement.Resources
		drones []placement.Refused
		want   string
	}{
		"none": {asks, nil, "no drone is connected in cluster c, pool p"},
		"each has its reason, and draining comes last": {asks, []placement.Refused{c, b, a},
			"no drone in cluster c, pool p has room: asked for 2 CPUs and 4 GiB; dr-a has 1.5 CPUs and 8 GiB free, dr-b is full (10 of 10 backends), dr-c is draining"},
		"nothing asked for": {placement.Resources{}, []placement.Refused{b},
			"no drone in cluster c, pool p has room: dr-b is full (10 of 10 backends)"},
		"room is not what is missing": {asks, []placement.Refused{silent, c, fresh},
			"no drone in cluster c, pool p can take a backend: dr-c is draining, dr-s has been silent for 50s, dr-u has sent no heartbeat yet"},
		"more promised than there is, and nearly all": {placement.Resources{MilliCPUs: 1000, MemoryBytes: gib + 1}, []placement.Refused{over},
			"no drone in cluster c, pool p has room: asked for 1 CPU and 1.01 GiB; dr-o has 0 CPUs and 1 bytes free"},
		"what is not limited is not shown": {placement.Resources{MilliCPUs: 1001, MemoryBytes: 3}, []placement.Refused{cpu},
			"no drone in cluster c, pool p has room: asked for 1.001 CPUs and 3 bytes; dr-p has 1 CPU free"},
		"what is not asked for is not shown": {placement.Resources{MemoryBytes: 100 * gib}, []placement.Refused{roomy},
			"no drone in cluster c, pool p has room: asked for 100 GiB; dr-r has 16 GiB free"},
		"room that came in between": {asks, []placement.Refused{roomy},
			"no drone in cluster c, pool p has room: asked for 2 CPUs and 4 GiB; dr-r has room by now"},
		"of many the first few": {placement.Resources{}, many,
			"no drone in cluster c, pool p has room: dr-00 is full (10 of 10 backends), dr-01 is full (10 of 10 backends), dr-02 is full (10 of 10 backends), dr-03 is full (10 of 10 backends), dr-04 is full (10 of 10 backends), dr-05 is full (10 of 10 backends), dr-06 is full (10 of 10 backends), dr-07 is full (10 of 10 backends), dr-08 is full (10 of 10 backends), dr-09 is full (10 of 10 backends), and so on for 3 more"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.want, placement.Explain(placement.Wish{Cluster: "c", Pool: "p", Asks: test.asks, Healthy: 45 * time.Second}, test.drones))
		})
	}
	require.Equal(t, "no drone is connected in cluster c, the default pool", placement.Explain(placement.Wish{Cluster: "c"}, nil))
}

// What is asked for and not there must not look as if it were.
func TestExplainNeverShowsAsMuchFreeAsWasAskedFor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		free := rapid.Int64Range(1, placement.MostMemoryBytes-1).Draw(t, "free")
		asked := rapid.Int64Range(free+1, min(free+free/50+1, placement.MostMemoryBytes)).Draw(t, "asked")
		text := func(has, asks int64) string {
			return placement.Explain(placement.Wish{Asks: placement.Resources{MemoryBytes: asks}},
				[]placement.Refused{{Load: placement.Load{Has: placement.Capacity{MemoryBytes: has}}}})
		}
		var wantsNumber, hasNumber float64
		var wantsUnit, hasUnit string
		_, err := fmt.Sscanf(text(free, asked), "no drone in cluster , the default pool has room: asked for %f %s has %f %s free",
			&wantsNumber, &wantsUnit, &hasNumber, &hasUnit)
		require.NoError(t, err)
		require.False(t, wantsUnit == hasUnit+";" && wantsNumber <= hasNumber, text(free, asked))
	})
}
