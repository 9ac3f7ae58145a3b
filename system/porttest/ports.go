package porttest

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/port"
)

// PortsWorld is a machine with ports.
type PortsWorld struct {
	// Open gives the ports to a drone of the machine; called again for the same
	// drone, to an agent that was started again.
	Open func(drone string) port.Ports
	// Range is how many ports there are to give out: at least 2, at most 100.
	Range int
	// Pass lets time pass on the machine.
	Pass func(time.Duration)
}

// Ports checks a port.Ports. Open is called once for each test.
func Ports(t *testing.T, open func(t *testing.T) PortsWorld) {
	const minute = time.Minute
	t.Run("a backend keeps its port, also after a restart", func(t *testing.T) {
		w := open(t)
		p := acquire(t, w.Open("dr-a"), "b1")
		require.Equal(t, p, acquire(t, w.Open("dr-a"), "b1"))
		w.Pass(1000 * time.Hour)
		require.Equal(t, p, acquire(t, w.Open("dr-a"), "b1"))
	})
	t.Run("no port is given out twice, whatever drones there are", func(t *testing.T) {
		w := open(t)
		given := map[int]bool{}
		for n := range w.Range {
			// The same name in two clusters is another backend.
			drone, backendID := []string{"dr-a", "dr-b"}[n%2], string(rune('a'+n/2))
			p := acquire(t, w.Open(drone), backendID)
			require.False(t, given[p], "port %d", p)
			given[p] = true
		}
		_, err := w.Open("dr-a").Acquire(t.Context(), "one-more")
		require.Error(t, err)
	})
	t.Run("a released port comes back after its quarantine and not before", func(t *testing.T) {
		w := open(t)
		fill(t, w)
		require.NoError(t, w.Open("dr-a").Release(t.Context(), "b", minute))
		w.Pass(minute / 2)
		require.NoError(t, w.Open("dr-a").Release(t.Context(), "b", minute), "again, without effect")
		w.Pass(minute/2 - time.Second)
		_, err := w.Open("dr-b").Acquire(t.Context(), "late")
		require.Error(t, err)
		w.Pass(2 * time.Second)
		acquire(t, w.Open("dr-b"), "late")
	})
	t.Run("a backend that comes back does not get the port that it released", func(t *testing.T) {
		w := open(t)
		ports := w.Open("dr-a")
		p := acquire(t, ports, "b")
		require.NoError(t, ports.Release(t.Context(), "b", minute))
		require.NotEqual(t, p, acquire(t, ports, "b"))
	})
	t.Run("a release is for the own backend only", func(t *testing.T) {
		w := open(t)
		p := acquire(t, w.Open("dr-a"), "b")
		require.NoError(t, w.Open("dr-b").Release(t.Context(), "b", 0))
		require.NoError(t, w.Open("dr-a").Release(t.Context(), "unknown", 0))
		require.Equal(t, p, acquire(t, w.Open("dr-a"), "b"))
	})
	t.Run("a replaced port is put aside", func(t *testing.T) {
		w := open(t)
		ports := w.Open("dr-a")
		p := acquire(t, ports, "b")
		q, err := ports.Replace(t.Context(), "b")
		require.NoError(t, err)
		require.NotEqual(t, p, q)
		require.Equal(t, q, acquire(t, ports, "b"))
		for n := range w.Range - 2 {
			require.NotEqual(t, p, acquire(t, ports, "other-"+string(rune('a'+n))))
		}
		_, err = ports.Acquire(t.Context(), "too-many")
		require.Error(t, err, "the one that was put aside is not free yet")
	})
}

// fill takes all ports; backend b of dr-a has one of them.
func fill(t *testing.T, w PortsWorld) {
	acquire(t, w.Open("dr-a"), "b")
	for n := range w.Range - 1 {
		acquire(t, w.Open("dr-a"), "other-"+string(rune('a'+n)))
	}
}

func acquire(t *testing.T, p port.Ports, backendID string) int {
	t.Helper()
	got, err := p.Acquire(t.Context(), backendID)
	require.NoError(t, err)
	require.Positive(t, got)
	return got
}
