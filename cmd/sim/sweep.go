package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"plane/sim/cluster"
)

func sweepCommand() *cobra.Command {
	f := &flags{}
	c := &cobra.Command{
		Use:   "sweep",
		Short: "Play many seeds, each twice, and compare the traces; exit 1 when any fails",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return sweep(f) },
	}
	c.Flags().IntVar(&f.seeds, "seeds", 300, "how many seeds")
	c.Flags().Uint64Var(&f.from, "from", 1, "the first seed")
	c.Flags().IntVar(&f.jobs, "jobs", runtime.NumCPU(), "how many at once")
	return f.add(c)
}

// outcome is a seed that was played twice.
type outcome struct {
	seed   uint64
	first  cluster.Result
	events int
	differ bool
}

func (o outcome) failed() bool { return o.differ || len(o.first.Violations) > 0 }

func sweep(f *flags) error {
	began := time.Now()
	seeds, outcomes := make(chan uint64), make(chan outcome)
	var workers sync.WaitGroup
	for range f.jobs {
		workers.Go(func() {
			for seed := range seeds {
				outcomes <- twice(f, seed)
			}
		})
	}
	go func() {
		for i := range uint64(f.seeds) {
			seeds <- f.from + i
		}
		close(seeds)
		workers.Wait()
		close(outcomes)
	}()
	failed, events := collect(f, outcomes, began)
	wall := time.Since(began)
	fmt.Printf("%d seeds, each twice, in %v: %d failed; %d events, %.0f events/s\n",
		f.seeds, wall.Round(time.Second), len(failed), events, float64(events)/wall.Seconds())
	if len(failed) == 0 {
		return nil
	}
	tellFailed(f, failed)
	return errViolated
}

func twice(f *flags, seed uint64) outcome {
	a, b := cluster.Run(f.options(seed), false), cluster.Run(f.options(seed), false)
	return outcome{seed: seed, first: a, events: a.Events + b.Events, differ: a.Hash != b.Hash || a.Events != b.Events}
}

func collect(f *flags, outcomes <-chan outcome, began time.Time) (failed []outcome, events int) {
	done, told := 0, began
	for o := range outcomes {
		done++
		events += o.events
		if o.failed() {
			failed = append(failed, o)
			fmt.Println(line(o.first), what(o))
		}
		if time.Since(told) > 10*time.Second {
			told = time.Now()
			fmt.Fprintf(os.Stderr, "%d of %d seeds, %.0f events/s\n", done, f.seeds, float64(events)/time.Since(began).Seconds())
		}
	}
	slices.SortFunc(failed, func(a, b outcome) int { return int(a.seed) - int(b.seed) })
	return failed, events
}

func what(o outcome) string {
	if o.differ {
		return "the two runs differ"
	}
	return o.first.Violations[0].String()
}

func tellFailed(f *flags, failed []outcome) {
	at := commit()
	for _, o := range failed {
		fmt.Printf("seed %d at commit %s: %s\n  go run ./cmd/sim replay -seed %d %s\n", o.seed, at, what(o), o.seed, f)
	}
}
