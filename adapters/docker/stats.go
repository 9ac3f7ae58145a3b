package docker

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"

	"plane/system/port"
)

// Stats implements port.ContainerRuntime.
func (r *Runtime) Stats(ctx context.Context, backendID string) (port.Stats, error) {
	c, err := r.own(ctx, backendID)
	if err != nil {
		return port.Stats{}, err
	}
	if !c.State.Running {
		return port.Stats{}, port.ErrNoContainer
	}
	ctx, cancel := r.call(ctx)
	defer cancel()
	answer, err := r.engine.ContainerStatsOneShot(ctx, c.ID)
	if errdefs.IsNotFound(err) {
		return port.Stats{}, port.ErrNoContainer
	}
	if err != nil {
		return port.Stats{}, fmt.Errorf("measure container %s: %w", c.Name, cause(ctx, err))
	}
	defer answer.Body.Close()
	var s container.StatsResponse
	if err := json.NewDecoder(answer.Body).Decode(&s); err != nil {
		return port.Stats{}, fmt.Errorf("measure container %s: %w", c.Name, cause(ctx, err))
	}
	if s.Read.IsZero() { // it has ended since
		return port.Stats{}, port.ErrNoContainer
	}
	return measured(s), nil
}

// measured translates the engine's figures. Under cgroup v1 the keys of a whole
// container are called total_*; under v2 there is no such prefix. Used is the
// working set: what cannot be dropped without anybody noticing.
func measured(s container.StatsResponse) port.Stats {
	figure := func(key string) uint64 {
		if v, ok := s.MemoryStats.Stats["total_"+key]; ok {
			return v
		}
		return s.MemoryStats.Stats[key]
	}
	usage := s.MemoryStats.Usage
	used := usage - min(usage, figure("inactive_file"))
	return port.Stats{
		MemUsed:        used,
		MemTotal:       usage,
		MemActive:      figure("active_anon") + figure("active_file"),
		MemInactive:    figure("inactive_anon") + figure("inactive_file"),
		MemUnevictable: figure("unevictable"),
		MemLimit:       s.MemoryStats.Limit,
		CPU:            time.Duration(s.CPUStats.CPUUsage.TotalUsage),
		SystemCPU:      time.Duration(s.CPUStats.SystemUsage),
	}
}
