package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"plane/adapters/clock"
	"plane/adapters/docker"
	"plane/adapters/executor"
	"plane/adapters/guard"
	"plane/adapters/process"
	"plane/demo/whiteboard"
)

// guardSettings are what a guard's process is told on its command line.
type guardSettings struct {
	Dir, Drone, Runtime, Backends, Socket string
	Stay                                  bool
}

func (s guardSettings) arguments() []string {
	return []string{
		guard.Command, "--dir", s.Dir, "--drone", s.Drone, "--runtime", s.Runtime, "--backends", s.Backends,
		"--socket", s.Socket, "--stay=" + strconv.FormatBool(s.Stay),
	}
}

// startGuard finds the drone's lease guard, or starts it: as a process, or in a
// container beside the agent's.
func startGuard(ctx context.Context, s guardSettings, beside sibling, clk *clock.Boot, log *slog.Logger) (*guard.Client, error) {
	cfg := guard.ClientConfig{Dir: s.Dir, Clock: clk, Log: log}
	if beside.engine == nil {
		cfg.Launcher = guard.ProcessLauncher{Dir: s.Dir, Args: s.arguments()}
		return guard.Start(ctx, cfg)
	}
	launcher, err := beside.launcher(s)
	if err != nil {
		return nil, err
	}
	// Also one that runs may be of an earlier version, or see other mounts.
	if err := launcher.Launch(ctx); err != nil {
		return nil, fmt.Errorf("start the lease guard: %w", err)
	}
	log.Info("the lease guard has a container of its own", "container", launcher.Name)
	cfg.Launcher, cfg.Confirm = launcher, siblingConfirm
	return guard.Start(ctx, cfg)
}

// internalCommands are what the program starts itself as.
func internalCommands() []*cobra.Command {
	var s guardSettings
	guardian := &cobra.Command{
		Use: guard.Command, Hidden: true, Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return runGuard(s) },
	}
	f := guardian.Flags()
	f.StringVar(&s.Dir, "dir", "", "directory of the guard")
	f.StringVar(&s.Drone, "drone", "", "name of the drone")
	f.StringVar(&s.Runtime, "runtime", dockerRuntime, "docker, process or executor")
	f.StringVar(&s.Backends, "backends", "", "directory of process backends")
	f.BoolVar(&s.Stay, "stay", false, "go on with nothing to guard")
	f.StringVar(&s.Socket, "socket", "", "Unix socket of an external executor")
	supervise := &cobra.Command{
		Use: process.SuperviseCommand + " DIR", Hidden: true, Args: args(cobra.ExactArgs(1)),
		Run: func(_ *cobra.Command, dir []string) { os.Exit(process.Supervise(dir[0])) },
	}
	board := &cobra.Command{
		Use: whiteboardCommand, Hidden: true, Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return whiteboard.Serve(cmd.Context(), "") },
	}
	return []*cobra.Command{guardian, supervise, board}
}

const whiteboardCommand = "internal-whiteboard"

// runGuard guards until there is nothing left to guard. It does not end with the
// signals that end everything else.
func runGuard(s guardSettings) error {
	log, err := newLogger(os.Stderr, slog.LevelInfo)
	if err != nil {
		return err
	}
	log = log.With("drone", s.Drone)
	machine, err := clock.NewMachine()
	if err != nil {
		return err
	}
	killer, err := newKiller(s)
	if err != nil {
		return err
	}
	for {
		err = guard.Run(context.Background(), guard.Config{Dir: s.Dir, Machine: machine, Killer: killer, Log: log, Stay: s.Stay})
		switch {
		case !errors.Is(err, guard.ErrRunning):
			return err
		case !s.Stay:
			return nil // which is as good
		}
		time.Sleep(standbyEvery)
	}
}

// standbyEvery is how often a guard that stays looks whether another, from
// before the agent ran in a container, has ended.
const standbyEvery = time.Second

func newKiller(s guardSettings) (guard.Killer, error) {
	switch s.Runtime {
	case processRuntime:
		return process.Killer{Dir: s.Backends}, nil
	case executorRuntime:
		return executor.Killer{Socket: s.Socket}, nil
	}
	return docker.New(context.Background(), docker.Config{Drone: s.Drone, IP: netip.AddrFrom4([4]byte{127, 0, 0, 1})})
}

func guardDir(state string) string    { return filepath.Join(state, "guard") }
func backendsDir(state string) string { return filepath.Join(state, "backends") }
