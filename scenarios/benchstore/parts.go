package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// benchmark is one run.
type benchmark struct {
	options
	server *server
}

// say tells of progress. Figures go to standard output.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

// introduce says what was measured on.
func introduce(ctx context.Context, s *server) error {
	version, err := s.version(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("PostgreSQL %s and its clients on one machine: %d × %s. fsync on, data on a disk; pools of %d.\n", version, runtime.NumCPU(), processor(), poolSize)
	return nil
}

func processor() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if field, value, ok := strings.Cut(lines.Text(), ":"); ok && strings.TrimSpace(field) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// connect measures our connects against the peer's.
func (b *benchmark) connect(ctx context.Context) (err error) {
	o, err := openOurs(ctx, b.server, b.load, "Plane", "ours")
	if err != nil {
		return fmt.Errorf("ours: %w", err)
	}
	defer func() { err = errors.Join(err, o.close()) }()
	p, err := openPeer(ctx, b.server, b.load)
	if err != nil {
		return fmt.Errorf("peer: %w", err)
	}
	defer func() { err = errors.Join(err, p.close()) }()
	if err := b.ready(ctx, map[string]contender{"ours": o, "peer": p}); err != nil {
		return err
	}
	medians, err := b.takeTurns(ctx, o, p)
	if err != nil {
		return err
	}
	tables := "with the references and indexes that they have"
	if b.load.lean {
		tables = "without references, and with no more indexes than its connects need"
	}
	fmt.Printf("\n%d held keys, %d drones, best of %d; the tables of 0.5.x %s; medians of %d rounds of %v each.\n", b.load.keys, drones, bestOf, tables, b.load.rounds, b.load.cell)
	rates(os.Stdout, medians[o.name()], medians[p.name()], p.name())
	latencies(os.Stdout, medians[o.name()], medians[p.name()], p.name())
	efforts(os.Stdout, medians[o.name()], medians[p.name()], p.name())
	return nil
}

// ready leaves each contender's database as that of a cluster that has been in
// use for a while: some backends have come and gone, and the server knows how
// large the tables are. Of a table that it knows to be empty it thinks that any
// index is as good as any other, and keeps to that until it is told otherwise.
func (b *benchmark) ready(ctx context.Context, contenders map[string]contender) error {
	for database, c := range contenders {
		if _, _, err := run(ctx, b.load, c, cell{freshKind, 16}, b.load.warm); err != nil {
			return err
		}
		if err := c.endFresh(ctx); err != nil {
			return err
		}
		if err := b.server.exec(ctx, database, "VACUUM (ANALYZE)"); err != nil {
			return err
		}
	}
	return nil
}
