package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"plane/adapters/clock"
	"plane/adapters/httpproxy"
	"plane/adapters/websocket"
	"plane/system/name"
	"plane/system/proxy"
)

// proxySettings are what flags and configuration files say of a proxy.
type proxySettings struct {
	Name            string // empty: made up
	ControllerURL   string
	Cluster         string
	Host            string // to listen on; empty: everywhere
	HTTPPort        uint16
	RootRedirectURL string
	TLS             tlsSettings
	PortFlag        string // by which another port is chosen
	Metrics         string // address; empty: none
}

// tlsSettings are known by their names only, so that they can be refused and
// not misread.
type tlsSettings struct {
	HTTPS                          bool
	HTTPSPort                      uint16
	CertPath, Endpoint, Email, KID string
	HMACKey                        string
}

func (t tlsSettings) validate() error {
	if t != (tlsSettings{}) {
		return usage("--https, --https-port, --cert-path and --acme-…: this build serves plain HTTP only; leave them out, and let a server in front of the proxy terminate TLS")
	}
	return nil
}

const defaultProxyPort = 9090

// proxyDrain is how long open requests may go on after a signal.
const proxyDrain = 10 * time.Second

func proxyCommand() *cobra.Command {
	s := proxySettings{}
	cmd := &cobra.Command{
		Use:   "proxy",
		Short: "Run a proxy: it takes requests with a token to their backend",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLogger(cmd.ErrOrStderr(), slog.LevelInfo)
			if err != nil {
				return err
			}
			return runProxy(cmd.Context(), s, log)
		},
	}
	metricsFlag(cmd, &s.Metrics)
	f := cmd.Flags()
	f.StringVar(&s.Name, "name", "", "name of this proxy, px-… (default: made up)")
	f.StringVar(&s.ControllerURL, "controller-url", "", "URL of a controller; a bearer token may stand before an @ (required)")
	f.StringVar(&s.Cluster, "cluster", "", "cluster to serve, host or host:port (required)")
	f.Uint16Var(&s.HTTPPort, "http-port", defaultProxyPort, "port to listen on")
	f.StringVar(&s.RootRedirectURL, "root-redirect-url", "", "where / leads (default: nowhere)")
	f.BoolVar(&s.TLS.HTTPS, "https", false, "serve TLS (not in this build)")
	f.Uint16Var(&s.TLS.HTTPSPort, "https-port", 0, "port for TLS (not in this build)")
	f.StringVar(&s.TLS.CertPath, "cert-path", "", "file for the certificate (not in this build)")
	f.StringVar(&s.TLS.Endpoint, "acme-endpoint", "", "ACME directory (not in this build)")
	f.StringVar(&s.TLS.Email, "acme-email", "", "ACME contact (not in this build)")
	f.StringVar(&s.TLS.KID, "acme-eab-kid", "", "ACME account binding: key id (not in this build)")
	f.StringVar(&s.TLS.HMACKey, "acme-eab-hmac-key", "", "ACME account binding: key, base64url (not in this build)")
	return cmd
}

// runProxy runs a proxy until the context ends.
func runProxy(ctx context.Context, s proxySettings, log *slog.Logger) error {
	p, err := prepareProxy(ctx, s, log)
	if err != nil {
		return err
	}
	log.Info("proxy serves", "name", p.name, "address", p.listener.Addr().String(), "cluster", p.cluster.String())
	return withMetrics(ctx, s.Metrics, log, p.run, proxyGauges(p.role)...)
}

// runningProxy is a proxy that has its port and needs only to be run.
type runningProxy struct {
	name     string
	cluster  name.Cluster
	role     *proxy.Proxy
	tasks    *clock.Tasks
	listener net.Listener
	handler  *httpproxy.Handler
	drain    time.Duration // how long open requests may go on once it stops
	log      *slog.Logger
}

func prepareProxy(ctx context.Context, s proxySettings, log *slog.Logger) (*runningProxy, error) {
	if err := s.TLS.validate(); err != nil {
		return nil, err
	}
	cluster, dialer, err := connection(s.Cluster, s.ControllerURL, websocket.ProxyPath)
	if err != nil {
		return nil, err
	}
	if s.RootRedirectURL != "" {
		if _, err := httpURL("--root-redirect-url", s.RootRedirectURL); err != nil {
			return nil, err
		}
	}
	if s.Name == "" {
		s.Name = name.New(name.Proxy, clock.Rand{})
	}
	listener, err := listen(ctx, net.JoinHostPort(s.Host, strconv.Itoa(int(s.HTTPPort))), cmp.Or(s.PortFlag, "--http-port"))
	if err != nil {
		return nil, err
	}
	tasks := clock.NewTasks(context.WithoutCancel(ctx))
	role, err := proxy.New(proxy.DefaultConfig(s.Name, version()), clock.New(), tasks, clock.Rand{}, dialer, log)
	if err != nil {
		return nil, errors.Join(usageError{err}, listener.Close())
	}
	cfg := httpproxy.DefaultConfig(cluster, version(), log)
	cfg.RootRedirectURL = s.RootRedirectURL
	return &runningProxy{
		name: s.Name, cluster: cluster, role: role, tasks: tasks, listener: listener,
		handler: httpproxy.New(cfg, role), drain: proxyDrain, log: log,
	}, nil
}

// connection checks what every node is told of its controller.
func connection(cluster, controllerURL string, path func(cluster string) string) (name.Cluster, *websocket.Dialer, error) {
	if cluster == "" {
		return name.Cluster{}, nil, usage("--cluster (PLANE_CLUSTER) is missing: the cluster's host, or host:port for plain HTTP")
	}
	c, err := name.ParseCluster(cluster)
	if err != nil {
		return name.Cluster{}, nil, usage("--cluster: %w", err)
	}
	if controllerURL == "" {
		return name.Cluster{}, nil, usage("--controller-url (PLANE_CONTROLLER_URL) is missing, such as http://127.0.0.1:8080")
	}
	dialer, err := websocket.NewDialer(websocket.Options{URL: controllerURL, Path: path(c.String()), Version: version()})
	if err != nil {
		return name.Cluster{}, nil, usage("--controller-url: %w", err)
	}
	return c, dialer, nil
}

// run serves until the context ends. The session with the controller outlives
// the requests, which it keeps alive.
func (p *runningProxy) run(ctx context.Context) error {
	defer p.tasks.Stop()
	sessionCtx, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := p.role.Run(sessionCtx); sessionCtx.Err() == nil {
			return err
		}
		return nil
	})
	g.Go(func() error {
		defer end()
		if err := httpproxy.Serve(ctx, p.listener, p.handler, p.drain, p.log); err != nil {
			return err
		}
		return context.Cause(ctx)
	})
	return g.Wait()
}

// close gives back what a proxy holds that is not run.
func (p *runningProxy) close() error {
	p.tasks.Stop()
	return ignoreClosed(p.listener.Close())
}
