package main

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"

	"plane/system/backend"
	"plane/system/protocol"
)

// table writes rows in columns; the first row is the heading.
func table(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		if _, err := fmt.Fprintln(t, strings.Join(row, "\t")); err != nil {
			return err
		}
	}
	return t.Flush()
}

func printCluster(w io.Writer, s protocol.ClusterState) error {
	rows := [][]string{{"DRONE", "STATE", "BACKENDS", "CPUS", "MEMORY", "HEARTBEAT", "VERSION", "CONTROLLER", "ITS HEARTBEAT"}}
	for _, d := range s.Drones {
		n := d.Node
		rows = append(rows, []string{n.Name.Drone, droneState(d), backendsOf(d), cpusOf(d), memoryOf(d), ago(d.LastHeartbeatAge), n.PlaneVersion, n.Controller, ago(n.ControllerHeartbeatAge)})
	}
	if len(s.Drones) == 0 {
		rows = [][]string{{"no drone is connected"}}
	}
	if err := table(w, rows); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	rows = [][]string{{"PROXY", "VERSION", "CONTROLLER", "ITS HEARTBEAT"}}
	for _, n := range s.Proxies {
		rows = append(rows, []string{n.Name.Proxy, n.PlaneVersion, n.Controller, ago(n.ControllerHeartbeatAge)})
	}
	if len(s.Proxies) == 0 {
		rows = [][]string{{"no proxy is connected"}}
	}
	return table(w, rows)
}

// What of a drone is taken, of how much.
func backendsOf(d protocol.DroneState) string {
	if d.Capacity.MaxBackends == 0 {
		return fmt.Sprint(d.BackendCount)
	}
	return fmt.Sprintf("%d of %d", d.BackendCount, d.Capacity.MaxBackends)
}

func cpusOf(d protocol.DroneState) string {
	return promised(d.Promised.MilliCPUs, d.Capacity.MilliCPUs, func(milli int64) string { return strconv.FormatFloat(float64(milli)/1000, 'f', -1, 64) })
}

func memoryOf(d protocol.DroneState) string {
	return promised(d.Promised.MemoryBytes, d.Capacity.MemoryBytes, func(bytes int64) string { return units.BytesSize(float64(bytes)) })
}

// promised shows what backends were promised and what there is; nothing where
// neither is stated.
func promised(taken, has int64, show func(int64) string) string {
	switch {
	case has > 0:
		return show(taken) + " of " + show(has)
	case taken > 0:
		return show(taken)
	}
	return ""
}

func droneState(d protocol.DroneState) string {
	switch {
	case d.Draining:
		return "draining"
	case d.Ready:
		return "ready"
	}
	return "not ready"
}

func ago(seconds int64) string { return fmt.Sprintf("%d s ago", seconds) }

func printEntries(w io.Writer, entries ...protocol.StatusEntry) error {
	rows := [][]string{{"STATUS", "SINCE", "WHY"}}
	for _, e := range entries {
		rows = append(rows, []string{e.Status.String(), e.Time.Local().Format(time.DateTime), why(e)})
	}
	return table(w, rows)
}

func why(e protocol.StatusEntry) string {
	if e.Status.Alive() {
		return ""
	}
	return explainEnd(e)
}

var reasons = map[backend.Reason]string{
	backend.Swept:          "idle or past its lifetime",
	backend.External:       "asked for through the API",
	backend.KeyExpired:     "its key's lease ran out",
	backend.Lost:           "its drone is gone",
	backend.StartupTimeout: "it did not answer HTTP in time",
	backend.InternalError:  "it could not be started",
}

// explainEnd says in words why a backend ends or has ended.
func explainEnd(e protocol.StatusEntry) string {
	parts := []string{cmp.Or(reasons[e.TerminationReason], string(e.TerminationReason), "it ended by itself")}
	if e.TerminationKind != "" {
		parts = append(parts, string(e.TerminationKind)+" termination")
	}
	if e.OOM {
		parts = append(parts, "out of memory")
	}
	if e.ExitCode != nil {
		parts = append(parts, fmt.Sprintf("exit code %d", *e.ExitCode))
	} else if e.ExitError != nil && *e.ExitError {
		parts = append(parts, "with an error")
	}
	if e.Message != "" {
		parts = append(parts, e.Message)
	}
	return strings.Join(parts, ", ")
}
