package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"plane/adapters/postgres"
	"plane/system/backend"
	"plane/system/controller"
	"plane/system/name"
	"plane/system/port"
)

// db is what the db commands have in common: they work on the database itself,
// whether a controller runs or not.
type db struct {
	settings databaseSettings
	json     bool
	// open opens the database, with a listener or without.
	open func(ctx context.Context, cmd *cobra.Command, listening bool) (*state, error)
}

func dbCommand() *cobra.Command {
	d := &db{}
	d.open = d.openDatabase
	return d.command()
}

func (d *db) command() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "db",
		Short: "Look at the database itself, or change it",
		Long: `Look at the database itself, or change it, whether a controller runs or not.

What is here is for those who look after a cluster and have the database's password;
"plane admin" asks a controller.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	d.settings.flags(cmd, "URL of the PostgreSQL database")
	d.settings.listenFlags(cmd)
	cmd.PersistentFlags().BoolVar(&d.json, "json", false, "print JSON")
	cmd.AddCommand(
		d.eventsCommand(), d.nodesCommand(), d.backendsCommand(), d.candidatesCommand(),
		d.preventRenewCommand(), d.markLostCommand(), d.cleanupCommand(),
	)
	return cmd
}

// openDatabase opens the database as it is: its schema is for controllers, or
// for migrate, to bring up to date.
func (d *db) openDatabase(ctx context.Context, cmd *cobra.Command, listening bool) (*state, error) {
	log, err := newLogger(cmd.ErrOrStderr(), slog.LevelWarn)
	if err != nil {
		return nil, err
	}
	cfg, err := d.settings.required(log)
	if err != nil {
		return nil, err
	}
	cfg.Name, cfg.MaxConnections = "plane db", 2
	store, err := postgres.Open(ctx, cfg)
	if err != nil {
		return nil, databaseError(err)
	}
	if !listening {
		return &state{Store: store, Operations: store, close: store.Close}, nil
	}
	return inPostgres(store), nil
}

// onDatabase is what a command does.
type onDatabase func(ctx context.Context, cmd *cobra.Command, kept *state, given []string) error

// call makes a command of a function that works on the database.
func (d *db) call(do onDatabase) func(*cobra.Command, []string) error { return d.opened(false, do) }

// listen does so for one that listens to it as well.
func (d *db) listen(do onDatabase) func(*cobra.Command, []string) error { return d.opened(true, do) }

func (d *db) opened(listening bool, do onDatabase) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, given []string) error {
		opening, cancel := short(cmd)
		kept, err := d.open(opening, cmd, listening)
		cancel()
		if err != nil {
			return err
		}
		defer kept.close()
		return do(cmd.Context(), cmd, kept, given)
	}
}

// show prints rows for people, or values for programs, which get a list.
func show[T any](d *db, cmd *cobra.Command, none string, heading []string, values []T, asJSON func(T) any, row func(T) []string) error {
	out := cmd.OutOrStdout()
	if d.json {
		list := make([]any, len(values))
		for i, v := range values {
			list[i] = asJSON(v)
		}
		return printJSON(out, list)
	}
	if len(values) == 0 {
		_, err := fmt.Fprintln(out, none)
		return err
	}
	rows := [][]string{heading}
	for _, v := range values {
		rows = append(rows, row(v))
	}
	return table(out, rows)
}

func (d *db) nodesCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list-nodes",
		Short: "List the drones and proxies of all clusters, gone ones as well",
		Args:  args(cobra.NoArgs),
		RunE: d.call(func(ctx context.Context, cmd *cobra.Command, kept *state, _ []string) error {
			nodes, err := kept.Nodes(ctx)
			if err != nil {
				return databaseError(err)
			}
			return show(d, cmd, "no node has ever connected", nodeHeading, nodes, nodeJSON, nodeRow)
		}),
	}
}

func (d *db) backendsCommand() *cobra.Command {
	f := backendFilter{}
	cmd := &cobra.Command{
		Use:   "list-backends",
		Short: "List backends, of all clusters unless one is named",
		Args:  args(cobra.NoArgs),
		PreRunE: func(cmd *cobra.Command, _ []string) error {
			return f.check(cmd.Flags().Changed("namespace"))
		},
		RunE: d.call(func(ctx context.Context, cmd *cobra.Command, kept *state, _ []string) error {
			found, err := f.find(ctx, kept)
			if err != nil {
				return err
			}
			found = cut(cmd, found, f.limit)
			return show(d, cmd, "no backend passes these filters", backendHeading, found, backendJSON, backendRow)
		}),
	}
	f.flags(cmd)
	return cmd
}

// backendFilter says which backends are wanted.
type backendFilter struct {
	query     port.BackendQuery
	statuses  []string
	ended     bool
	namespace string
	limit     int
}

func (f *backendFilter) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.query.Cluster, "cluster", "", "only those of a cluster")
	flags.StringSliceVar(&f.statuses, "status", nil, "only those that are scheduled, loading, …, terminated; several with commas")
	flags.StringVar(&f.query.Drone, "drone", "", "only those of a drone")
	flags.StringVar(&f.query.Key, "key", "", "only those of keys of this name")
	flags.StringVar(&f.namespace, "namespace", "", `only those of keys of this namespace; "" for keys without one`)
	flags.BoolVar(&f.ended, "ended", false, "those that have terminated too")
	flags.IntVar(&f.limit, "limit", 1000, "at most so many")
}

// check makes a query of the flags, before anything is asked.
func (f *backendFilter) check(ofNamespace bool) error {
	if err := validLimit(f.limit); err != nil {
		return err
	}
	if f.query.Cluster != "" {
		cluster, err := name.ParseCluster(f.query.Cluster)
		if err != nil {
			return usage("--cluster: %w", err)
		}
		f.query.Cluster = cluster.String()
	}
	for _, text := range f.statuses {
		status, err := backend.ParseStatus(text)
		if err != nil {
			return usage("--status: %w", err)
		}
		f.query.Statuses = append(f.query.Statuses, status)
	}
	f.query.Live = !f.ended && len(f.query.Statuses) == 0
	if ofNamespace {
		f.query.Namespace = &f.namespace
	}
	return nil
}

func validLimit(limit int) error {
	if limit < 1 || limit > mostListed {
		return usage("--limit: want 1 to %d, not %d", mostListed, limit)
	}
	return nil
}

// mostListed is how many rows a list has at most: it is held in memory.
const mostListed = 1_000_000

// cut leaves the first limit values, and tells a person where there are more.
func cut[T any](cmd *cobra.Command, values []T, limit int) []T {
	if len(values) <= limit {
		return values
	}
	note(cmd.ErrOrStderr(), "there are more than these %d: --limit says how many to list, and filters which\n", limit)
	return values[:limit]
}

// page is how many backends one question asks for.
const page = 500

// find returns the backends, and where there are more than the limit, one more.
func (f *backendFilter) find(ctx context.Context, kept *state) ([]port.Backend, error) {
	q, most := f.query, f.limit+1
	clusters, err := f.clusters(ctx, kept)
	if err != nil {
		return nil, err
	}
	var found []port.Backend
	for _, q.Cluster = range clusters {
		for q.After = ""; len(found) < most; {
			q.Limit = min(page, most-len(found))
			some, err := kept.Backends(ctx, q)
			if err != nil {
				return nil, databaseError(err)
			}
			found = append(found, some...)
			if len(some) < q.Limit {
				break
			}
			q.After = some[len(some)-1].ID
		}
	}
	return found, nil
}

// clusters are those to look at: the one that was named, or all that have or had
// nodes.
func (f *backendFilter) clusters(ctx context.Context, kept *state) ([]string, error) {
	if f.query.Cluster != "" {
		return []string{f.query.Cluster}, nil
	}
	nodes, err := kept.Nodes(ctx)
	if err != nil {
		return nil, databaseError(err)
	}
	var clusters []string
	for _, n := range nodes {
		clusters = append(clusters, n.Cluster)
	}
	slices.Sort(clusters)
	return slices.Compact(clusters), nil
}

func (d *db) candidatesCommand() *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:   "termination-candidates",
		Short: "List the backends that are to end, and why",
		Long: `List the backends that are to end, and why: what the controllers' next sweep will end,
and what has been told to end and has not yet. A backend that stays here for minutes is one
to look after; "plane db mark-lost" is the last resort.`,
		Args:    args(cobra.NoArgs),
		PreRunE: func(*cobra.Command, []string) error { return validLimit(limit) },
		RunE: d.call(func(ctx context.Context, cmd *cobra.Command, kept *state, _ []string) error {
			found, err := kept.TerminationCandidates(ctx, controller.DefaultTiming().SweepParams(), limit+1)
			if err != nil {
				return databaseError(err)
			}
			found = cut(cmd, found, limit)
			return show(d, cmd, "no backend is to end", candidateHeading, found, candidateJSON, candidateRow)
		}),
	}
	cmd.Flags().IntVar(&limit, "limit", 1000, "at most so many")
	return cmd
}

func (d *db) preventRenewCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "prevent-renew BACKEND",
		Short: "Renew the lease of a backend's key no more: its drone ends it",
		Long: `Renew the lease of a backend's key no more. Its drone ends the backend within 40 s, softly,
and within 50 s at the latest. There is no way back.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: d.call(func(ctx context.Context, cmd *cobra.Command, kept *state, given []string) error {
			changed, err := kept.PreventRenew(ctx, given[0])
			if err != nil {
				return liveError(given[0], err)
			}
			result := map[string]any{"backend_id": given[0], "changed": changed}
			if !changed {
				return d.done(cmd, result, "the lease of %s was not to be renewed already\n", given[0])
			}
			return d.done(cmd, result, "the lease of %s is not renewed any more; its drone ends it within a minute\n", given[0])
		}),
	}
}

func (d *db) markLostCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "mark-lost BACKEND",
		Short: "Give a backend up: it counts as lost once its lease has expired",
		Long: `Give a backend up, for one whose drone does not do what it is told. Its lease is renewed no
more, and once that has expired, which is when nothing of it can run any more, a controller
declares it terminated with reason "lost", and its key is free. There is no way back.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: d.call(func(ctx context.Context, cmd *cobra.Command, kept *state, given []string) error {
			expires, err := kept.MarkLost(ctx, given[0])
			if err != nil {
				return liveError(given[0], err)
			}
			seconds := int64((expires + time.Second - 1) / time.Second)
			return d.done(cmd, map[string]any{"backend_id": given[0], "expires_in_seconds": seconds},
				"%s counts as lost in %d s, when its lease has expired, and at the next sweep of a controller after that\n", given[0], seconds)
		}),
	}
}

func (d *db) cleanupCommand() *cobra.Command {
	var days int64
	batch := defaultCleanupBatch
	cmd := &cobra.Command{
		Use:   "cleanup --min-age-days DAYS",
		Short: "Delete backends that ended long ago, with their history",
		Args:  args(cobra.NoArgs),
		PreRunE: func(*cobra.Command, []string) error {
			switch {
			case days < 1 || days > 36500:
				return usage("--min-age-days: want 1 to 36500 days, not %d", days)
			case batch < 1 || batch > 100_000:
				return usage("--batch: want 1 to 100000, not %d", batch)
			}
			return nil
		},
		RunE: d.call(func(ctx context.Context, cmd *cobra.Command, kept *state, _ []string) error {
			deleted := 0
			for {
				n, err := kept.Cleanup(ctx, time.Duration(days)*24*time.Hour, batch)
				deleted += n
				if err != nil {
					return fmt.Errorf("%w (%d rows are deleted already; it is safe to run this again)", databaseError(err), deleted)
				}
				if n < batch {
					break
				}
			}
			return d.done(cmd, map[string]int{"deleted": deleted}, "%d backends and tokens are deleted\n", deleted)
		}),
	}
	cmd.Flags().Int64Var(&days, "min-age-days", 0, "how many days ago a backend must have ended")
	cmd.Flags().IntVar(&batch, "batch", batch, "how many to delete in one transaction")
	return cmd
}

func (d *db) eventsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "events",
		Short: "Print each backend's status as it changes",
		Long: `Print each backend's status as it changes, one line each, until it is stopped. It listens
to what the database tells controllers.`,
		Args: args(cobra.NoArgs),
		RunE: d.listen(func(ctx context.Context, cmd *cobra.Command, kept *state, _ []string) error {
			out, progress := cmd.OutOrStdout(), cmd.ErrOrStderr()
			return newEventLog(kept, func(ev event) error {
				if d.json {
					return json.NewEncoder(out).Encode(ev)
				}
				return ev.line(out)
			}, func(format string, values ...any) { note(progress, format+"\n", values...) }).run(ctx)
		}),
	}
}

// done prints what was done, for programs or for people.
func (d *db) done(cmd *cobra.Command, result any, words string, values ...any) error {
	if d.json {
		return printJSON(cmd.OutOrStdout(), result)
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), words, values...)
	return err
}
