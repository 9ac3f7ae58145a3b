package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"plane/system/protocol"
)

// flagsFromEnvironment sets the flags that the command line has left out from
// PLANE_ and their names in capitals. An empty variable counts as not set.
func flagsFromEnvironment(cmd *cobra.Command, lookup func(string) (string, bool)) error {
	var wrong error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		name := environmentName(f.Name)
		value, ok := lookup(name)
		if !ok || value == "" || f.Changed || f.Name == "help" || wrong != nil {
			return
		}
		if err := cmd.Flags().Set(f.Name, value); err != nil {
			// Not the value: it may be a secret.
			wrong = usage("%s: not a value that --%s takes (%s)", name, f.Name, f.Value.Type())
		}
	})
	return wrong
}

func environmentName(flag string) string {
	return "PLANE_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// newLogger logs to w as the environment says; level is the one to use when it
// does not.
func newLogger(w io.Writer, level slog.Level) (*slog.Logger, error) {
	if text := os.Getenv("PLANE_LOG_LEVEL"); text != "" {
		if err := level.UnmarshalText([]byte(text)); err != nil {
			return nil, usage("PLANE_LOG_LEVEL: want debug, info, warn or error, not %q", text)
		}
	}
	options := &slog.HandlerOptions{Level: level}
	if os.Getenv("PLANE_LOG_JSON") != "" {
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return slog.New(slog.NewTextHandler(w, options)), nil
}

// planeVersion is what this program calls itself.
const planeVersion = "0.6.0"

// version is what this program was built from.
func version() protocol.Version {
	v := protocol.Version{Version: planeVersion, GitHash: "unknown"}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	var changed bool
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.GitHash = s.Value[:min(len(s.Value), 12)]
		case "vcs.modified":
			changed = s.Value == "true"
		}
	}
	if changed {
		v.GitHash += "-modified"
	}
	return v
}

// note tells a person something. That it could not be shown is no reason to
// fail.
func note(w io.Writer, format string, values ...any) { _, _ = fmt.Fprintf(w, format, values...) }

// Colours, as terminals know them.
const (
	red    = "31"
	green  = "32"
	yellow = "33"
	bold   = "1"
	dim    = "2"
)

// paint colours text when w is a terminal whose owner wants colours.
func paint(w io.Writer, colour, text string) string {
	if !isTerminal(w) || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return text
	}
	return "\x1b[" + colour + "m" + text + "\x1b[0m"
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
