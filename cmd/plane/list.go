package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"plane/adapters/apiclient"
	"plane/system/backend"
	"plane/system/protocol"
)

// listFlags are the flags of list.
type listFlags struct {
	cluster, drone, key, namespace, after string
	statuses                              []string
	ended, all                            bool
	limit                                 int
}

func (a *admin) listCommand() *cobra.Command {
	var f listFlags
	cmd := &cobra.Command{
		Use:   "list --cluster CLUSTER",
		Short: "List backends: those that live, or those that pass the filters",
		Long: `List the backends of a cluster, in order of name: those that have not terminated, unless
--ended or --status says otherwise. One page of them, or all of them with --all.`,
		Args: args(cobra.NoArgs),
		RunE: a.call(func(cmd *cobra.Command, c *apiclient.Client, _ []string) error {
			req, err := f.request(cmd.Flags().Changed("namespace"))
			if err != nil {
				return err
			}
			page, err := f.read(cmd.Context(), c, req)
			if err != nil {
				return err
			}
			if a.json {
				return printJSON(cmd.OutOrStdout(), page)
			}
			if page.Next != nil {
				note(cmd.ErrOrStderr(), "there are more: --after %s has the next page, --all all of them\n", *page.Next)
			}
			return printBackends(cmd.OutOrStdout(), page.Backends)
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&f.cluster, "cluster", "", "the cluster (required)")
	flags.StringSliceVar(&f.statuses, "status", nil, "only those that are: scheduled, loading, starting, waiting, ready, terminating, hard-terminating, terminated; several with commas")
	flags.BoolVar(&f.ended, "ended", false, "those that have terminated too")
	flags.StringVar(&f.drone, "drone", "", "only those of a drone")
	flags.StringVar(&f.key, "key", "", "only those of keys of this name")
	flags.StringVar(&f.namespace, "namespace", "", `only those of keys of this namespace; "" for keys without one`)
	flags.IntVar(&f.limit, "limit", protocol.SomeBackends, fmt.Sprintf("how many a page has, at most %d", protocol.MostBackends))
	flags.StringVar(&f.after, "after", "", "only those after this one: the page after it")
	flags.BoolVar(&f.all, "all", false, "all pages")
	return cmd
}

func (f listFlags) request(ofNamespace bool) (protocol.BackendsRequest, error) {
	req := protocol.BackendsRequest{
		Live: len(f.statuses) == 0 && !f.ended, Drone: f.drone, Key: f.key, After: f.after, Limit: f.limit,
	}
	if f.cluster == "" {
		return req, usage("--cluster is needed")
	}
	if f.limit < 1 || f.limit > protocol.MostBackends {
		return req, usage("--limit: want 1 to %d, not %d", protocol.MostBackends, f.limit)
	}
	for _, text := range f.statuses {
		status, err := backend.ParseStatus(text)
		if err != nil {
			return req, usage("--status: %w", err)
		}
		req.Statuses = append(req.Statuses, status)
	}
	if ofNamespace {
		req.Namespace = &f.namespace
	}
	return req, nil
}

// read reads one page, or all of them as one.
func (f listFlags) read(ctx context.Context, c *apiclient.Client, req protocol.BackendsRequest) (protocol.BackendsPage, error) {
	if f.all {
		req.Limit = protocol.MostBackends
	}
	all := protocol.BackendsPage{Backends: []protocol.BackendEntry{}}
	for {
		page, err := readPage(ctx, c, f.cluster, req)
		if err != nil {
			return all, err
		}
		all.Backends, all.Next = append(all.Backends, page.Backends...), page.Next
		if !f.all || page.Next == nil {
			return all, nil
		}
		req.After = *page.Next
	}
}

func readPage(ctx context.Context, c *apiclient.Client, cluster string, req protocol.BackendsRequest) (protocol.BackendsPage, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return c.Backends(ctx, cluster, req)
}

func printBackends(w io.Writer, backends []protocol.BackendEntry) error {
	if len(backends) == 0 {
		_, err := fmt.Fprintln(w, "no backends")
		return err
	}
	rows := [][]string{{"BACKEND", "KEY", "STATUS", "SINCE", "CREATED", "DRONE", "ADDRESS", "WHY"}}
	for _, b := range backends {
		rows = append(rows, []string{
			b.ID, keyText(b.Key), b.Status.String(), b.Time.Local().Format(time.DateTime), b.CreatedAt.Local().Format(time.DateTime),
			b.Drone, b.Address, plain(why(b.StatusEntry)),
		})
	}
	return table(w, rows)
}

// keyText shows a key as name, namespace/name and with its tag.
func keyText(k protocol.Key) string {
	text := plain(k.Name)
	if k.Namespace != "" {
		text = plain(k.Namespace) + "/" + text
	}
	if k.Tag != "" {
		text += " (" + plain(k.Tag) + ")"
	}
	return text
}

// plain is what a terminal can be shown of a text that anybody may have chosen:
// in quotes when it holds what would not be seen as it is.
func plain(text string) string {
	if quoted := strconv.Quote(text); strings.Trim(quoted, `"`) != text {
		return quoted
	}
	return text
}
