package process_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"plane/adapters/process"
)

func TestMachineHasWhatTheKernelSays(t *testing.T) {
	has, err := process.Machine()
	require.NoError(t, err)
	meminfo, err := os.ReadFile("/proc/meminfo")
	require.NoError(t, err)
	first, _, _ := strings.Cut(string(meminfo), "\n")
	var kib int64
	_, err = fmt.Sscanf(first, "MemTotal: %d kB", &kib)
	require.NoError(t, err)
	require.InDelta(t, kib<<10, has.MemoryBytes, 1<<20)
	cpuinfo, err := os.ReadFile("/proc/cpuinfo")
	require.NoError(t, err)
	require.GreaterOrEqual(t, has.MilliCPUs, int64(1000))
	require.LessOrEqual(t, has.MilliCPUs, int64(1000*strings.Count(string(cpuinfo), "processor")))
}
