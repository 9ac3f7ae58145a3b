package protocol

import (
	"encoding/json"
	"errors"
	"fmt"

	"plane/system/placement"
)

// Capacity (ours) is what a drone has for backends. Zero, and a field that is
// left out, is no limit.
type Capacity struct {
	MaxBackends int64 `json:"max_backends"`
	MilliCPUs   int64 `json:"milli_cpus"` // thousandths of a processor
	MemoryBytes int64 `json:"memory_bytes"`
}

// UnmarshalJSON refuses amounts that nobody can have.
func (c *Capacity) UnmarshalJSON(b []byte) error {
	o, err := parseObject(b)
	if err != nil {
		return fmt.Errorf("capacity: %w", err)
	}
	var read Capacity
	amount := func(name string, into *int64, most int64) error {
		return o.field(name, func(v json.RawMessage) error { return parseNumber(v, into, 0, most) })
	}
	err = errors.Join(
		amount("max_backends", &read.MaxBackends, placement.MostBackends),
		amount("milli_cpus", &read.MilliCPUs, placement.MostMilliCPUs),
		amount("memory_bytes", &read.MemoryBytes, placement.MostMemoryBytes),
	)
	if err != nil {
		return fmt.Errorf("capacity: %w", err)
	}
	*c = read
	return nil
}

// Resources (ours) is what backends were promised.
type Resources struct {
	MilliCPUs   int64 `json:"milli_cpus"`
	MemoryBytes int64 `json:"memory_bytes"`
}
