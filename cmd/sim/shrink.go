package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"plane/sim/cluster"
)

func shrinkCommand() *cobra.Command {
	f := &flags{}
	c := &cobra.Command{
		Use:   "shrink",
		Short: "Leave out what a failing seed does not need to fail, and tell the story of what is left",
		Args:  cobra.NoArgs,
		RunE:  func(*cobra.Command, []string) error { return shrink(f.options(f.seed)) },
	}
	c.Flags().Uint64Var(&f.seed, "seed", 1, "the seed")
	return f.add(c)
}

// shrink leaves out kinds of faults and parts of the cluster, one by one, as
// long as the same guarantee is violated.
func shrink(opt cluster.Options) error {
	smallest := cluster.Run(opt, false)
	if len(smallest.Violations) == 0 {
		return fmt.Errorf("seed %d violates nothing", opt.Seed)
	}
	guarantee := smallest.Violations[0].Guarantee
	attempt := func(o cluster.Options) {
		r := cluster.Run(o, false)
		if len(r.Violations) > 0 && r.Violations[0].Guarantee == guarantee {
			smallest = r
		}
	}
	for again := true; again; {
		before := smallest
		for _, kind := range smallest.Options.Weather.Kinds() {
			o := smallest.Options
			o.Weather = o.Weather.Without(kind)
			attempt(o)
		}
		for _, part := range parts() {
			o := smallest.Options
			if n := part(&o.Shape); *n > 1 {
				*n--
				attempt(o)
			}
		}
		if o := smallest.Options; smallest.Violations[0].At < o.Storm-time.Minute {
			o.Storm = smallest.Violations[0].At.Round(time.Second) + time.Second
			attempt(o)
		}
		again = smallest.Hash != before.Hash
	}
	r := cluster.Run(smallest.Options, true)
	tellAround(r, 3*time.Minute, 5*time.Second)
	fmt.Printf("%+v %s\n", r.Options.Shape, r.Options.Weather)
	return report(r)
}

// parts are what a shape can have less of.
func parts() []func(*cluster.Shape) *int {
	return []func(*cluster.Shape) *int{
		func(s *cluster.Shape) *int { return &s.Controllers },
		func(s *cluster.Shape) *int { return &s.Drones },
		func(s *cluster.Shape) *int { return &s.Proxies },
		func(s *cluster.Shape) *int { return &s.Receivers },
		func(s *cluster.Shape) *int { return &s.Clients },
		func(s *cluster.Shape) *int { return &s.Keys },
	}
}
