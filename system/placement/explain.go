package placement

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Wish is what a drone was looked for.
type Wish struct {
	Cluster string
	Pool    string // empty: the default pool
	Asks    Resources
	Healthy time.Duration // a drone silent for longer gets nothing
}

// Refused is a drone of the cluster and pool that did not get the backend, and
// what was known of it then.
type Refused struct {
	Name     string
	Draining bool
	Unheard  bool          // it has connected, and has not given a heartbeat since
	Silent   time.Duration // since its last sign of life
	Load
}

// Lately is how long ago a sign of life may be for whoever gave it to be worth a
// word to people: a node that has been silent for longer, and is not connected to
// a controller that was heard from since, is gone.
const Lately = 2 * time.Minute

// mostListed is how many drones an explanation lists.
const mostListed = 10

// Explain says in one sentence for people why none of the drones took the
// backend. Those without room, to which a smaller wish might go, come first, each
// kind in order of name; of many, the first few are listed.
func Explain(wish Wish, drones []Refused) string {
	where := fmt.Sprintf("cluster %s, %s", wish.Cluster, pool(wish.Pool))
	if len(drones) == 0 {
		return "no drone is connected in " + where
	}
	drones = slices.Clone(drones)
	slices.SortFunc(drones, func(a, b Refused) int {
		if a.able(wish) != b.able(wish) {
			if a.able(wish) {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
	var listed []string
	for _, d := range drones[:min(len(drones), mostListed)] {
		listed = append(listed, d.Name+" "+d.why(wish))
	}
	if more := len(drones) - mostListed; more > 0 {
		listed = append(listed, fmt.Sprintf("and so on for %d more", more))
	}
	why := strings.Join(listed, ", ")
	switch {
	case !drones[0].able(wish):
		return fmt.Sprintf("no drone in %s can take a backend: %s", where, why)
	case wish.Asks == Resources{}:
		return fmt.Sprintf("no drone in %s has room: %s", where, why)
	}
	return fmt.Sprintf("no drone in %s has room: asked for %s; %s", where, amounts(wish.Asks), why)
}

func pool(name string) string {
	if name == "" {
		return "the default pool"
	}
	return "pool " + name
}

// able reports whether the drone may take backends at all.
func (d Refused) able(wish Wish) bool {
	return !d.Draining && !d.Unheard && d.Silent <= wish.Healthy
}

func (d Refused) why(wish Wish) string {
	switch {
	case d.Draining:
		return "is draining"
	case d.Silent > wish.Healthy:
		return fmt.Sprintf("has been silent for %v", d.Silent.Round(time.Second))
	case d.Unheard:
		return "has sent no heartbeat yet"
	case d.full():
		return fmt.Sprintf("is full (%d of %d backends)", d.Backends, d.Has.MaxBackends)
	case d.HasRoom(wish.Asks):
		return "has room by now"
	}
	return fmt.Sprintf("has %s free", d.free(wish.Asks))
}

// free shows what is left of what is asked for and limited.
func (d Refused) free(asks Resources) string {
	var parts []string
	if asks.MilliCPUs > 0 && d.Has.MilliCPUs > 0 {
		parts = append(parts, cpus(max(d.Has.MilliCPUs-d.Promised.MilliCPUs, 0)))
	}
	if asks.MemoryBytes > 0 && d.Has.MemoryBytes > 0 {
		parts = append(parts, memory(max(d.Has.MemoryBytes-d.Promised.MemoryBytes, 0), left))
	}
	return strings.Join(parts, " and ")
}

// rounding says which way what does not come out even is shown.
type rounding bool

// What is asked for is shown no smaller than it is, and what is left no greater:
// so what did not fit never looks as if it had.
const (
	asked rounding = true
	left  rounding = false
)

// amounts shows what is asked for.
func amounts(r Resources) string {
	var parts []string
	if r.MilliCPUs > 0 {
		parts = append(parts, cpus(r.MilliCPUs))
	}
	if r.MemoryBytes > 0 {
		parts = append(parts, memory(r.MemoryBytes, asked))
	}
	return strings.Join(parts, " and ")
}

func cpus(milli int64) string {
	number := strconv.FormatFloat(float64(milli)/1000, 'f', -1, 64)
	if milli == 1000 {
		return number + " CPU"
	}
	return number + " CPUs"
}

// memory shows bytes in the greatest unit of which there is one, to a hundredth.
func memory(bytes int64, round rounding) string {
	unit, size := "bytes", int64(1)
	for _, next := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if bytes < size*1024 {
			break
		}
		unit, size = next, size*1024
	}
	hundredths := bytes * 100 / size
	if round == asked && hundredths*size < bytes*100 {
		hundredths++
	}
	return strconv.FormatFloat(float64(hundredths)/100, 'f', -1, 64) + " " + unit
}
