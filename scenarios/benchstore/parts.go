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
	for _, database := range []string{"ours", "peer"} {
		if err := b.server.exec(ctx, database, "VACUUM (ANALYZE)"); err != nil {
			return err
		}
	}
	medians, err := b.takeTurns(ctx, o, p)
	if err != nil {
		return err
	}
	fmt.Printf("\n%d held keys, %d drones, best of %d; medians of %d rounds of %v each.\n", b.load.keys, drones, bestOf, b.load.rounds, b.load.cell)
	rates(os.Stdout, medians[o.name()], medians[p.name()], p.name())
	latencies(os.Stdout, medians[o.name()], medians[p.name()], p.name())
	efforts(os.Stdout, medians[o.name()], medians[p.name()], p.name())
	return nil
}
