package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"plane/adapters/apiclient"
	"plane/system/protocol"
)

func (a *admin) metricsCommand() *cobra.Command {
	var live bool
	cmd := &cobra.Command{
		Use:   "metrics BACKEND",
		Short: "Say what a backend uses",
		Long: `Say what memory and processor a backend uses, as its drone tells about every 10 s.
Any controller can be asked.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: a.call(func(cmd *cobra.Command, c *apiclient.Client, given []string) error {
			if live {
				return a.followMetrics(cmd, c, given[0])
			}
			ctx, cancel := short(cmd)
			defer cancel()
			entry, err := c.Metrics(ctx, given[0])
			if err != nil {
				return err
			}
			if a.json {
				return printJSON(cmd.OutOrStdout(), entry)
			}
			return table(cmd.OutOrStdout(), [][]string{metricsHeading, metricsRow(entry, time.Now())})
		}),
	}
	cmd.Flags().BoolVar(&live, "follow", false, "go on with what comes, one line each, until the backend ends")
	return cmd
}

var metricsHeading = []string{"TIME", "MEMORY", "LIMIT", "ACTIVE", "CPU (OF MACHINE)"}

// metricsRow shows an entry that was received now.
func metricsRow(e protocol.MetricsEntry, now time.Time) []string {
	limit := "none"
	if e.MemLimit > 0 {
		limit = sizeText(e.MemLimit)
	}
	share := "unknown"
	if e.SysCPU > 0 {
		share = fmt.Sprintf("%.1f %%", 100*float64(e.CPUUsed)/float64(e.SysCPU))
	}
	told := now.Add(-time.Duration(e.AgeMillis) * time.Millisecond)
	return []string{told.Local().Format(time.TimeOnly), sizeText(e.MemUsed), limit, sizeText(e.MemActive), share}
}

func sizeText(bytes uint64) string { return units.BytesSize(float64(bytes)) }

// followMetrics prints a line for each entry, for programs one JSON object.
func (a *admin) followMetrics(cmd *cobra.Command, c *apiclient.Client, id string) error {
	out := cmd.OutOrStdout()
	begun := false
	err := c.MetricsStream(cmd.Context(), id, func(e protocol.MetricsEntry) error {
		if a.json {
			return json.NewEncoder(out).Encode(e)
		}
		if !begun {
			begun = true
			if err := columns(out, metricsHeading); err != nil {
				return err
			}
		}
		return columns(out, metricsRow(e, time.Now()))
	})
	if cmd.Context().Err() != nil {
		return context.Cause(cmd.Context())
	}
	return err
}

// columns writes one row whose columns are as wide in every row.
func columns(w io.Writer, row []string) error {
	var line strings.Builder
	for i, cell := range row {
		if i == len(row)-1 {
			line.WriteString(cell)
			break
		}
		fmt.Fprintf(&line, "%-12s", cell)
	}
	_, err := fmt.Fprintln(w, line.String())
	return err
}
