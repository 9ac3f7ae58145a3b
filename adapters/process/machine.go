package process

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"plane/system/placement"
)

// Machine is what this machine has: the processors that this process may use,
// and all memory, whoever uses it.
func Machine() (placement.Capacity, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return placement.Capacity{}, fmt.Errorf("ask how much memory there is: %w", err)
	}
	return placement.Capacity{
		MilliCPUs:   int64(runtime.NumCPU()) * 1000,
		MemoryBytes: int64(info.Totalram) * int64(info.Unit), //nolint:unconvert // the type of Totalram differs between machines
	}, nil
}
