package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"plane/adapters/apiclient"
	"plane/system/backend"
	"plane/system/name"
	"plane/system/protocol"
)

// admin is what the admin commands have in common.
type admin struct {
	controller string
	json       bool
}

func adminCommand() *cobra.Command {
	a := &admin{}
	cmd := &cobra.Command{
		Use:   "admin",
		Short: "Ask a controller, or tell it what to do",
		Args:  args(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	f := cmd.PersistentFlags()
	f.StringVar(&a.controller, "controller", "http://127.0.0.1:8080", "URL of a controller; a bearer token may stand before an @")
	f.BoolVar(&a.json, "json", false, "print JSON")
	cmd.AddCommand(
		a.connectCommand(), a.terminateCommand(), a.drainCommand(), a.listCommand(), a.backendStatusCommand(),
		a.statusCommand(), a.clusterStateCommand(), a.checkDNSCommand(), a.putDummyDNSCommand(), a.metricsCommand(),
	)
	return cmd
}

func (a *admin) client() (*apiclient.Client, error) {
	c, err := apiclient.New(a.controller, version())
	if err != nil {
		return nil, usage("--controller: %w", err)
	}
	return c, nil
}

// call makes a command of a function that talks to the controller.
func (a *admin) call(do func(cmd *cobra.Command, c *apiclient.Client, given []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, given []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		return do(cmd, c, given)
	}
}

// short is how long a plain call may take.
func short(cmd *cobra.Command) (context.Context, context.CancelFunc) {
	return context.WithTimeout(cmd.Context(), 30*time.Second)
}

func (a *admin) terminateCommand() *cobra.Command {
	var hard, immediate bool
	cmd := &cobra.Command{
		Use:   "terminate BACKEND",
		Short: "End a backend, and wait until it has ended",
		Args:  args(cobra.ExactArgs(1)),
		RunE: a.call(func(cmd *cobra.Command, c *apiclient.Client, given []string) error {
			kind := backend.Soft
			if hard {
				kind = backend.Hard
			}
			if err := c.Terminate(cmd.Context(), given[0], kind); err != nil {
				return err
			}
			if immediate {
				return a.done(cmd, map[string]any{"backend_id": given[0]}, "%s is told to end\n", given[0])
			}
			last, err := follow(cmd.Context(), c, given[0], func(protocol.StatusEntry) bool { return false })
			if err != nil {
				return err
			}
			return a.done(cmd, last, "%s has ended: %s\n", given[0], explainEnd(last))
		}),
	}
	cmd.Flags().BoolVar(&hard, "hard", false, "kill it at once, without 30 s to finish")
	cmd.Flags().BoolVar(&immediate, "immediate", false, "do not wait")
	return cmd
}

func (a *admin) drainCommand() *cobra.Command {
	var cluster, drone string
	cmd := &cobra.Command{
		Use:   "drain --cluster CLUSTER --drone DRONE",
		Short: "Give a drone no new backends any more",
		Args:  args(cobra.NoArgs),
		RunE: a.call(func(cmd *cobra.Command, c *apiclient.Client, _ []string) error {
			if cluster == "" || drone == "" {
				return usage("both --cluster and --drone are needed")
			}
			ctx, cancel := short(cmd)
			defer cancel()
			result, err := c.Drain(ctx, cluster, drone)
			if err != nil {
				return err
			}
			if result.Updated {
				return a.done(cmd, result, "%s gets no new backends; those that run there go on\n", drone)
			}
			return a.done(cmd, result, "%s was draining already\n", drone)
		}),
	}
	cmd.Flags().StringVar(&cluster, "cluster", "", "the drone's cluster")
	cmd.Flags().StringVar(&drone, "drone", "", "the drone's name, dr-…")
	return cmd
}

func (a *admin) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Does the controller answer, and which version is it?",
		Args:  args(cobra.NoArgs),
		RunE: a.call(func(cmd *cobra.Command, c *apiclient.Client, _ []string) error {
			ctx, cancel := short(cmd)
			defer cancel()
			status, err := c.ServerStatus(ctx)
			if err != nil {
				return err
			}
			if err := c.Health(ctx); err != nil {
				return err
			}
			return a.done(cmd, status, "controller %s (%s), its store answers\n", status.Version, status.Hash)
		}),
	}
}

func (a *admin) clusterStateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cluster-state CLUSTER",
		Short: "List the drones and proxies of a cluster",
		Args:  args(cobra.ExactArgs(1)),
		RunE: a.call(func(cmd *cobra.Command, c *apiclient.Client, given []string) error {
			ctx, cancel := short(cmd)
			defer cancel()
			state, err := c.ClusterState(ctx, given[0])
			if err != nil {
				return err
			}
			if a.json {
				return printJSON(cmd.OutOrStdout(), state)
			}
			return printCluster(cmd.OutOrStdout(), state)
		}),
	}
}

func (a *admin) backendStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "backend-status BACKEND",
		Short: "Say what state a backend is in",
		Args:  args(cobra.ExactArgs(1)),
		RunE: a.call(func(cmd *cobra.Command, c *apiclient.Client, given []string) error {
			ctx, cancel := short(cmd)
			defer cancel()
			entry, err := c.Status(ctx, given[0])
			if err != nil {
				return err
			}
			if a.json {
				return printJSON(cmd.OutOrStdout(), entry)
			}
			return printEntries(cmd.OutOrStdout(), entry)
		}),
	}
}

// done prints a result, for programs or for people.
func (a *admin) done(cmd *cobra.Command, result any, words string, values ...any) error {
	if a.json {
		return printJSON(cmd.OutOrStdout(), result)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), words, values...)
	return err
}

// connectFlags are the flags of connect.
type connectFlags struct {
	image, cluster, key, id, pool, mount, subdomain string
	maxIdle                                         int64
	immediate, static                               bool
}

func (a *admin) connectCommand() *cobra.Command {
	var f connectFlags
	cmd := &cobra.Command{
		Use:   "connect --image IMAGE | connect -- PROGRAM [ARGUMENT]...",
		Short: "Start the backend of a key, or find it, and print its URL",
		Long: `Start the backend of a key, or find it, and print its URL once it is ready.

The URL goes to standard output, what happens meanwhile to standard error. On drones
with --runtime process, name a program after -- instead of an image.`,
		RunE: a.call(func(cmd *cobra.Command, c *apiclient.Client, program []string) error {
			return a.connect(cmd, c, f, program)
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&f.image, "image", "", "image of the backend")
	flags.StringVar(&f.cluster, "cluster", "", "cluster (default: the controller's)")
	flags.StringVar(&f.key, "key", "", "name of the key (default: one of its own)")
	flags.BoolVar(&f.immediate, "immediate", false, "do not wait until the backend is ready")
	flags.Int64Var(&f.maxIdle, "max-idle-seconds", 500, "end the backend when nobody has used it for so long")
	flags.StringVar(&f.id, "id", "", "a wish for the backend's name")
	flags.BoolVar(&f.static, "static-token", false, "one URL for everybody, for as long as the backend lives")
	flags.StringVar(&f.pool, "pool", "", "pool of drones (default: the default pool)")
	flags.StringVar(&f.mount, "mount", "", "mount a directory at /plane-data: true for one named after the key, or a relative path")
	flags.StringVar(&f.subdomain, "subdomain", "", "subdomain in the URL")
	return cmd
}

func (f connectFlags) request(program []string) (protocol.ConnectRequest, error) {
	var req protocol.ConnectRequest
	executable := map[string]any{}
	switch {
	case (f.image == "") == (len(program) == 0):
		return req, usage("name what to run: --image IMAGE, or a program after --")
	case f.image != "":
		executable["image"] = f.image
	default:
		executable["command"] = program
	}
	switch f.mount {
	case "", "false":
	case "true":
		executable["mount"] = true
	default:
		executable["mount"] = f.mount
	}
	e, err := json.Marshal(executable)
	if err != nil {
		return req, fmt.Errorf("describe what to run: %w", err)
	}
	if f.id != "" {
		if err := name.Validate(name.Backend, f.id); err != nil {
			return req, usage("--id: %w", err)
		}
	}
	if f.maxIdle < 0 {
		return req, usage("--max-idle-seconds: want 0 or more, not %d", f.maxIdle)
	}
	if f.key != "" {
		req.Key = &protocol.Key{Name: f.key}
	}
	req.SpawnConfig = &protocol.SpawnConfig{
		ID: unlessEmpty(f.id), Cluster: unlessEmpty(f.cluster), Pool: f.pool, Executable: e,
		MaxIdleSeconds: &f.maxIdle, UseStaticToken: f.static, Subdomain: unlessEmpty(f.subdomain),
	}
	return req, nil
}

func unlessEmpty(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func (a *admin) connect(cmd *cobra.Command, c *apiclient.Client, f connectFlags, program []string) error {
	req, err := f.request(program)
	if err != nil {
		return err
	}
	ctx, cancel := short(cmd)
	defer cancel()
	resp, err := c.Connect(ctx, req)
	if err != nil {
		return err
	}
	progress := cmd.ErrOrStderr()
	if resp.Spawned && resp.Drone != nil {
		note(progress, "backend %s, new, on %s\n", resp.BackendID, *resp.Drone)
	} else {
		note(progress, "backend %s holds the key\n", resp.BackendID)
	}
	if !f.immediate {
		if err := waitReady(cmd.Context(), c, resp.BackendID, progress); err != nil {
			return err
		}
	}
	if a.json {
		return printJSON(cmd.OutOrStdout(), resp)
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), resp.URL)
	return err
}

// waitReady shows a backend's states until it is ready, or fails when it ends
// before.
func waitReady(ctx context.Context, c *apiclient.Client, id string, progress io.Writer) error {
	began := time.Now()
	last, err := follow(ctx, c, id, func(e protocol.StatusEntry) bool {
		note(progress, "  %s %s\n", paint(progress, dim, fmt.Sprintf("%5.1fs", time.Since(began).Seconds())), e.Status)
		return e.Status == backend.Ready
	})
	if err != nil {
		return err
	}
	if !last.Status.Alive() {
		return fmt.Errorf("backend %s did not become ready: %s", id, explainEnd(last))
	}
	return nil
}

// errEnough ends a status stream that has shown what was waited for.
var errEnough = errors.New("seen enough")

// follow reads a backend's history, opening the stream anew when it is cut,
// until enough says so or the backend has terminated. It returns the last entry.
func follow(ctx context.Context, c *apiclient.Client, id string, enough func(protocol.StatusEntry) bool) (protocol.StatusEntry, error) {
	var last protocol.StatusEntry
	for failures := 0; ; {
		before := last.Status
		err := c.StatusStream(ctx, id, last.Status, func(e protocol.StatusEntry) error {
			last = e
			if enough(e) || e.Status == backend.Terminated {
				return errEnough
			}
			return nil
		})
		var api *protocol.APIError
		switch {
		case errors.Is(err, errEnough):
			return last, nil
		case ctx.Err() != nil:
			return last, context.Cause(ctx)
		case errors.As(err, &api):
			return last, err
		case last.Status > before:
			failures = 0
		}
		if failures++; failures > 5 {
			return last, fmt.Errorf("the status stream of backend %s breaks off again and again: %w", id, errors.Join(err, errors.New("the last try ended without news")))
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return last, context.Cause(ctx)
		}
	}
}
