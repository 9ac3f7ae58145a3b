package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"plane/adapters/clock"
	"plane/adapters/docker"
	"plane/adapters/executor"
	"plane/adapters/httpprobe"
	"plane/adapters/journal"
	"plane/adapters/process"
	"plane/adapters/websocket"
	"plane/system/drone"
	"plane/system/name"
	"plane/system/placement"
	"plane/system/port"
)

// The runtimes that a drone can run backends with.
const (
	dockerRuntime   = "docker"
	processRuntime  = "process"
	executorRuntime = "executor" // chosen with --executor-socket
)

// The host ports that backends get. They lie below those that systems give to
// outgoing connections.
const (
	lowestPort  = 20000
	highestPort = 31999
)

// droneSettings are what flags and configuration files say of a drone.
type droneSettings struct {
	Name          string // empty: made up once and kept beside the journal
	ControllerURL string
	Cluster, Pool string
	IP            string // or a host name
	DB            string // empty: in the machine's or the user's state directory
	PortsDB       string // empty: likewise
	Runtime       string
	DockerRuntime string
	LogConfig     string
	MountBase     string
	PruneImages   bool
	Metrics       string // address; empty: none
	Capacity      capacitySettings

	// Temporary: its backends end with the process, and nothing has to outlive
	// the container that it may be in.
	Temporary bool

	ExecutorSocket string // of an external executor, which takes the place of a runtime
}

func droneCommand() *cobra.Command {
	var s droneSettings
	var oldContainers int64
	cmd := &cobra.Command{
		Use:   "drone",
		Short: "Run a drone: the agent that runs backends on this machine",
		Long: `Run a drone: the agent that runs backends on this machine.

Containers outlive the agent: one that starts again takes them up as they are. While
it is down, its lease guard kills what has passed its deadline.

With --executor-socket, a program of yours runs the backends and speaks Plane's
executor protocol there; docs/operations.md says what it has to promise.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLogger(cmd.ErrOrStderr(), slog.LevelInfo)
			if err != nil {
				return err
			}
			return runDrone(cmd.Context(), s, log)
		},
	}
	metricsFlag(cmd, &s.Metrics)
	f := cmd.Flags()
	capacityFlags(f, &s.Capacity)
	f.StringVar(&s.Name, "name", "", "name of this drone, dr-… (default: made up at the first start, and kept)")
	f.StringVar(&s.ControllerURL, "controller-url", "", "URL of a controller; a bearer token may stand before an @ (required)")
	f.StringVar(&s.Cluster, "cluster", "", "cluster to belong to, host or host:port (required)")
	f.StringVar(&s.IP, "ip", "127.0.0.1", "address, or host name, at which proxies reach this machine")
	f.StringVar(&s.DB, "db", "", "file of the journal (default: in /var/lib/plane, or the user's state directory)")
	f.StringVar(&s.PortsDB, "ports-db", "", "file that says which host port is whose; all drones of a machine share it (default: ports.db in /var/lib/plane, or the user's state directory)")
	f.StringVar(&s.Runtime, "runtime", dockerRuntime, "docker, or process: local processes, for development, without any isolation")
	f.StringVar(&s.DockerRuntime, "docker-runtime", "", "the engine's runtime, such as runsc for gVisor (default: the engine's)")
	f.StringVar(&s.ExecutorSocket, "executor-socket", "", "Unix socket of an external executor that runs the backends instead of a container engine")
	f.StringVar(&s.LogConfig, "log-config", "", `the engine's LogConfig as JSON, such as {"Type":"local","Config":{}}`)
	f.StringVar(&s.Pool, "pool", "", "pool to belong to (default: the default pool)")
	f.StringVar(&s.MountBase, "mount-base", "", "directory under which backends' mounts are (default: none may mount)")
	f.BoolVar(&s.PruneImages, "auto-prune-images", false, "remove images that no container uses")
	f.Int64Var(&oldContainers, "auto-prune-containers-older-than-seconds", 0, "accepted for compatibility: ended containers are removed at once")
	return cmd
}

// runDrone runs a drone until the context ends. Its backends go on.
func runDrone(ctx context.Context, s droneSettings, log *slog.Logger) error {
	d, err := prepareDrone(ctx, s, log)
	if err != nil {
		return err
	}
	defer d.close()
	log.Info("drone runs", "name", d.name, "cluster", s.Cluster, "pool", s.Pool, "runtime", s.kind(), "journal", d.journal)
	return withMetrics(ctx, s.Metrics, log, d.run, droneGauges(d.role)...)
}

// runningDrone is a drone that needs only to be run.
type runningDrone struct {
	name, journal string
	role          *drone.Drone
	runtime       port.ContainerRuntime
	guard         port.Guard
	clock         *clock.Boot
	ports         *journal.Ports
	tasks         *clock.Tasks
	log           *slog.Logger
	closers       []func() error
}

func (d *runningDrone) closeLater(c func() error) { d.closers = append(d.closers, c) }

// close gives back what the drone holds of the machine, the newest first.
func (d *runningDrone) close() {
	for len(d.closers) > 0 {
		last := len(d.closers) - 1
		if err := d.closers[last](); err != nil {
			d.log.Warn("closing failed", "error", err)
		}
		d.closers = d.closers[:last]
	}
}

func (d *runningDrone) run(ctx context.Context) error { return d.role.Run(ctx) }

// longestSocket is what the kernel takes for a path.
const longestSocket = 107

// engineSettings reports whether something is set that only a container engine
// understands.
func (s droneSettings) engineSettings() bool {
	return s.DockerRuntime != "" || s.LogConfig != "" || s.MountBase != "" || s.PruneImages
}

// kind is the runtime that runs the backends.
func (s droneSettings) kind() string {
	if s.ExecutorSocket != "" {
		return executorRuntime
	}
	return s.Runtime
}

// validate checks what needs nothing of the machine.
func (s droneSettings) validate() error {
	switch {
	case s.ExecutorSocket != "" && (s.Runtime != dockerRuntime || s.engineSettings()):
		return usage("--executor-socket takes the place of an engine: leave out --runtime, --docker-runtime, --log-config, --mount-base and --auto-prune-images")
	case len(s.ExecutorSocket) > longestSocket:
		return usage("--executor-socket: a Unix socket's path has at most %d bytes, not %d", longestSocket, len(s.ExecutorSocket))
	case s.Runtime != dockerRuntime && s.Runtime != processRuntime:
		return usage("--runtime: want docker or process, not %q", s.Runtime)
	case s.Runtime == processRuntime && s.engineSettings():
		return usage("--docker-runtime, --log-config, --mount-base and --auto-prune-images need --runtime docker")
	case s.LogConfig != "" && !json.Valid([]byte(s.LogConfig)):
		return usage(`--log-config: is not JSON; want something like {"Type":"local","Config":{}}`)
	}
	if _, err := s.Capacity.of(placement.Capacity{}); err != nil {
		return err
	}
	if s.Name != "" {
		if err := name.Validate(name.Drone, s.Name); err != nil {
			return usage("--name: %w", err)
		}
	}
	return nil
}

func prepareDrone(ctx context.Context, s droneSettings, log *slog.Logger) (_ *runningDrone, err error) {
	if err := s.validate(); err != nil {
		return nil, err
	}
	if s.ExecutorSocket != "" { // the guard works elsewhere
		if s.ExecutorSocket, err = filepath.Abs(s.ExecutorSocket); err != nil {
			return nil, fmt.Errorf("--executor-socket: %w", err)
		}
	}
	cluster, dialer, err := connection(s.Cluster, s.ControllerURL, func(c string) string { return websocket.DronePath(c, s.Pool) })
	if err != nil {
		return nil, err
	}
	ip, err := resolve(ctx, s.IP)
	if err != nil {
		return nil, err
	}
	d := &runningDrone{log: log}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	state, err := s.stateDir(cluster)
	if err != nil {
		return nil, err
	}
	if d.name, err = keptName(s.Name, filepath.Join(state, "name")); err != nil {
		return nil, err
	}
	world := drone.World{Rand: clock.Rand{}, Dialer: dialer, Prober: httpprobe.New()}
	if err := d.openState(ctx, &world, s, state, cluster); err != nil {
		return nil, err
	}
	if err := d.openRuntime(ctx, &world, s, state, ip); err != nil {
		return nil, err
	}
	if err := d.openGuard(ctx, &world, s, state); err != nil {
		return nil, err
	}
	d.tasks = clock.NewTasks(context.WithoutCancel(ctx))
	d.closeLater(func() error {
		d.tasks.Stop()
		return nil
	})
	world.Tasks = d.tasks
	cfg := drone.DefaultConfig(d.name)
	cfg.Version, cfg.Log = version(), log
	if cfg.Capacity, err = d.capacity(s.Capacity); err != nil {
		return nil, err
	}
	d.role, err = drone.New(cfg, world)
	if err != nil {
		return nil, usageError{err}
	}
	return d, nil
}

// stateDir is the directory of what the drone keeps: its journal, unless that is
// elsewhere, its clock, its name, and process backends.
func (s droneSettings) stateDir(cluster name.Cluster) (string, error) {
	if s.DB != "" {
		return filepath.Abs(s.DB + ".d") // for the guard, which is started elsewhere
	}
	ports, err := journal.DefaultPortsPath()
	if err != nil {
		return "", err
	}
	part := strings.Join([]string{"drone", cluster.Host, fmt.Sprint(cluster.Port), s.Pool, s.Name}, "_")
	if s.Pool != filepath.Base("/"+s.Pool) && s.Pool != "" {
		return "", usage("--pool %q cannot be part of a file's name: say with --db where the journal is to be", s.Pool)
	}
	return filepath.Join(filepath.Dir(ports), part), nil
}

// portsFile is the file of the machine's ports.
func (s droneSettings) portsFile() (string, error) {
	if s.PortsDB != "" {
		return filepath.Abs(s.PortsDB)
	}
	return journal.DefaultPortsPath()
}

// keptName returns the name that is wished for, else the one in the file, which
// it makes up at the first start.
func keptName(wish, file string) (string, error) {
	if wish != "" {
		return wish, nil
	}
	kept, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		made := name.New(name.Drone, clock.Rand{})
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return "", fmt.Errorf("keep the drone's name: %w", err)
		}
		if err := writeNew(file, made); err != nil {
			return "", fmt.Errorf("keep the drone's name: %w", err)
		}
		return made, nil
	}
	if err != nil {
		return "", fmt.Errorf("read the drone's name: %w", err)
	}
	found := strings.TrimSpace(string(kept))
	if err := name.Validate(name.Drone, found); err != nil {
		return "", fmt.Errorf("%s: %w; put the drone's name there, or start it with --name", file, err)
	}
	return found, nil
}

func writeNew(file, text string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, text+"\n")
	return errors.Join(err, f.Sync(), f.Close())
}

// openState opens what the drone keeps on disk. The journal comes first: it
// keeps a second agent out.
func (d *runningDrone) openState(ctx context.Context, w *drone.World, s droneSettings, state string, cluster name.Cluster) error {
	d.journal = s.DB
	if d.journal == "" {
		d.journal = filepath.Join(state, "journal.db")
	}
	j, err := journal.Open(d.journal)
	if err != nil {
		return err
	}
	d.closeLater(j.Close)
	boot, err := clock.OpenBoot(state)
	if err != nil {
		return err
	}
	portsFile, err := s.portsFile()
	if err != nil {
		return err
	}
	ports, err := journal.OpenPorts(portsFile, cluster.String()+"/"+d.name, lowestPort, highestPort, boot)
	if err != nil {
		return err
	}
	d.closeLater(ports.Close)
	if err := releaseForgotten(ctx, j, ports); err != nil {
		return err
	}
	d.ports, d.clock = ports, boot
	w.Journal, w.Clock, w.Boot, w.Ports = j, boot, boot, ports
	return nil
}

// openGuard finds the drone's lease guard, or starts it.
func (d *runningDrone) openGuard(ctx context.Context, w *drone.World, s droneSettings, state string) error {
	ports, err := s.portsFile()
	if err != nil {
		return err
	}
	settings := guardSettings{Dir: guardDir(state), Drone: d.name, Runtime: s.kind(), Backends: backendsDir(state), Socket: s.ExecutorSocket}
	beside := sibling{shared: []string{filepath.Dir(state), filepath.Dir(ports)}}
	if s.MountBase != "" {
		beside.shared = append(beside.shared, s.MountBase)
	}
	if r, ok := d.runtime.(*docker.Runtime); ok && !s.Temporary {
		if err := beside.find(ctx, r); err != nil {
			return err
		}
	}
	guardian, err := startGuard(ctx, settings, beside, d.clock, d.log)
	if err != nil {
		return err
	}
	d.closeLater(guardian.Close)
	d.guard, w.Guard = guardian, guardian
	return nil
}

// releaseForgotten gives back the ports of backends that the journal does not
// know any more.
func releaseForgotten(ctx context.Context, j *journal.Journal, ports *journal.Ports) error {
	records, err := j.Records(ctx)
	if err != nil {
		return err
	}
	var known []string
	for _, r := range records {
		known = append(known, r.BackendID)
	}
	return ports.ReleaseOthers(ctx, known, drone.DefaultTiming().Quarantine)
}

func (d *runningDrone) openRuntime(ctx context.Context, w *drone.World, s droneSettings, state string, ip netip.Addr) error {
	switch s.kind() {
	case executorRuntime:
		r, err := executor.Open(executor.Config{Socket: s.ExecutorSocket, File: filepath.Join(state, "executor.json"), IP: ip, Log: d.log})
		if err != nil {
			return err
		}
		d.closeLater(func() error {
			r.Close()
			return nil
		})
		d.runtime, w.Prober = r, r
	case processRuntime:
		r, err := process.Open(process.Config{Dir: backendsDir(state), IP: ip, Log: d.log})
		if err != nil {
			return err
		}
		d.closeLater(func() error {
			r.Close()
			return nil
		})
		d.log.Warn("backends run as processes of this machine, without any isolation: for development only")
		d.runtime = r
	default:
		cfg := docker.Config{Drone: d.name, IP: ip, Runtime: s.DockerRuntime, MountBase: s.MountBase, PruneImages: s.PruneImages}
		if s.LogConfig != "" {
			cfg.LogConfig = json.RawMessage(s.LogConfig)
		}
		r, err := docker.New(ctx, cfg)
		if err != nil {
			return withSocketHint(err)
		}
		d.closeLater(r.Close)
		d.runtime = r
	}
	w.Runtime = d.runtime
	return nil
}

// capacity is what the settings say; what they leave open is what the container
// engine's machine has, or this one where there is no engine.
func (d *runningDrone) capacity(s capacitySettings) (has placement.Capacity, err error) {
	var machine placement.Capacity
	if r, ok := d.runtime.(*docker.Runtime); ok {
		machine = r.Machine()
	} else if machine, err = process.Machine(); err != nil {
		return has, err
	}
	if has, err = s.of(machine); err == nil {
		d.log.Info("backends can be promised", "max_backends", has.MaxBackends, "milli_cpus", has.MilliCPUs, "memory_bytes", has.MemoryBytes)
	}
	return has, err
}

// resolve turns an address or a host name into an address.
func resolve(ctx context.Context, host string) (netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap(), nil
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("--ip: find the address of %q: %w", host, err)
	}
	for _, a := range found {
		if a.Unmap().Is4() {
			return a.Unmap(), nil
		}
	}
	return found[0], nil
}
