package main

import (
	"context"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"plane/adapters/apiclient"
	"plane/adapters/docker"
	"plane/system/backend"
	"plane/system/protocol"
)

// demoImage is made on the spot from this program.
const demoImage = "plane-demo:latest"

// demoIdle is how long the board lives after the last tab was closed.
const demoIdle = 30

func demoCommand() *cobra.Command {
	var s devSettings
	var key string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run a whole Plane with a shared whiteboard on it",
		Long: `Run a whole Plane in this process, start a shared whiteboard on it, and print its URL.

Open the URL in two tabs: both are connected to the one process that belongs to the key.
Another key has another board. It needs nothing but this program.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLogger(cmd.ErrOrStderr(), slog.LevelError)
			if err != nil {
				return err
			}
			return runDemo(cmd.Context(), s, key, cmd.OutOrStdout(), cmd.ErrOrStderr(), log)
		},
	}
	s.flags(cmd)
	cmd.Flags().StringVar(&key, "key", "demo", "key of the board")
	return cmd
}

// demo is the whiteboard on a development Plane.
type demo struct {
	*development
	client     *apiclient.Client
	key        string
	executable json.RawMessage
	command    string // by which a person starts another board
	out, err   io.Writer
	began      time.Time
}

func runDemo(ctx context.Context, s devSettings, key string, stdout, stderr io.Writer, log *slog.Logger) error {
	d := &demo{key: key, out: stdout, err: stderr, began: time.Now()}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program's file: %w", err)
	}
	dynamic, err := isDynamic(program)
	if err != nil {
		return err
	}
	if dynamic && s.runtime == autoRuntime {
		d.say("this program needs libraries that an empty container has not (make build makes one that does not): backends will be processes")
		s.runtime = processRuntime
	}
	if d.development, err = prepareDevelopment(ctx, s, log); err != nil {
		return err
	}
	d.say("controller %s, proxy http://%s; backends are %s", d.controller.url, d.proxy.cluster, d.describeRuntime())
	if d.client, err = apiclient.New(d.controller.url, version()); err != nil {
		d.close()
		return err
	}
	if err := d.makeExecutable(ctx, program); err != nil {
		d.close()
		return err
	}
	err = d.development.run(ctx, d.serve)
	if errors.Is(err, errStopped) || err == nil {
		d.say("everything has ended: no container and no process is left")
	}
	return err
}

func (d *demo) say(format string, values ...any) {
	at := paint(d.err, dim, fmt.Sprintf("%5.1fs", time.Since(d.began).Seconds()))
	note(d.err, "%s  %s\n", at, fmt.Sprintf(format, values...))
}

// makeExecutable prepares what the board is started from.
func (d *demo) makeExecutable(ctx context.Context, program string) (err error) {
	connect := program + " admin --controller " + d.controller.url + " connect --max-idle-seconds " + strconv.Itoa(demoIdle) + " --key other"
	if d.runtime == processRuntime {
		d.command = connect + " -- " + program + " " + whiteboardCommand
		d.executable, err = json.Marshal(map[string]any{"command": []string{program, whiteboardCommand}})
		return err
	}
	d.say("making the image %s from this program", demoImage)
	entrypoint := []string{"/plane", whiteboardCommand}
	if err := docker.BuildImage(ctx, demoImage, entrypoint, docker.File{Path: "/plane", Source: program, Mode: 0o755}); err != nil {
		return err
	}
	d.command = connect + " --image " + demoImage
	d.executable, err = json.Marshal(map[string]any{"image": demoImage, "pull_policy": "Never"})
	return err
}

// serve starts the board, prints its URL, and tells when it ends.
func (d *demo) serve(ctx context.Context) error {
	idle := int64(demoIdle)
	d.say("asking for the backend of the key %q", d.key)
	resp, err := d.client.Connect(ctx, protocol.ConnectRequest{
		Key:         &protocol.Key{Name: d.key},
		SpawnConfig: &protocol.SpawnConfig{Executable: d.executable, MaxIdleSeconds: &idle},
	})
	if err != nil {
		return err
	}
	last, err := follow(ctx, d.client, resp.BackendID, func(e protocol.StatusEntry) bool {
		d.say("backend %s: %s", resp.BackendID, e.Status)
		return e.Status == backend.Ready
	})
	if err != nil {
		return err
	}
	if !last.Status.Alive() {
		return fmt.Errorf("the whiteboard did not become ready: %s", explainEnd(last))
	}
	d.announce(resp.URL)
	last, err = follow(ctx, d.client, resp.BackendID, func(protocol.StatusEntry) bool { return false })
	if err != nil {
		return err
	}
	d.say("backend %s has ended: %s", resp.BackendID, explainEnd(last))
	d.say("its link now says so. A new board: %s", d.command)
	<-ctx.Done()
	return context.Cause(ctx)
}

func (d *demo) announce(url string) {
	note(d.err, "\n  %s\n\n    ", paint(d.err, bold, "The whiteboard is here; open it in two tabs:"))
	note(d.out, "%s\n", paint(d.out, green, url))
	note(d.err, "\n  Another key, another board:\n    %s\n", d.command)
	note(d.err, "  It ends %d s after the last tab was closed. Ctrl-C ends everything.\n\n", demoIdle)
}

// isDynamic reports whether a program needs a loader, which an image made from
// the program alone does not have.
func isDynamic(program string) (bool, error) {
	f, err := elf.Open(program)
	if err != nil {
		return false, fmt.Errorf("look into this program's file: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read from
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return true, nil
		}
	}
	return false, nil
}
