package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/spf13/cobra"

	"plane/adapters/dnscheck"
	"plane/system/name"
)

// checkDNSFlags are the flags of check-dns.
type checkDNSFlags struct {
	cluster, zone, resolver, authority string
	port                               uint16
}

func (a *admin) checkDNSCommand() *cobra.Command {
	var f checkDNSFlags
	cmd := &cobra.Command{
		Use:   "check-dns --cluster CLUSTER --zone ZONE",
		Short: "Look whether the DNS records for HTTPS are there, and say what to add",
		Long: `Look whether the DNS records are there that a cluster needs to be served over HTTPS
with certificates of an ACME authority, and say what to add where one is missing.

It asks a resolver, and then the DNS receivers directly; it needs no controller. The exit
code is 0 when everything is there, and 1 when something is missing. docs/tls.md has the
whole story.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			checker, err := f.checker()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Minute)
			defer cancel()
			findings, err := checker.Run(ctx)
			if err != nil {
				return err
			}
			return a.tellFindings(cmd.OutOrStdout(), findings)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.cluster, "cluster", "", "the cluster's host (required)")
	flags.StringVar(&f.zone, "zone", "", "the --zone of the DNS receiver (default: it has none, and answers _acme-challenge.CLUSTER itself)")
	flags.StringVar(&f.resolver, "resolver", "", "recursive resolver to ask, an address or address:port (default: this machine's)")
	flags.StringVar(&f.authority, "authority", "letsencrypt.org", "how the certificate authority calls itself in CAA records")
	flags.Uint16Var(&f.port, "receiver-port", 53, "port that DNS receivers listen on, for trials; the internet asks at 53 only")
	return cmd
}

func (f checkDNSFlags) checker() (c dnscheck.Checker, err error) {
	c = dnscheck.Checker{Authority: f.authority, Port: int(f.port)}
	if f.cluster == "" {
		return c, usage("--cluster is missing: the cluster's host")
	}
	if c.Cluster, err = name.ParseCluster(f.cluster); err != nil {
		return c, usage("--cluster: %w", err)
	}
	if !c.Cluster.TLS() || net.ParseIP(c.Cluster.Host) != nil {
		return c, usage("--cluster: %s is not served over HTTPS with certificates of an authority; that takes a host without a port", f.cluster)
	}
	if f.zone != "" {
		zone, err := name.ParseCluster(f.zone)
		if err != nil || !zone.TLS() {
			return c, usage("--zone: want a domain such as acme.example.com, not %q", f.zone)
		}
		c.Zone = zone.Host
	}
	if f.resolver == "" {
		c.Resolver, err = dnscheck.SystemResolver()
		return c, err
	}
	host, port, err := net.SplitHostPort(f.resolver)
	if err != nil {
		host = f.resolver
	}
	if net.ParseIP(host) == nil {
		return c, usage("--resolver: want an address or address:port, not %q", f.resolver)
	}
	c.Resolver = net.JoinHostPort(host, cmp.Or(port, "53"))
	return c, nil
}

// errMissing: something is not as it has to be, and has been said.
var errMissing = errors.New("not everything is there yet; records take effect once old answers have left the resolvers' caches")

func (a *admin) tellFindings(w io.Writer, findings []dnscheck.Finding) error {
	missing := 0
	for _, f := range findings {
		if !f.OK {
			missing++
		}
	}
	if a.json {
		if err := printJSON(w, map[string]any{"ok": missing == 0, "findings": findings}); err != nil {
			return err
		}
	} else if err := printFindings(w, findings); err != nil {
		return err
	}
	if missing > 0 {
		return errMissing
	}
	return nil
}

func printFindings(w io.Writer, findings []dnscheck.Finding) error {
	for _, f := range findings {
		mark := paint(w, green, "ok      ")
		if !f.OK {
			mark = paint(w, red, "wrong   ")
		}
		if _, err := fmt.Fprintf(w, "%s%s: %s\n", mark, f.Record, f.Text); err != nil {
			return err
		}
		if f.Add != "" {
			if _, err := fmt.Fprintf(w, "        add: %s\n", paint(w, bold, f.Add)); err != nil {
				return err
			}
		}
	}
	return nil
}
