package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"plane/system/placement"
	"plane/system/protocol"
)

func TestCapacity(t *testing.T) {
	const gib = 1 << 30
	machine := placement.Capacity{MilliCPUs: 8000, MemoryBytes: 16 * gib}
	for name, test := range map[string]struct {
		given capacitySettings
		want  placement.Capacity
	}{
		"what the machine has": {capacitySettings{}, machine},
		"no limits":            {capacitySettings{CPUs: "0", Memory: "0"}, placement.Capacity{}},
		"less than it has":     {capacitySettings{MaxBackends: 10, CPUs: "3.5", Memory: "1.5GiB"}, placement.Capacity{MaxBackends: 10, MilliCPUs: 3500, MemoryBytes: 3 * gib / 2}},
		"more than it has":     {capacitySettings{CPUs: "64", Memory: "64TiB"}, placement.Capacity{MilliCPUs: 64000, MemoryBytes: placement.MostMemoryBytes}},
		"plain bytes":          {capacitySettings{Memory: "8589934592"}, placement.Capacity{MilliCPUs: 8000, MemoryBytes: 8 * gib}},
		"a thousandth":         {capacitySettings{CPUs: "0.001", Memory: "512m"}, placement.Capacity{MilliCPUs: 1, MemoryBytes: gib / 2}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := test.given.of(machine)
			require.NoError(t, err)
			require.Equal(t, test.want, got)
		})
	}
	for name, test := range map[string]struct {
		given capacitySettings
		says  string
	}{
		"less than no backends": {capacitySettings{MaxBackends: -1}, "--max-backends: want 1 to 1000000000, or 0 for no limit, not -1"},
		"words":                 {capacitySettings{CPUs: "all"}, `--cpus: want a number such as 3.5, or 0 for no limit, not "all"`},
		"less than no CPU":      {capacitySettings{CPUs: "-1"}, "--cpus"},
		"next to no CPU":        {capacitySettings{CPUs: "0.0004"}, "--cpus"},
		"not a number":          {capacitySettings{CPUs: "NaN"}, "--cpus"},
		"endless CPUs":          {capacitySettings{CPUs: "Inf"}, "--cpus"},
		"no such unit":          {capacitySettings{Memory: "8 apples"}, `--memory: want an amount such as 16GiB, 64TiB at most, or 0 for no limit, not "8 apples"`},
		"less than no memory":   {capacitySettings{Memory: "-1g"}, "--memory"},
		"too much memory":       {capacitySettings{Memory: "65TiB"}, "--memory"},
		"endless memory":        {capacitySettings{Memory: "1e300"}, "--memory"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := test.given.of(machine)
			require.ErrorContains(t, err, test.says)
		})
	}
}

func TestClusterShowsWhatIsPromised(t *testing.T) {
	state := protocol.ClusterState{Drones: []protocol.DroneState{
		{
			Ready: true, BackendCount: 3, Capacity: protocol.Capacity{MaxBackends: 10, MilliCPUs: 4000, MemoryBytes: 8 << 30},
			Promised: protocol.Resources{MilliCPUs: 1500}, Node: protocol.NodeState{Name: protocol.NodeName{Drone: "dr-a"}, PlaneVersion: "v"},
		},
		{BackendCount: 2, Promised: protocol.Resources{MemoryBytes: 3 << 29}, Node: protocol.NodeState{Name: protocol.NodeName{Drone: "dr-old"}, PlaneVersion: "v"}},
	}}
	var out bytes.Buffer
	require.NoError(t, printCluster(&out, state))
	require.Equal(t, `DRONE   STATE      BACKENDS  CPUS      MEMORY      HEARTBEAT  VERSION  CONTROLLER  ITS HEARTBEAT
dr-a    ready      3 of 10   1.5 of 4  0B of 8GiB  0 s ago    v                    0 s ago
dr-old  not ready  2                   1.5GiB      0 s ago    v                    0 s ago

no proxy is connected
`, out.String())
}
