// Command plane is every role of Plane and what one needs around them: the
// controller, the drone, the proxy and the DNS receiver, the admin commands, and a
// whole Plane in one process for development. It is the only place where roles meet adapters.
//
// Exit codes: 0 done (or stopped by a signal, in good order), 1 failed, 2 the
// command line or a configuration is wrong, 130 stopped by a second signal
// before everything was tidied up.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"plane/adapters/guard"
	"plane/adapters/process"
)

// The exit codes.
const (
	exitFailed = 1
	exitUsage  = 2
	exitForced = 130
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// usageError is a mistake of whoever typed the command.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// errStopped is the cause of a context that a signal has ended.
var errStopped = errors.New("stopped by a signal")

func run(args []string, stdout, stderr io.Writer) int {
	ctx := context.Background()
	if !mindsItsSignals(args) {
		untilSignalled, stop := untilSignal(stderr)
		defer stop()
		ctx = untilSignalled
	}
	root := rootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var wrong usageError
	switch {
	case err == nil, errors.Is(err, errStopped):
		return 0
	case errors.As(err, &wrong), unknownCommand(err):
		note(stderr, "%s %v\n", paint(stderr, red, "error:"), err)
		return exitUsage
	}
	note(stderr, "%s %v\n", paint(stderr, red, "error:"), err)
	return exitFailed
}

// mindsItsSignals reports whether the command is one that a signal must not end:
// what it looks after would be left alone.
func mindsItsSignals(args []string) bool {
	return len(args) > 0 && (args[0] == guard.Command || args[0] == process.SuperviseCommand)
}

// untilSignal gives a context that the first SIGINT or SIGTERM ends. The second
// ends the process.
func untilSignal(stderr io.Writer) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		for n := 1; ; n++ {
			select {
			case <-signals:
			case <-done:
				return
			}
			if n > 1 {
				note(stderr, "stopped before everything was tidied up; backends end by their leases\n")
				os.Exit(exitForced)
			}
			cancel(errStopped)
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel(nil)
	}
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "plane",
		Short: "Run one process per key, and give out a URL to it",
		Long: `Plane runs one process per key, and gives out a URL to it.

Start with "plane demo". Every flag can also come from the environment: --controller-url
from PLANE_CONTROLLER_URL, and so on. Logs go to standard error, as JSON when
PLANE_LOG_JSON is set; PLANE_LOG_LEVEL is debug, info (the default), warn or error.`,
		Args:              cobra.NoArgs,
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return flagsFromEnvironment(cmd, os.LookupEnv) },
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("%w; see %s --help", err, cmd.CommandPath())
	})
	root.AddCommand(
		controllerCommand(), droneCommand(), proxyCommand(), dnsCommand(), adminCommand(), runConfigCommand(), versionCommand(),
		migrateCommand(), dbCommand(), devCommand(), demoCommand(),
	)
	root.AddCommand(internalCommands()...)
	return root
}

// unknownCommand reports whether the command line names none that there is;
// cobra has no type for that.
func unknownCommand(err error) bool {
	return err != nil && len(err.Error()) > 15 && err.Error()[:15] == "unknown command"
}

// args wraps a check of positional arguments so that what it finds is a usage
// error.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if err := check(cmd, given); err != nil {
			return usage("%w; see %s --help", err, cmd.CommandPath())
		}
		return nil
	}
}
