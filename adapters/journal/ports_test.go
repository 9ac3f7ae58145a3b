package journal_test

import (
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/journal"
	"plane/system/port"
	"plane/system/porttest"
)

var _ port.Ports = (*journal.Ports)(nil)

// machine is a machine's time since boot, moved by hand.
type machine struct {
	since time.Duration
	boot  string
}

func (m *machine) SinceBoot() time.Duration { return m.since }
func (m *machine) BootID() string           { return m.boot }

const low, high = 21000, 21019

func open(t *testing.T, path, owner string, m *machine) *journal.Ports {
	t.Helper()
	p, err := journal.OpenPorts(path, owner, low, high, m)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p
}

func TestPorts(t *testing.T) {
	porttest.Ports(t, func(t *testing.T) porttest.PortsWorld {
		m := &machine{boot: "one"}
		path := filepath.Join(t.TempDir(), "ports.db")
		return porttest.PortsWorld{
			Open:  func(drone string) port.Ports { return open(t, path, drone, m) },
			Range: high - low + 1,
			Pass:  func(d time.Duration) { m.since += d },
		}
	})
}

func TestProcessesShareTheTable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ports.db")
	m := &machine{boot: "one"}
	got := make([]int, high-low+1)
	failed := make([]error, len(got))
	var all sync.WaitGroup
	for n := range got {
		all.Go(func() {
			p, err := journal.OpenPorts(path, fmt.Sprint(n), low, high, m)
			if err != nil {
				failed[n] = err
				return
			}
			got[n], failed[n] = p.Acquire(t.Context(), "b")
			if err := p.Close(); err != nil {
				failed[n] = err
			}
		})
	}
	all.Wait()
	seen := map[int]bool{}
	for n, port := range got {
		require.NoError(t, failed[n])
		require.False(t, seen[port], "port %d was given out twice", port)
		seen[port] = true
	}
}

func TestQuarantineOutlivesABoot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ports.db")
	m := &machine{since: time.Hour, boot: "one"}
	p := open(t, path, "dr-a", m)
	for n := range high - low + 1 {
		_, err := p.Acquire(t.Context(), fmt.Sprint(n))
		require.NoError(t, err)
	}
	require.NoError(t, p.Release(t.Context(), "0", time.Minute))

	m = &machine{since: 2 * time.Hour, boot: "two"}
	p = open(t, path, "dr-a", m)
	_, err := p.Acquire(t.Context(), "x")
	require.ErrorContains(t, err, "no port from 21000 to 21019 is free", "nobody knows how long the machine was off")
	m.since += time.Minute
	_, err = p.Acquire(t.Context(), "x")
	require.NoError(t, err)
}

func TestPortsThatOthersListenOnAreSkipped(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(low))
	require.NoError(t, err)
	defer l.Close() //nolint:errcheck // test
	p, err := journal.OpenPorts(filepath.Join(t.TempDir(), "ports.db"), "dr-a", low, low+1, &machine{boot: "one"})
	require.NoError(t, err)
	defer p.Close() //nolint:errcheck // test
	got, err := p.Acquire(t.Context(), "b")
	require.NoError(t, err)
	require.Equal(t, low+1, got)
	_, err = p.Acquire(t.Context(), "c")
	require.ErrorContains(t, err, "other programs listen")
}

func TestReleaseOthersKeepsWhatIsKnown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ports.db")
	m := &machine{boot: "one"}
	mine, theirs := open(t, path, "dr-a", m), open(t, path, "dr-b", m)
	held := map[string]int{}
	for _, id := range []string{"kept", "forgotten"} {
		port, err := mine.Acquire(t.Context(), id)
		require.NoError(t, err)
		held[id] = port
	}
	other, err := theirs.Acquire(t.Context(), "forgotten")
	require.NoError(t, err)

	require.NoError(t, mine.ReleaseOthers(t.Context(), []string{"kept"}, time.Minute))

	got, err := mine.Acquire(t.Context(), "kept")
	require.NoError(t, err)
	require.Equal(t, held["kept"], got)
	got, err = mine.Acquire(t.Context(), "forgotten")
	require.NoError(t, err)
	require.NotEqual(t, held["forgotten"], got, "it was released")
	got, err = theirs.Acquire(t.Context(), "forgotten")
	require.NoError(t, err)
	require.Equal(t, other, got, "another drone's")
}
