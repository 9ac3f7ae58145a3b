package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"plane/adapters/apiclient"
	"plane/adapters/clock"
	"plane/adapters/httpapi"
	"plane/adapters/postgres"
	"plane/adapters/websocket"
	"plane/system/controller"
	"plane/system/lease"
	"plane/system/name"
)

// controllerSettings are what flags and configuration files say of a
// controller.
type controllerSettings struct {
	Name              string // empty: made up
	DB                databaseSettings
	Bind              string // ip:port
	URL               string // empty: from Bind
	DefaultCluster    string
	CleanupMinAgeDays *int64 // nil: keep everything
	CleanupBatch      int
	ForwardAuth       string
	BestOf            int
	PeerURL           string // where other controllers reach this one; empty: from the address, if they can
	PortFlag          string // by which another port is chosen
	Metrics           string // address; empty: none
}

const defaultCleanupBatch = 1000

func controllerCommand() *cobra.Command {
	s := controllerSettings{CleanupBatch: defaultCleanupBatch}
	var host string
	var port uint16
	var cleanupDays int64
	cmd := &cobra.Command{
		Use:   "controller",
		Short: "Run a controller: the service that decides everything",
		Long: `Run a controller: the service that decides everything.

It serves /pub, which may face the internet, and /ctrl, which must not. Any number of
controllers can share a PostgreSQL database (--db); each brings its schema up to date
and waits for it if it is not there yet. Without a database a controller is alone and
keeps everything in memory: when it ends, its backends do.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("cleanup-min-age-days") {
				s.CleanupMinAgeDays = &cleanupDays
			}
			s.Bind = net.JoinHostPort(host, strconv.Itoa(int(port)))
			log, err := newLogger(cmd.ErrOrStderr(), slog.LevelInfo)
			if err != nil {
				return err
			}
			return runController(cmd.Context(), s, log)
		},
	}
	metricsFlag(cmd, &s.Metrics)
	f := cmd.Flags()
	s.DB.flags(cmd, "URL of the PostgreSQL database (default: everything is kept in memory)")
	s.DB.listenFlags(cmd)
	f.IntVar(&s.DB.MaxConnections, "db-max-connections", postgres.DefaultMaxConnections, "how many connections to the database to open at most, the listening one not counted")
	f.StringVar(&s.PeerURL, "peer-url", "", "URL under which other controllers reach this one (default: from --host and --port, unless that is 0.0.0.0)")
	f.Uint16Var(&port, "port", 8080, "port to listen on")
	f.StringVar(&host, "host", "127.0.0.1", "IP address to listen on")
	f.StringVar(&s.URL, "controller-url", "", "URL under which clients reach this controller (default: from --host and --port)")
	f.StringVar(&s.DefaultCluster, "default-cluster", "", "cluster of requests that name none")
	f.Int64Var(&cleanupDays, "cleanup-min-age-days", 0, "forget terminated backends, with their history, after so many days (default: never; expired tokens are always deleted)")
	f.StringVar(&s.ForwardAuth, "forward-auth", "", "URL of a service that is asked before anything under /ctrl is served")
	f.IntVar(&s.BestOf, "best-of", 2, "how many drones to look at when a backend is placed")
	return cmd
}

// runController runs a controller until the context ends.
func runController(ctx context.Context, s controllerSettings, log *slog.Logger) error {
	c, err := prepareController(ctx, s, log)
	if err != nil {
		return err
	}
	log.Info("controller listens", "name", c.name, "address", c.listener.Addr().String(), "url", c.url)
	if c.waitFor == nil {
		log.Warn("everything is kept in memory: when this process ends, its backends do")
	}
	return withMetrics(ctx, s.Metrics, log, c.run)
}

// runningController is a controller that has its port and needs only to be run.
type runningController struct {
	name, url string
	log       *slog.Logger
	listener  net.Listener
	server    *http.Server
	tasks     *clock.Tasks
	sessions  context.CancelFunc
	// serve makes the role on a state and lets requests through to it.
	serve func(s *state) error
	// waitFor opens the database; nil: everything is in memory, and the two below
	// are there already.
	waitFor func(ctx context.Context) (*state, error)
	role    *controller.Controller
	state   *state
}

func prepareController(ctx context.Context, s controllerSettings, log *slog.Logger) (*runningController, error) {
	cfg, auth, err := s.config(log)
	if err != nil {
		return nil, err
	}
	db, err := s.DB.config(cfg.Name, log)
	if err != nil {
		return nil, err
	}
	listener, err := listen(ctx, s.Bind, cmp.Or(s.PortFlag, "--port"))
	if err != nil {
		return nil, err
	}
	gate := &httpapi.Gate{}
	clk := clock.New()
	// The tasks of sessions end when they are stopped, after the server.
	tasks := clock.NewTasks(context.WithoutCancel(ctx))
	sessions, endSessions := context.WithCancel(context.WithoutCancel(ctx))
	c := &runningController{
		name: cfg.Name, url: cfg.ControllerURL, log: log, tasks: tasks, listener: listener,
		server: httpapi.NewServer(gate, log), sessions: endSessions,
	}
	c.serve = func(kept *state) (err error) {
		if c.role, err = controller.New(cfg, clk, tasks, clock.Rand{}, kept, kept.listener); err != nil {
			return err
		}
		c.state = kept
		gate.Open(httpapi.New(httpapi.Config{
			Version: cfg.Version, Log: log, ForwardAuth: auth, Sessions: sessions, Accept: websocket.Accept,
		}, c.role))
		return nil
	}
	if s.DB.URL == "" {
		if err := c.serve(inMemory(clk)); err != nil {
			return nil, errors.Join(err, c.close())
		}
		return c, nil
	}
	cfg.PeerURL, cfg.Peers = s.peerURL(listener.Addr(), db), apiclient.NewPeers(cfg.Name, cfg.Version)
	if cfg.PeerURL == "" {
		log.Warn("other controllers cannot ask this one for statistics of backends: give --peer-url")
	}
	c.waitFor = func(ctx context.Context) (*state, error) {
		store, err := awaitDatabase(ctx, db, log)
		if err != nil {
			return nil, err
		}
		return inPostgres(store), nil
	}
	return c, nil
}

// peerURL is where other controllers reach this one: what was given, or else its
// own address where they can reach that. A loopback address is one only where
// all are on this machine, as the database is.
func (s controllerSettings) peerURL(listening net.Addr, db postgres.Config) string {
	if s.PeerURL != "" {
		return strings.TrimSuffix(s.PeerURL, "/")
	}
	address, err := netip.ParseAddrPort(listening.String())
	if err != nil || address.Addr().IsUnspecified() || address.Addr().IsLoopback() && !db.OnThisMachine() {
		return ""
	}
	return "http://" + address.String()
}

// config checks the settings.
func (s controllerSettings) config(log *slog.Logger) (controller.Config, *url.URL, error) {
	none := controller.Config{}
	cfg := controller.Config{
		Name: s.Name, ControllerURL: strings.TrimSuffix(s.URL, "/"), DefaultCluster: s.DefaultCluster, BestOf: s.BestOf,
		CleanupBatch: s.CleanupBatch, Version: version(), Timing: controller.DefaultTiming(), Lease: lease.Default(), Log: log,
	}
	if cfg.Name == "" {
		cfg.Name = name.New(name.Controller, clock.Rand{})
	}
	address, err := netip.ParseAddrPort(s.Bind)
	if err != nil {
		return none, nil, usage("--host and --port: want an IP address and a port to listen on, have %q", s.Bind)
	}
	if cfg.ControllerURL == "" {
		cfg.ControllerURL = "http://" + reachable(address)
	}
	if _, err := httpURL("--controller-url", cfg.ControllerURL); err != nil {
		return none, nil, err
	}
	if s.PeerURL != "" {
		if u, err := httpURL("--peer-url", s.PeerURL); err != nil {
			return none, nil, err
		} else if u.User != nil {
			return none, nil, usage("--peer-url: leave out what stands before the @: it would be kept in the database, and callers' own headers are passed on")
		}
	}
	if days := s.CleanupMinAgeDays; days != nil {
		if *days < 1 || *days > 36500 {
			return none, nil, usage("--cleanup-min-age-days: want 1 to 36500 days, not %d", *days)
		}
		cfg.CleanupMinAge = time.Duration(*days) * 24 * time.Hour
	}
	if s.CleanupBatch < 1 {
		return none, nil, usage("cleanup_batch_size: want 1 or more, not %d", s.CleanupBatch)
	}
	var auth *url.URL
	if s.ForwardAuth != "" {
		if auth, err = httpURL("--forward-auth", s.ForwardAuth); err != nil {
			return none, nil, err
		}
	}
	if err := cfg.Validate(); err != nil {
		return none, nil, usageError{err}
	}
	return cfg, auth, nil
}

// run serves until the context ends, and then in good order: no new requests,
// streams and sockets end, so that nodes go elsewhere, other requests are
// finished, and hints of what was done are sent.
func (c *runningController) run(ctx context.Context) error {
	defer c.release()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return serveHTTP(ctx, c.server, c.listener, c.sessions) })
	g.Go(func() error {
		if c.role == nil {
			kept, err := c.waitFor(ctx)
			if err != nil {
				return err
			}
			if err := c.serve(kept); err != nil {
				kept.close()
				return err
			}
			c.log.Info("controller serves", "name", c.name, "url", c.url)
		}
		return c.role.Run(ctx)
	})
	return g.Wait()
}

// release gives back what is held besides the port: the sessions first, as they
// use the store.
func (c *runningController) release() {
	c.sessions()
	c.tasks.Stop()
	if c.state != nil {
		c.state.close()
	}
}

// close gives back what a controller holds that is not run.
func (c *runningController) close() error {
	c.release()
	return ignoreClosed(c.listener.Close())
}

// ignoreClosed drops the error of closing twice.
func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// shutdownTime is how long requests may take to finish after a signal.
const shutdownTime = 10 * time.Second

// serveHTTP serves until the context ends and returns its cause; stopping is
// called first of all then.
func serveHTTP(ctx context.Context, server *http.Server, l net.Listener, stopping func()) error {
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve HTTP: %w", err)
	case <-ctx.Done():
	}
	stopping()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		_ = server.Close() // whoever has not finished by now is cut off
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP: %w", err)
	}
	return context.Cause(ctx)
}

// listen opens a port; what says how to choose another.
func listen(ctx context.Context, address, what string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err == nil {
		return l, nil
	}
	_, port, splitErr := net.SplitHostPort(address)
	if splitErr != nil {
		return nil, usage("cannot listen on %q: %w", address, splitErr)
	}
	if isAddressInUse(err) {
		return nil, fmt.Errorf("port %s of %s is in use by another program: stop that one, or choose another port with %s", port, strings.TrimSuffix(address, ":"+port), what)
	}
	return nil, fmt.Errorf("cannot listen on %s: %w (choose another port with %s)", address, err, what)
}

// reachable is the address that a program on this machine can use to reach a
// listener.
func reachable(a netip.AddrPort) string {
	if a.Addr().IsUnspecified() {
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(int(a.Port())))
	}
	return a.String()
}

func httpURL(flag, text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, usage("%s: want a URL that begins with http:// or https://", flag) // not the text: it may hold a token
	}
	return u, nil
}
