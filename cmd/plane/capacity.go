package main

import (
	"math"
	"strconv"

	"github.com/docker/go-units"
	"github.com/spf13/pflag"

	"plane/system/placement"
)

// capacitySettings are what flags and configuration files say of what a drone
// has for backends.
type capacitySettings struct {
	MaxBackends int64  // 0: no limit
	CPUs        string // such as 3.5; empty: what the machine has; 0: no limit
	Memory      string // such as 16GiB; likewise
}

func capacityFlags(f *pflag.FlagSet, s *capacitySettings) {
	f.Int64Var(&s.MaxBackends, "max-backends", 0, "how many backends run here at most; 0: no limit")
	f.StringVar(&s.CPUs, "cpus", "", "how many CPUs may be promised to backends that ask for some, such as 3.5; 0: no limit (default: what the machine has)")
	f.StringVar(&s.Memory, "memory", "", "how much memory may be promised to backends that ask for some, such as 16GiB; 0: no limit (default: what the machine has)")
}

// of returns what the settings say; what they leave open is the machine's.
func (s capacitySettings) of(machine placement.Capacity) (placement.Capacity, error) {
	has := placement.Capacity{
		MaxBackends: s.MaxBackends,
		MilliCPUs:   min(machine.MilliCPUs, placement.MostMilliCPUs),
		MemoryBytes: min(machine.MemoryBytes, placement.MostMemoryBytes),
	}
	if s.MaxBackends < 0 || s.MaxBackends > placement.MostBackends {
		return has, usage("--max-backends: want 1 to %d, or 0 for no limit, not %d", placement.MostBackends, s.MaxBackends)
	}
	if s.CPUs != "" {
		cpus, err := strconv.ParseFloat(s.CPUs, 64)
		has.MilliCPUs = int64(math.Round(cpus * 1000))
		if err != nil || !(cpus == 0 || cpus >= 0.001) || cpus > placement.MostMilliCPUs/1000 {
			return has, usage("--cpus: want a number such as 3.5, or 0 for no limit, not %q", s.CPUs)
		}
	}
	if s.Memory != "" {
		bytes, err := units.RAMInBytes(s.Memory)
		if has.MemoryBytes = bytes; err != nil || bytes < 0 || bytes > placement.MostMemoryBytes {
			return has, usage("--memory: want an amount such as 16GiB, 64TiB at most, or 0 for no limit, not %q", s.Memory)
		}
	}
	return has, nil
}
