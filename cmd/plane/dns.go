package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"plane/adapters/clock"
	"plane/adapters/dnsserver"
	"plane/adapters/metrics"
	"plane/adapters/websocket"
	"plane/system/dns"
	"plane/system/name"
	"plane/system/zone"
)

// dnsSettings are what flags and configuration files say of a DNS receiver.
type dnsSettings struct {
	Name          string // empty: made up
	ControllerURL string
	Zone          string // empty: _acme-challenge names are answered themselves
	Bind          string // IP address; empty: all
	Port          uint16
	Servers       []string // names of the zone's name servers
	Addresses     []string // of those that lie in the zone
	Contact       string
	RateLimit     int
	Metrics       string // address; empty: none
}

const defaultDNSPort = 53

// withDNSDefaults are settings of which nothing is said.
func withDNSDefaults() dnsSettings {
	return dnsSettings{Port: defaultDNSPort, RateLimit: dnsserver.DefaultConfig().RateLimit}
}

func dnsCommand() *cobra.Command {
	s := withDNSDefaults()
	cmd := &cobra.Command{
		Use:   "dns",
		Short: "Run a DNS receiver: it answers the challenges of certificate authorities",
		Long: `Run a DNS receiver: it answers the challenges of certificate authorities.

It is the authoritative name server of --zone, over UDP and TCP, and meant to be
reached from the internet: TXT of CLUSTER.ZONE is what the cluster's proxies have to
show just now. Without --zone it answers _acme-challenge.CLUSTER itself.
docs/dns.md says which records have to lead to it.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLogger(cmd.ErrOrStderr(), slog.LevelInfo)
			if err != nil {
				return err
			}
			return runDNS(cmd.Context(), s, log)
		},
	}
	metricsFlag(cmd, &s.Metrics)
	f := cmd.Flags()
	f.StringVar(&s.Name, "name", "", "name of this DNS receiver, ns-… (default: made up)")
	f.StringVar(&s.ControllerURL, "controller-url", "", "URL of a controller; a bearer token may stand before an @ (required)")
	f.StringVar(&s.Zone, "zone", "", "zone that is delegated to this receiver (default: none, and _acme-challenge names are)")
	f.Uint16Var(&s.Port, "port", s.Port, "port to listen on, UDP and TCP")
	f.StringVar(&s.Bind, "bind", "", "IP address to listen on (default: all)")
	f.StringSliceVar(&s.Servers, "ns", nil, "names of the zone's name servers, as its delegation has them (default: ns.ZONE)")
	f.StringSliceVar(&s.Addresses, "ns-address", nil, "public IP addresses of the name servers whose names lie in the zone")
	f.StringVar(&s.Contact, "contact", "", "mail address of whoever looks after the zone (default: hostmaster@ZONE)")
	f.IntVar(&s.RateLimit, "rate-limit", s.RateLimit, "UDP answers a second to one network, an IPv4 /24 or IPv6 /56; beyond, resolvers are told to come by TCP (0: no limit)")
	return cmd
}

// runDNS runs a DNS receiver until the context ends.
func runDNS(ctx context.Context, s dnsSettings, log *slog.Logger) error {
	d, err := prepareDNS(ctx, s, log)
	if err != nil {
		return err
	}
	log.Info("DNS receiver serves", "name", d.name, "address", d.sockets.Addr().String(), "zone", s.Zone)
	if s.Zone != "" && len(s.Servers) == 0 && len(s.Addresses) == 0 {
		log.Warn("the zone's name server has no address; some resolvers ask for it: give the names in the delegation with --ns, and their addresses, if they lie in the zone, with --ns-address", "name_server", "ns."+s.Zone)
	}
	return withMetrics(ctx, s.Metrics, log, d.run, dnsGauges(d.role, d.server)...)
}

// runningDNS is a DNS receiver that has its port and needs only to be run.
type runningDNS struct {
	name    string
	role    *dns.Receiver
	tasks   *clock.Tasks
	server  *dnsserver.Server
	sockets *dnsserver.Sockets
}

func prepareDNS(ctx context.Context, s dnsSettings, log *slog.Logger) (*runningDNS, error) {
	dialer, err := controllerDialer(s.ControllerURL, websocket.DNSPath)
	if err != nil {
		return nil, err
	}
	z, err := s.rules()
	if err != nil {
		return nil, err
	}
	if s.Name == "" {
		s.Name = name.New(name.DNS, clock.Rand{})
	}
	tasks := clock.NewTasks(context.WithoutCancel(ctx))
	role, err := dns.New(dns.DefaultConfig(s.Name, version()), clock.New(), tasks, clock.Rand{}, dialer, log)
	if err != nil {
		return nil, usageError{err}
	}
	cfg := dnsserver.DefaultConfig()
	cfg.RateLimit = s.RateLimit
	server, err := dnsserver.New(cfg, z, role, log)
	if err != nil {
		return nil, usage("--rate-limit: %w", err)
	}
	sockets, err := dnsserver.Listen(ctx, s.Bind, s.Port)
	if err != nil {
		return nil, explainPort(err, s)
	}
	return &runningDNS{name: s.Name, role: role, tasks: tasks, server: server, sockets: sockets}, nil
}

// rules checks what is said of the zone.
func (s dnsSettings) rules() (*zone.Zone, error) {
	if s.Bind != "" {
		if _, err := netip.ParseAddr(s.Bind); err != nil {
			return nil, usage("--bind: want an IP address, not %q", s.Bind)
		}
	}
	addresses, err := zone.ParseAddresses(s.Addresses)
	if err != nil {
		return nil, usage("--ns-address: %w", err)
	}
	z, err := zone.New(zone.Config{Zone: s.Zone, Names: s.Servers, Addresses: addresses, Contact: s.Contact})
	if err != nil {
		return nil, usage("--zone, --ns, --ns-address, --contact: %w", err)
	}
	return z, nil
}

// explainPort says what can be done about a port that is not to be had.
func explainPort(err error, s dnsSettings) error {
	at := net.JoinHostPort(s.Bind, strconv.Itoa(int(s.Port)))
	switch {
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("cannot listen on %s: only root, or a program with the capability CAP_NET_BIND_SERVICE, may have a port below 1024. Run as root, give the capability (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE; by hand: setcap cap_net_bind_service=+ep on the plane binary), or choose another port with --port and lead port 53 there", at)
	case isAddressInUse(err):
		return fmt.Errorf("port %d of %q is in use by another program, perhaps a resolver (systemd-resolved has 127.0.0.53:53): stop that one, choose one of this machine's addresses with --bind, or another port with --port", s.Port, s.Bind)
	}
	return fmt.Errorf("cannot listen on %s: %w (choose the address with --bind and the port with --port)", at, err)
}

// run serves until the context ends. The session with the controller outlives
// the questions under way.
func (d *runningDNS) run(ctx context.Context) error {
	defer d.tasks.Stop()
	sessionCtx, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := d.role.Run(sessionCtx); sessionCtx.Err() == nil {
			return err
		}
		return nil
	})
	g.Go(func() error {
		defer end()
		return d.server.Serve(ctx, d.sockets)
	})
	return g.Wait()
}

func dnsGauges(r *dns.Receiver, s *dnsserver.Server) []metrics.Gauge {
	return []metrics.Gauge{
		{Name: "plane_dns_connected", Help: "1 while a controller is connected.", Value: func() float64 { return oneIf(r.Connected()) }},
		{Name: "plane_dns_asked", Help: "Questions to the controller that are under way.", Value: func() float64 { asked, _ := r.Size(); return float64(asked) }},
		{Name: "plane_dns_connections", Help: "TCP connections that are open.", Value: func() float64 { return float64(s.Counts().Connections) }},
		{Name: "plane_dns_questions_total", Help: "Questions that were understood.", Counts: true, Value: func() float64 { return float64(s.Counts().Questions) }},
		{Name: "plane_dns_limited_total", Help: "Packets beyond the rate of their network.", Counts: true, Value: func() float64 { return float64(s.Counts().Limited) }},
		{Name: "plane_dns_unavailable_total", Help: "Questions that no controller could answer in time.", Counts: true, Value: func() float64 { return float64(s.Counts().Unavailable) }},
	}
}
