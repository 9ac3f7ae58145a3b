package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"plane/adapters/docker"
	"plane/system/backend"
	"plane/system/port"
)

// devSettings are the flags of dev and demo.
type devSettings struct {
	controllerPort, proxyPort uint16
	runtime                   string // auto, docker or process
}

const autoRuntime = "auto"

func (s *devSettings) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Uint16Var(&s.controllerPort, "controller-port", 8080, "port of the controller, on 127.0.0.1")
	f.Uint16Var(&s.proxyPort, "proxy-port", 9090, "port of the proxy, on 127.0.0.1")
	f.StringVar(&s.runtime, "runtime", autoRuntime, "auto (containers if an engine answers, else processes), docker or process")
}

func devCommand() *cobra.Command {
	var s devSettings
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run a whole Plane in this process, for development",
		Long: `Run a whole Plane in this process, for development: controller, proxy and one drone,
cluster localhost:9090, everything in memory. When it ends, its backends do.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLogger(cmd.ErrOrStderr(), slog.LevelInfo)
			if err != nil {
				return err
			}
			d, err := prepareDevelopment(cmd.Context(), s, log)
			if err != nil {
				return err
			}
			return d.run(cmd.Context(), func(ctx context.Context) error {
				d.describe(cmd.ErrOrStderr())
				<-ctx.Done()
				return context.Cause(ctx)
			})
		},
	}
	s.flags(cmd)
	return cmd
}

// development is a controller, a proxy and a drone in one process.
type development struct {
	controller *runningController
	proxy      *runningProxy
	drone      *runningDrone
	runtime    string
	noEngine   error  // why containers were not chosen
	dir        string // of the drone, temporary
	log        *slog.Logger
}

// devDrain is how long clients may take to notice that all backends have ended.
const devDrain = time.Second

// chooseRuntime decides between containers and processes.
func (s devSettings) chooseRuntime(ctx context.Context) (runtime string, noEngine, err error) {
	switch s.runtime {
	case processRuntime:
		return processRuntime, nil, nil
	case dockerRuntime:
		return dockerRuntime, nil, docker.Available(ctx)
	case autoRuntime:
		if err := docker.Available(ctx); err != nil {
			return processRuntime, err, nil
		}
		return dockerRuntime, nil, nil
	}
	return "", nil, usage("--runtime: want auto, docker or process, not %q", s.runtime)
}

func prepareDevelopment(ctx context.Context, s devSettings, log *slog.Logger) (_ *development, err error) {
	d := &development{log: log}
	if d.runtime, d.noEngine, err = s.chooseRuntime(ctx); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	cluster := "localhost:" + strconv.Itoa(int(s.proxyPort))
	bind := "127.0.0.1:" + strconv.Itoa(int(s.controllerPort))
	if d.controller, err = prepareController(ctx, controllerSettings{
		Bind: bind, DefaultCluster: cluster, CleanupBatch: defaultCleanupBatch, BestOf: 2, PortFlag: "--controller-port",
	}, log); err != nil {
		return nil, err
	}
	if d.proxy, err = prepareProxy(ctx, proxySettings{
		ControllerURL: d.controller.url, Cluster: cluster, Host: "127.0.0.1", Serving: servingSettings{HTTPPort: &s.proxyPort}, PortFlag: "--proxy-port",
	}, log); err != nil {
		return nil, err
	}
	d.proxy.drain = devDrain
	if d.dir, err = os.MkdirTemp("", "plane-dev-"); err != nil {
		return nil, fmt.Errorf("make a directory for the drone: %w", err)
	}
	d.drone, err = prepareDrone(ctx, droneSettings{
		ControllerURL: d.controller.url, Cluster: cluster, IP: "127.0.0.1", DB: filepath.Join(d.dir, "journal.db"), Runtime: d.runtime,
		Temporary: true,
	}, log)
	return d, err
}

// close gives back what was prepared and is not run.
func (d *development) close() {
	var errs []error
	if d.controller != nil {
		errs = append(errs, d.controller.close())
	}
	if d.proxy != nil {
		errs = append(errs, d.proxy.close())
	}
	if d.drone != nil {
		d.drone.close()
	}
	if d.dir != "" {
		errs = append(errs, os.RemoveAll(d.dir))
	}
	if err := errors.Join(errs...); err != nil {
		d.log.Warn("closing failed", "error", err)
	}
}

func (d *development) describe(w io.Writer) {
	note(w, "\n%s\n", paint(w, bold, "Plane runs on this machine"))
	note(w, "  controller  %s\n", d.controller.url)
	note(w, "  proxy       http://%s\n", d.proxy.cluster)
	note(w, "  backends    %s\n", d.describeRuntime())
	note(w, "Ctrl-C ends it, with all its backends.\n\n")
}

func (d *development) describeRuntime() string {
	switch {
	case d.runtime == dockerRuntime:
		return "containers"
	case d.noEngine != nil:
		return fmt.Sprintf("processes without isolation, as no container engine answers (%v)", d.noEngine)
	}
	return "processes without isolation"
}

// run runs all three until the context ends or main returns, and then ends every
// backend before it stops. It returns main's error, or that of a role that has
// failed.
func (d *development) run(ctx context.Context, main func(ctx context.Context) error) error {
	defer d.close()
	roles, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	g, roles := errgroup.WithContext(roles)
	g.Go(func() error { return d.controller.run(roles) })
	g.Go(func() error { return d.proxy.run(roles) })
	g.Go(func() error { return d.drone.run(roles) })

	// A role that fails ends main.
	work, cancel := context.WithCancelCause(ctx)
	unhook := context.AfterFunc(roles, func() { cancel(context.Cause(roles)) })
	err := d.awaitReady(work)
	if err == nil {
		err = main(work)
	}
	unhook()
	cancel(nil)
	left := d.endBackends(context.WithoutCancel(ctx))
	stop(errStopped)
	if roleErr := g.Wait(); !errors.Is(roleErr, errStopped) {
		err = roleErr
	}
	if left == nil {
		left = d.stopGuarding(context.WithoutCancel(ctx))
	}
	return errors.Join(err, left)
}

// readyTime is how long the three may take to find each other.
const readyTime = 20 * time.Second

// awaitReady blocks until the drone takes backends and the proxy knows where to
// ask.
func (d *development) awaitReady(ctx context.Context) error {
	return poll(ctx, readyTime, func() (bool, error) {
		state, err := d.controller.role.ClusterState(ctx, d.proxy.cluster.String())
		if err != nil {
			return false, err
		}
		return d.proxy.role.Ready() && len(state.Drones) == 1 && state.Drones[0].Ready, nil
	}, "drone and proxy did not connect to the controller within %v", readyTime)
}

// endTime is how long the backends may take to end when all is stopped.
const endTime = 20 * time.Second

// endBackends ends every backend at once, and makes sure through the runtime
// that nothing of them is left.
func (d *development) endBackends(ctx context.Context) error {
	cluster := d.proxy.cluster.String()
	if _, err := d.controller.role.Drain(ctx, cluster, d.drone.name); err != nil && !errors.Is(err, port.ErrNotFound) {
		d.log.Debug("the drone could not be drained", "error", err) // it has never connected
	}
	err := poll(ctx, endTime, func() (bool, error) {
		alive := 0
		err := d.eachBackend(ctx, func(b port.Backend) error {
			if b.State.Status == backend.Terminated {
				return nil
			}
			alive++
			return d.controller.role.Terminate(ctx, b.ID, backend.Hard)
		})
		return alive == 0, err
	}, "backends did not end within %v", endTime)
	return errors.Join(err, d.removeContainers(ctx))
}

// eachBackend calls do for every backend that there is or was, until it fails.
func (d *development) eachBackend(ctx context.Context, do func(port.Backend) error) error {
	after := ""
	for {
		page, err := d.controller.state.Backends(ctx, port.BackendQuery{Cluster: d.proxy.cluster.String(), After: after, Limit: 1000})
		if err != nil || len(page) == 0 {
			return err
		}
		for _, b := range page {
			if err := do(b); err != nil {
				return err
			}
		}
		after = page[len(page)-1].ID
	}
}

// stopGuarding lets the lease guard end together with this process: it guards on
// where the drone was stopped between the end of a container and the end of its
// guarding.
func (d *development) stopGuarding(ctx context.Context) error {
	return d.eachBackend(ctx, func(b port.Backend) error { return d.drone.guard.Clear(ctx, b.ID) })
}

// removeContainers sees to it that nothing of this drone is left on the machine.
func (d *development) removeContainers(ctx context.Context) error {
	deadline := time.Now().Add(5 * time.Second) // the drone's own time to tidy up
	return poll(ctx, endTime, func() (bool, error) {
		left, err := d.drone.runtime.List(ctx)
		if err != nil || len(left) == 0 {
			return err == nil, err
		}
		if time.Now().Before(deadline) {
			return false, nil
		}
		for _, c := range left {
			if err := d.drone.runtime.Remove(ctx, c.BackendID); err != nil {
				return false, err
			}
			if err := d.drone.guard.Clear(ctx, c.BackendID); err != nil {
				return false, err
			}
		}
		return false, nil
	}, "something of the backends is left on this machine after %v", endTime)
}

// poll calls done now and then until it says so, or the time is over, and then
// tells what took too long and the last error.
func poll(ctx context.Context, limit time.Duration, done func() (bool, error), late string, values ...any) error {
	deadline := time.After(limit)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := done()
		if ok {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-deadline:
			return errors.Join(fmt.Errorf(late, values...), err)
		}
	}
}
