package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"plane/system/port"
)

// The parts.
const (
	connectPart = "connect"
	restPart    = "rest"
	historyPart = "history"
)

var parts = []string{connectPart, restPart, historyPart}

// options are what the command line says.
type options struct {
	parts   []string
	dir     string
	load    load
	rest    restLoad
	history int // terminated backends
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	o, err := parse(os.Args[1:])
	if err == nil {
		err = bench(ctx, o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchstore:", err)
		os.Exit(1)
	}
}

func parse(args []string) (options, error) {
	var o options
	var chosen string
	f := flag.NewFlagSet("benchstore", flag.ExitOnError)
	f.StringVar(&chosen, "part", strings.Join(parts, ","), "what to measure")
	f.StringVar(&o.dir, "dir", os.TempDir(), "where the server keeps its data: a real disk")
	f.IntVar(&o.load.rounds, "rounds", 3, "how often the contenders take turns")
	f.DurationVar(&o.load.cell, "for", 3*time.Second, "how long each measurement lasts")
	f.DurationVar(&o.load.warm, "warm", 500*time.Millisecond, "how long each warms up")
	f.BoolVar(&o.load.lean, "lean", false, "leave out the references between the tables of 0.5.x, and the indexes that its connects do not need: in its favour")
	f.IntVar(&o.load.keys, "keys", 1000, "how many keys are held")
	f.IntVar(&o.rest.backends, "backends", 10_000, "how many backends are at rest")
	f.DurationVar(&o.rest.watch, "watch", 24*time.Second, "for how long")
	f.DurationVar(&o.rest.settle, "settle", 2*renewEvery+port.HeartbeatEvery, "how long they are left alone before")
	f.IntVar(&o.rest.each, "each", 20_000, "how many statements of one each are run for comparison")
	f.IntVar(&o.history, "history", 1_250_000, "how many backends have ended before; each left eight states")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	o.parts = strings.Split(chosen, ",")
	for _, p := range o.parts {
		if !slices.Contains(parts, p) {
			return o, fmt.Errorf("-part: there is no %q; want any of %s", p, strings.Join(parts, ","))
		}
	}
	if o.load.rounds < 1 || o.load.keys < 1 || o.rest.backends < 1 || o.rest.each < 1 || o.history < 1 {
		return o, errors.New("-rounds, -keys, -backends, -each and -history: want 1 or more")
	}
	return o, nil
}

// bench starts a server, runs the parts on it and ends it.
func bench(ctx context.Context, o options) (err error) {
	s, err := startServer(ctx, o.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := introduce(ctx, s); err != nil {
		return err
	}
	b := &benchmark{options: o, server: s}
	for _, part := range []struct {
		name string
		run  func(ctx context.Context) error
	}{
		{connectPart, b.connect}, {restPart, b.atRest}, {historyPart, b.withHistory},
	} {
		if !slices.Contains(o.parts, part.name) {
			continue
		}
		began := time.Now()
		if err := part.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
		if err := s.drop(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
		say("%s: done in %v", part.name, time.Since(began).Round(time.Second))
	}
	return nil
}
