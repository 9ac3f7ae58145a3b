// Command sim plays simulated clusters: one seed, its story, or many seeds.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"plane/sim/cluster"
)

func main() {
	root := &cobra.Command{
		Use:           "sim",
		Short:         "Play simulated Plane clusters; the same seed gives the same run at the same commit",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetArgs(doubled(os.Args[1:]))
	root.AddCommand(runCommand(), replayCommand(), sweepCommand(), shrinkCommand())
	if err := root.Execute(); err != nil {
		if !errors.Is(err, errViolated) {
			fmt.Fprintln(os.Stderr, "sim:", err)
		}
		os.Exit(1)
	}
}

// doubled lets flags be written with one dash, as Go's tools have them.
func doubled(args []string) []string {
	for i, a := range args {
		if len(a) > 2 && a[0] == '-' && a[1] != '-' {
			args[i] = "-" + a
		}
	}
	return args
}

// errViolated ends the program with 1; what there was to say has been said.
var errViolated = fmt.Errorf("a guarantee was violated")

// flags that every subcommand has.
type flags struct {
	seed    uint64
	minutes int
	from    uint64
	seeds   int
	jobs    int
	verbose bool
	// controllers is how many each cluster has; 0: the seed says.
	controllers int
}

func (f *flags) options(seed uint64) cluster.Options {
	o := cluster.Draw(seed, time.Duration(f.minutes)*time.Minute)
	if f.controllers > 0 {
		o.Shape.Controllers = f.controllers
	}
	return o
}

// String is the flags that a replay needs as well.
func (f *flags) String() string {
	s := fmt.Sprint("-minutes ", f.minutes)
	if f.controllers > 0 {
		s += fmt.Sprint(" -controllers ", f.controllers)
	}
	return s
}

func (f *flags) add(c *cobra.Command) *cobra.Command {
	c.Flags().IntVar(&f.minutes, "minutes", 10, "virtual minutes of weather; then everything heals for some more")
	c.Flags().IntVar(&f.controllers, "controllers", 0, "how many controllers each cluster has (0: as the seed says)")
	return c
}

func runCommand() *cobra.Command {
	f := &flags{}
	c := &cobra.Command{
		Use:   "run",
		Short: "Play one seed and print one line; exit 1 when a guarantee was violated",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			r := cluster.Run(f.options(f.seed), f.verbose)
			for _, line := range r.Story {
				fmt.Println(line)
			}
			return report(r)
		},
	}
	c.Flags().Uint64Var(&f.seed, "seed", 1, "the seed")
	c.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "tell the story")
	return f.add(c)
}

// report prints the line for programs.
func report(r cluster.Result) error {
	fmt.Println(line(r))
	if len(r.Violations) > 0 {
		return errViolated
	}
	return nil
}

func line(r cluster.Result) string {
	return fmt.Sprintf("seed=%d hash=%016x events=%d violations=%d virtual=%s wall=%s",
		r.Options.Seed, r.Hash, r.Events, len(r.Violations), minutes(r.Options.Storm), r.Wall.Round(time.Millisecond))
}

func minutes(d time.Duration) string { return fmt.Sprintf("%gm", d.Minutes()) }

func replayCommand() *cobra.Command {
	f := &flags{}
	var before, after time.Duration
	c := &cobra.Command{
		Use:   "replay",
		Short: "Play one seed and tell what happened around its first violation",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			r := cluster.Run(f.options(f.seed), true)
			tellAround(r, before, after)
			return report(r)
		},
	}
	c.Flags().Uint64Var(&f.seed, "seed", 1, "the seed")
	c.Flags().DurationVar(&before, "before", 90*time.Second, "how much of the story to tell before the violation")
	c.Flags().DurationVar(&after, "after", 5*time.Second, "and after it")
	return f.add(c)
}

func tellAround(r cluster.Result, before, after time.Duration) {
	if len(r.Violations) == 0 {
		return
	}
	at := r.Violations[0].At
	for i, l := range r.Story {
		if i == 0 || l.At >= at-before && l.At <= at+after {
			fmt.Println(l)
		}
	}
	for _, v := range r.Violations {
		fmt.Println(v)
	}
}

// commit is what a seed belongs to.
func commit() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		revision, modified := "", ""
		for _, s := range info.Settings {
			switch {
			case s.Key == "vcs.revision":
				revision = s.Value
			case s.Key == "vcs.modified" && s.Value == "true":
				modified = "+changes"
			}
		}
		if revision != "" {
			return revision + modified
		}
	}
	out, err := exec.CommandContext(context.Background(), "git", "rev-parse", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	hash := strings.TrimSpace(string(out))
	if status, err := exec.CommandContext(context.Background(), "git", "status", "--porcelain").Output(); err != nil || len(status) > 0 {
		hash += "+changes"
	}
	return hash
}
