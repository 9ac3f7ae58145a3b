// Package docker runs backends as containers of a Docker engine, API 1.41 or
// newer, cgroup v1 or v2. It implements port.ContainerRuntime.
//
// It owns the containers that carry its drone's label, and sees and touches no
// others: several drones may share one engine. A container is called
// plane-{backend}, so the engine itself holds that there is one per backend. It
// has no restart policy, and outlives the process that started it.
//
// Containers are a little tighter than the engine's default, as far as ordinary
// images do not notice: without the capabilities NET_RAW (forging packets on
// the bridge) and MKNOD, with a limit on processes, and without swap where
// memory is limited. Not set, because images do notice: no-new-privileges
// (breaks sudo), an init process (breaks images that bring their own), a
// read-only root. Their PID 1 gets SIGTERM as it is; one that has no handler for
// it is ended only by the kill that follows.
//
// Every method may be called from any number of goroutines, Exits from one at a
// time. Each call to the engine has a deadline of its own, so a hung engine
// makes calls fail and never hang; a pull has one too, and must go on moving.
// Errors that are no sentinel of the port are unclear: the engine may have done
// what was asked. No error holds an environment or credentials.
package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/system"
	"github.com/docker/docker/api/types/versions"
	"github.com/docker/docker/client"

	"plane/system/name"
	"plane/system/placement"
	"plane/system/port"
)

// The labels of a container.
const (
	BackendLabel = "dev.plane.backend"
	DroneLabel   = "dev.plane.drone"
)

const oldestAPI = "1.41"

// Config says how a drone uses its engine. Zero durations mean the defaults.
type Config struct {
	// Host is the engine's address; empty: DOCKER_HOST, or the usual socket.
	Host string
	// Drone is the name of the drone that the containers belong to.
	Drone string
	// IP is the address at which proxies reach this machine. Backends are
	// published there if it is an address of this machine, else (the drone is
	// in a container, or behind address translation) at all IPv4 addresses.
	IP netip.Addr
	// Runtime is the engine's runtime, such as runsc for gVisor; empty: the
	// engine's default.
	Runtime string
	// LogConfig is the engine's LogConfig as JSON; nil: the engine's default.
	LogConfig json.RawMessage
	// MountBase is the directory, on the engine's machine and at the same path
	// here, under which mounts are; empty: mounts are refused.
	MountBase string
	// PruneImages lets Prune remove images.
	PruneImages bool

	CallTimeout time.Duration // of one call to the engine; default 30 s
	PullTimeout time.Duration // of a pull; default 1 h
	PullStall   time.Duration // without news of a pull; default 2 min
	PruneAge    time.Duration // since an image was used here; default 1 h
}

// Runtime is one drone's view of an engine.
type Runtime struct {
	engine    *client.Client
	cfg       Config
	bind      netip.Addr
	logConfig container.LogConfig
	machine   placement.Capacity

	life context.Context // of the event stream
	end  context.CancelFunc

	exits exits

	usedMu sync.Mutex
	used   map[string]time.Time // image: when a backend here last wanted it
}

var _ port.ContainerRuntime = (*Runtime)(nil)

// Available returns nil when an engine answers that New can work with. Blocks
// for a few seconds at most.
func Available(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	engine, err := connect(ctx, "")
	if err != nil {
		return err
	}
	return engine.Close()
}

// New connects to the engine and checks the configuration against it. Close
// the Runtime when done; that ends no container.
func New(ctx context.Context, cfg Config) (*Runtime, error) {
	cfg.CallTimeout = orDefault(cfg.CallTimeout, 30*time.Second)
	cfg.PullTimeout = orDefault(cfg.PullTimeout, time.Hour)
	cfg.PullStall = orDefault(cfg.PullStall, 2*time.Minute)
	cfg.PruneAge = orDefault(cfg.PruneAge, time.Hour)
	if err := name.Validate(name.Drone, cfg.Drone); err != nil {
		return nil, fmt.Errorf("docker: %w", err)
	}
	bind, err := bindAddress(cfg.IP)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.CallTimeout)
	defer cancel()
	engine, err := connect(ctx, cfg.Host)
	if err != nil {
		return nil, err
	}
	r := &Runtime{engine: engine, cfg: cfg, bind: bind, used: map[string]time.Time{}}
	if err := r.checkEngine(ctx); err != nil {
		return nil, errors.Join(err, engine.Close())
	}
	r.life, r.end = context.WithCancel(context.Background())
	return r, nil
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}

// Machine is what the engine's machine had when New asked.
func (r *Runtime) Machine() placement.Capacity { return r.machine }

// Close lets go of the engine. Containers stay as they are.
func (r *Runtime) Close() error {
	r.end()
	return r.engine.Close()
}

func connect(ctx context.Context, host string) (*client.Client, error) {
	opts := []client.Opt{client.FromEnv, client.WithAPIVersionNegotiation()}
	if host != "" {
		opts = append(opts, client.WithHost(host))
	}
	engine, err := client.NewClientWithOpts(opts...)
	if err != nil {
		return nil, fmt.Errorf("docker: %w", err)
	}
	ping, err := engine.Ping(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("docker: no engine answers at %s: %w", engine.DaemonHost(), cause(ctx, err)), engine.Close())
	}
	engine.NegotiateAPIVersionPing(ping)
	if v := engine.ClientVersion(); versions.LessThan(v, oldestAPI) {
		return nil, errors.Join(fmt.Errorf("docker: the engine at %s speaks API %s; Plane needs %s (Docker 20.10) or newer", engine.DaemonHost(), v, oldestAPI), engine.Close())
	}
	return engine, nil
}

// checkEngine finds out at the start what would else fail each spawn.
func (r *Runtime) checkEngine(ctx context.Context) error {
	info, err := r.engine.Info(ctx)
	if err != nil {
		return fmt.Errorf("docker: ask the engine about itself: %w", cause(ctx, err))
	}
	if info.OSType != "linux" {
		return fmt.Errorf("docker: the engine runs %s containers; Plane needs linux", info.OSType)
	}
	if _, ok := info.Runtimes[r.cfg.Runtime]; !ok && r.cfg.Runtime != "" && !strings.Contains(r.cfg.Runtime, ".") {
		return fmt.Errorf("docker: the engine has no runtime %q; register it in daemon.json", r.cfg.Runtime)
	}
	r.exits.since = engineTime(info)
	r.machine = placement.Capacity{MilliCPUs: int64(info.NCPU) * 1000, MemoryBytes: info.MemTotal}
	return r.readLogConfig(info)
}

func (r *Runtime) readLogConfig(info system.Info) error {
	if len(r.cfg.LogConfig) == 0 {
		return nil
	}
	if err := json.Unmarshal(r.cfg.LogConfig, &r.logConfig); err != nil {
		return fmt.Errorf(`docker: log config: want {"Type":"…","Config":{…}}: %w`, err)
	}
	if t := r.logConfig.Type; t != "none" && !slices.Contains(info.Plugins.Log, t) {
		return fmt.Errorf("docker: log config: the engine has no log driver %q; it has %s", t, strings.Join(info.Plugins.Log, ", "))
	}
	return nil
}

// bindAddress is where to publish ports so that ip leads to them.
func bindAddress(ip netip.Addr) (netip.Addr, error) {
	if !ip.IsValid() {
		return ip, errors.New("docker: the drone's address is missing")
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return ip, fmt.Errorf("docker: list this machine's addresses: %w", err)
	}
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr() == ip.Unmap() {
			return ip, nil
		}
	}
	if ip.IsLoopback() {
		return ip, nil // 127.0.0.2 and its like are local without being listed
	}
	return netip.IPv4Unspecified(), nil
}

// call gives one call to the engine its deadline.
func (r *Runtime) call(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, r.cfg.CallTimeout,
		fmt.Errorf("the engine has not answered in %v: %w", r.cfg.CallTimeout, context.DeadlineExceeded))
}

// cause puts the reason why a context ended in the place of an error that only
// says that it did.
func cause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
