package main

import (
	"context"
	"errors"
	"log/slog"
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
	Serving         servingSettings
	ACME            acmeSettings
	RootRedirectURL string
	PortFlag        string // by which another port is chosen
	Metrics         string // address; empty: none
}

// proxyDrain is how long open requests may go on after a signal.
const proxyDrain = 10 * time.Second

func proxyCommand() *cobra.Command {
	s := proxySettings{}
	var readPorts func()
	cmd := &cobra.Command{
		Use:   "proxy",
		Short: "Run a proxy: it takes requests with a token to their backend",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLogger(cmd.ErrOrStderr(), slog.LevelInfo)
			if err != nil {
				return err
			}
			readPorts()
			return runProxy(cmd.Context(), s, log)
		},
	}
	metricsFlag(cmd, &s.Metrics)
	readPorts = s.Serving.flags(cmd)
	s.ACME.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&s.Name, "name", "", "name of this proxy, px-… (default: made up)")
	f.StringVar(&s.ControllerURL, "controller-url", "", "URL of a controller; a bearer token may stand before an @ (required)")
	f.StringVar(&s.Cluster, "cluster", "", "cluster to serve, host or host:port (required)")
	f.StringVar(&s.RootRedirectURL, "root-redirect-url", "", "where / leads (default: nowhere)")
	return cmd
}

// runProxy runs a proxy until the context ends.
func runProxy(ctx context.Context, s proxySettings, log *slog.Logger) error {
	p, err := prepareProxy(ctx, s, log)
	if err != nil {
		return err
	}
	log.Info("proxy serves", "name", p.name, "address", p.doors.String(), "cluster", p.cluster.String())
	gauges := proxyGauges(p.role)
	if p.certificates != nil {
		gauges = append(gauges, certificateGauges(p.certificates)...)
	}
	return withMetrics(ctx, s.Metrics, log, p.run, gauges...)
}

// runningProxy is a proxy that has its ports and needs only to be run.
type runningProxy struct {
	name         string
	cluster      name.Cluster
	role         *proxy.Proxy
	tasks        *clock.Tasks
	doors        doors
	certificates certificates // nil: serves no TLS
	handler      *httpproxy.Handler
	drain        time.Duration // how long open requests may go on once it stops
	log          *slog.Logger
}

func prepareProxy(ctx context.Context, s proxySettings, log *slog.Logger) (*runningProxy, error) {
	cluster, dialer, err := connection(s.Cluster, s.ControllerURL, websocket.ProxyPath)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(s.Serving.validate(cluster), s.ACME.validate(s.Serving)); err != nil {
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
	p := &runningProxy{name: s.Name, cluster: cluster, drain: proxyDrain, log: log}
	p.tasks = clock.NewTasks(context.WithoutCancel(ctx))
	p.role, err = proxy.New(proxy.DefaultConfig(s.Name, version()), clock.New(), p.tasks, clock.Rand{}, dialer, log)
	if err != nil {
		return nil, usageError{err}
	}
	if p.certificates, err = s.certificates(cluster, p.role, log); err != nil {
		return nil, err
	}
	if p.doors, err = s.Serving.listen(ctx, s.Host, s.PortFlag); err != nil {
		return nil, err
	}
	cfg := httpproxy.DefaultConfig(cluster, version(), log)
	cfg.RootRedirectURL = s.RootRedirectURL
	cfg.HSTS = s.Serving.hsts()
	if p.certificates != nil {
		cfg.Certificates = p.certificates
	}
	p.handler = httpproxy.New(cfg, p.role)
	return p, nil
}

// certificates finds out where the proxy's certificate comes from; nil: it
// serves no TLS.
func (s proxySettings) certificates(cluster name.Cluster, role *proxy.Proxy, log *slog.Logger) (certificates, error) {
	switch {
	case !s.Serving.HTTPS:
		return nil, nil
	case s.Serving.Cert != "":
		return s.Serving.given(cluster, log)
	case s.ACME.wanted():
		return s.ACME.keep(cluster, role, log)
	case s.ACME.CertPath != "":
		return givenInOne(s.ACME.CertPath, cluster, log)
	}
	return nil, usage("--https: where does the certificate come from? Give --acme-email or --acme-endpoint to get it from an authority, or --tls-cert and --tls-key, or --cert-path")
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
	dialer, err := controllerDialer(controllerURL, path(c.String()))
	return c, dialer, err
}

func controllerDialer(controllerURL, path string) (*websocket.Dialer, error) {
	if controllerURL == "" {
		return nil, usage("--controller-url (PLANE_CONTROLLER_URL) is missing, such as http://127.0.0.1:8080")
	}
	dialer, err := websocket.NewDialer(websocket.Options{URL: controllerURL, Path: path, Version: version()})
	if err != nil {
		return nil, usage("--controller-url: %w", err)
	}
	return dialer, nil
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
		if err := p.serve(ctx); err != nil {
			return err
		}
		return context.Cause(ctx)
	})
	if p.certificates != nil {
		g.Go(func() error { return p.certificates.Run(ctx) })
	}
	return g.Wait()
}

// serve takes what comes through the doors until the context ends.
func (p *runningProxy) serve(ctx context.Context) error {
	plain := httpproxy.Server{Handler: p.handler, Drain: p.drain, Limits: httpproxy.DefaultLimits(), Log: p.log}
	if p.certificates == nil {
		return plain.Serve(ctx, p.doors.plain)
	}
	encrypted := plain
	encrypted.TLS = httpproxy.TLSConfig(p.cluster, p.certificates)
	plain.Handler = p.handler.RedirectHTTPS()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return encrypted.Serve(ctx, p.doors.encrypted) })
	g.Go(func() error { return plain.Serve(ctx, p.doors.plain) })
	return g.Wait()
}

// close gives back what a proxy holds that is not run.
func (p *runningProxy) close() error {
	p.tasks.Stop()
	return p.doors.close()
}
