package main

import (
	"errors"
	"fmt"
	"time"

	"plane/system/port"
	"plane/system/protocol"
)

func liveError(id string, err error) error {
	if errors.Is(err, port.ErrNotFound) {
		return fmt.Errorf("there is no backend %q, or it is terminated", id)
	}
	return databaseError(err)
}

var nodeHeading = []string{"CLUSTER", "NODE", "POOL", "STATE", "BACKENDS", "CPUS", "MEMORY", "LAST HEARD", "VERSION", "CONTROLLER"}

func nodeRow(n port.Node) []string {
	row := []string{n.Cluster, n.Name, n.Pool, nodeState(n), "", "", "", agoText(n.Silent), n.Version.Version, n.Controller}
	if n.Kind == port.DroneNode {
		d := protocol.DroneState{BackendCount: int64(n.Backends), Capacity: protocol.Capacity(n.Capacity), Promised: protocol.Resources(n.Promised)}
		row[4], row[5], row[6] = backendsOf(d), cpusOf(d), memoryOf(d)
	}
	return row
}

func nodeState(n port.Node) string {
	switch {
	case !n.Connected:
		return "away"
	case n.Draining:
		return "draining"
	}
	return "connected"
}

func agoText(d time.Duration) string { return d.Round(time.Second).String() + " ago" }

func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }

func nodeJSON(n port.Node) any {
	shown := struct {
		Kind          port.NodeKind     `json:"kind"`
		Cluster       string            `json:"cluster"`
		Name          string            `json:"name"`
		Version       protocol.Version  `json:"version"`
		Controller    string            `json:"controller"`
		Connected     bool              `json:"connected"`
		SilentSeconds float64           `json:"silent_seconds"`
		Drone         *nodeJSONForDrone `json:"drone,omitempty"`
	}{n.Kind, n.Cluster, n.Name, n.Version, n.Controller, n.Connected, seconds(n.Silent), nil}
	if n.Kind == port.DroneNode {
		shown.Drone = &nodeJSONForDrone{
			Pool: n.Pool, Draining: n.Draining, Backends: n.Backends,
			MaxBackends: n.Capacity.MaxBackends, MilliCPUs: n.Capacity.MilliCPUs, MemoryBytes: n.Capacity.MemoryBytes,
			PromisedMilliCPUs: n.Promised.MilliCPUs, PromisedMemoryBytes: n.Promised.MemoryBytes,
		}
	}
	return shown
}

// nodeJSONForDrone is what only drones have; a limit of 0 is none.
type nodeJSONForDrone struct {
	Pool                string `json:"pool"`
	Draining            bool   `json:"draining"`
	Backends            int    `json:"backends"`
	MaxBackends         int64  `json:"max_backends"`
	MilliCPUs           int64  `json:"milli_cpus"`
	MemoryBytes         int64  `json:"memory_bytes"`
	PromisedMilliCPUs   int64  `json:"promised_milli_cpus"`
	PromisedMemoryBytes int64  `json:"promised_memory_bytes"`
}

var backendHeading = []string{"BACKEND", "KEY", "STATUS", "SINCE", "CREATED", "DRONE", "ADDRESS", "CLUSTER", "WHY"}

func backendRow(b port.Backend) []string {
	e := showBackend(b)
	return []string{
		b.ID, keyText(b.Key), e.Status.String(), e.Time.Local().Format(time.DateTime), e.CreatedAt.Local().Format(time.DateTime),
		b.Drone, e.Address, b.Cluster, plain(why(e.StatusEntry)),
	}
}

// shownBackend is a backend for programs: as the API shows it, with what is
// known besides.
type shownBackend struct {
	protocol.BackendEntry
	Cluster    string `json:"cluster"`
	Controller string `json:"controller,omitempty"` // where its drone is connected
}

func backendJSON(b port.Backend) any { return showBackend(b) }

func showBackend(b port.Backend) shownBackend {
	return shownBackend{Cluster: b.Cluster, Controller: b.Controller, BackendEntry: protocol.BackendEntry{
		ID: b.ID, Key: b.Key, Drone: b.Drone, CreatedAt: protocol.Millis{Time: b.CreatedAt}, Address: b.State.Address,
		StatusEntry: protocol.NewStatusEntry(b.State, protocol.Millis{Time: b.StateTime}),
	}}
}

var candidateHeading = []string{"BACKEND", "STATUS", "WHY", "TOLD TO END", "DRONE", "LAST HEARD", "KEY", "CLUSTER"}

func candidateRow(c port.TerminationCandidate) []string {
	told := "no"
	if c.Kind != "" {
		told = string(c.Kind)
	}
	b := c.Backend
	return []string{b.ID, b.State.Status.String(), string(c.Why), told, c.Drone, agoText(c.Silent), keyText(b.Key), b.Cluster}
}

func candidateJSON(c port.TerminationCandidate) any {
	return struct {
		shownBackend
		Why                string  `json:"why"`
		Termination        string  `json:"termination,omitempty"`
		DroneSilentSeconds float64 `json:"drone_silent_seconds"`
	}{showBackend(c.Backend), string(c.Why), string(c.Kind), seconds(c.Silent)}
}
