// Package cluster puts whole clusters together: controllers, drones on their
// machines, proxies, DNS receivers and clients over the fakes of sim/fake, in the kernel or in
// the bubble. It lets the weather of sim/fault blow for a while, then lets
// everything heal, and holds the run to sim/check all the way.
//
// It is the one package of the simulator that knows the roles.
package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"plane/sim/check"
	"plane/sim/fake"
	"plane/sim/fault"
	"plane/sim/world"
	"plane/system/controller"
	"plane/system/dns"
	"plane/system/drone"
	"plane/system/lease"
	"plane/system/placement"
	"plane/system/port"
	"plane/system/protocol"
	"plane/system/proxy"
)

// Name is the name of the simulated cluster.
const Name = "sim.test"

// Options say what runs, for how long and in what weather.
type Options struct {
	Seed    uint64
	Shape   Shape
	Weather fault.Weather
	Storm   time.Duration // how long the weather blows
	Calm    time.Duration // how long everything has to heal
	// Script, where not nil, is all that happens: it runs as a task of the clients,
	// in place of weather, users and the checks of the end.
	Script func(ctx context.Context, c *Cluster)
	// Configure, where not nil, may change a role's configuration.
	Configure func(*Roles)
}

// Roles are the configurations that the roles get.
type Roles struct {
	Controller controller.Config
	Drone      drone.Config
	Proxy      proxy.Config
	DNS        dns.Config
}

// Shape is what a cluster is made of.
type Shape struct {
	Controllers, Drones, Proxies, Clients, Keys int
	Limited                                     bool // drones have room for so much only
	Receivers                                   int  // 0: one

	CertificateLife time.Duration // 0: 15 minutes
	Old             bool          // controllers and DNS receivers know one challenge at a time, as 0.5.x
	Early           bool          // the authority wants most certificates to be renewed early
}

// Draw draws a run's shape and weather from its seed.
func Draw(seed uint64, storm time.Duration) Options {
	r := world.NewStream(seed, "shape")
	certificates := world.NewStream(seed, "certificates")
	lives := []time.Duration{90 * time.Second, 4 * time.Minute, 15 * time.Minute}
	return Options{
		Seed: seed, Storm: storm, Calm: 6 * time.Minute,
		Shape: Shape{
			Controllers: 1 + r.IntN(3), Drones: 1 + r.IntN(4), Proxies: 1 + r.IntN(3),
			Clients: 2 + r.IntN(5), Keys: 3 + r.IntN(10), Limited: world.NewStream(seed, "limited").Chance(0.5),
			Receivers:       1 + world.NewStream(seed, "receivers").IntN(2),
			CertificateLife: lives[certificates.IntN(len(lives))], Old: certificates.Chance(0.4),
			Early: world.NewStream(seed, "early renewals").Chance(0.5),
		},
		Weather: fault.Draw(world.NewStream(seed, "weather")),
	}
}

// Cluster is a cluster that runs in a world.
type Cluster struct {
	*fake.Env
	Book     *check.Book
	Database *fake.Database
	Network  *fake.Network

	authority *fake.Authority
	resolver  *fake.Resolver

	opt         Options
	weather     fault.Weather
	rnd         *world.Rand // of the faults
	load        *world.Rand // of the clients
	sizes       *world.Rand // of the drones
	controllers []*process
	drones      []*process
	proxies     []*process
	receivers   []*process
	machines    []*fake.Machine
	clients     world.Node
	log         func(node string) *slog.Logger
	calm        bool // the weather is over
	closing     bool // clients are leaving
	streams     map[string]*stream
	swept       map[string]bool // backends whose sweep was looked at

	answers     map[int]string // the backend that each key led to last
	steadySince time.Time      // since when the store and the network are well; zero: they are not
}

// process is something that crashes and is started again.
type process struct {
	name        string
	machine     string
	clock       world.Clockwork
	incarnation int
	node        world.Node // nil while it is down
	gone        bool       // for good
	boot        func(p *process)
	router      port.Router        // of a proxy
	host        *fake.Machine      // of a drone
	soundSince  time.Time          // of a proxy; zero: it is out of touch
	heard       time.Time          // of a proxy: when it was last in touch
	ableSince   time.Time          // of a drone
	has         placement.Capacity // of a drone
	tls         tlsEnd             // of a proxy
}

func (p *process) up() bool { return p.node != nil && p.node.Alive() }

// New builds the cluster and starts everything. The lock must be held.
func New(w world.World, opt Options, log func(node string) *slog.Logger) *Cluster {
	c := &Cluster{opt: opt, weather: opt.Weather, log: log, streams: map[string]*stream{}, swept: map[string]bool{}, answers: map[int]string{}}
	c.Env = &fake.Env{World: w, Weather: &c.weather}
	c.rnd, c.load, c.sizes = w.Stream("faults"), w.Stream("load"), w.Stream("sizes")
	c.Database = fake.NewDatabase(c.Env, c.clockwork())
	c.Book = check.New(c.Env, c.Database)
	c.Network = fake.NewNetwork(c.Env)
	c.startAuthority()
	w.Tell("world", "seed %d: %+v, weather: %s", opt.Seed, opt.Shape, opt.Weather)
	for i := range opt.Shape.Controllers {
		c.controllers = append(c.controllers, c.start(fmt.Sprint("co-", i), c.bootController))
	}
	for i := range opt.Shape.Drones {
		c.addDrone(i)
	}
	for i := range opt.Shape.Proxies {
		c.proxies = append(c.proxies, c.start(fmt.Sprint("px-", i), c.bootProxy))
	}
	for i := range max(opt.Shape.Receivers, 1) {
		c.receivers = append(c.receivers, c.start(fmt.Sprint("ns-", i), c.bootReceiver))
	}
	c.clients = w.Start("clients", 1, world.Clockwork{})
	c.Database.Watch = c.watchStore
	c.startChecks()
	if opt.Script != nil {
		c.clients.Tasks().Go("script", func(ctx context.Context) { opt.Script(ctx, c) })
		return c
	}
	c.startFaults()
	c.startClients()
	w.After(opt.Storm, c.heal)
	w.After(opt.Storm+probeAt, c.probe)
	w.After(opt.Storm+leaveAt, func() {
		c.Tell("world", "the clients leave")
		c.closing = true
	})
	w.After(opt.Storm+opt.Calm-time.Millisecond, c.lookAtEnd)
	return c
}

func (c *Cluster) clockwork() world.Clockwork {
	years := c.rnd.Between(-20*365*24*time.Hour, 20*365*24*time.Hour)
	clock := world.Clockwork{Offset: years}
	if c.opt.Weather.Drift {
		clock.PPM = c.rnd.Int64N(40_001) - 20_000
	}
	return clock
}

func (c *Cluster) start(name string, boot func(*process)) *process {
	p := &process{name: name, machine: "m-" + name, clock: c.clockwork(), boot: boot}
	c.bootUp(p)
	return p
}

func (c *Cluster) addDrone(i int) {
	p := &process{name: fmt.Sprint("dr-", i), clock: c.clockwork(), boot: c.bootDrone}
	p.machine = "m-" + p.name
	p.host = fake.NewMachine(c.Env, p.machine, fmt.Sprintf("10.0.%d.5", i), p.clock, c.Book)
	c.machines = append(c.machines, p.host)
	c.drones = append(c.drones, p)
	c.bootUp(p)
}

func (c *Cluster) bootUp(p *process) {
	p.incarnation++
	p.node = c.Start(p.name, p.incarnation, p.clock)
	c.Tell(p.name, "starts (%d)", p.incarnation)
	p.boot(p)
}

var version = protocol.Version{Version: "0.6.0", GitHash: "sim"}

func (c *Cluster) roles(p *process) Roles {
	log := c.log(p.name)
	r := Roles{
		Controller: controller.Config{
			Name: p.name, ControllerURL: "http://" + p.name, DefaultCluster: Name, BestOf: 2,
			Version: version, Timing: controller.DefaultTiming(), Lease: lease.Default(), Log: log,
		},
		Drone: drone.DefaultConfig("dr-x"),
		Proxy: proxy.DefaultConfig(p.name, version),
		DNS:   dns.DefaultConfig(p.name, version),
	}
	r.Drone.Name, r.Drone.Version, r.Drone.Log = p.name, version, log
	if c.opt.Shape.Old {
		r.Controller.Version.Version = "0.5.5"
	}
	if c.opt.Configure != nil {
		c.opt.Configure(&r)
	}
	return r
}

func (c *Cluster) bootController(p *process) {
	n := p.node
	co, err := controller.New(c.roles(p).Controller, n.Clock(), n.Tasks(), n.Random(), c.Database.Store(n), c.Database.Listen(n))
	if err != nil {
		panic(fmt.Sprintf("cluster: controller: %v", err))
	}
	serve(n, "controller", co.Run)
	c.Network.Listen(p.name, n, p.machine, api{c, n, co}.serve)
}

func (c *Cluster) bootDrone(p *process) {
	n, m := p.node, p.host
	cfg := c.roles(p).Drone
	if c.opt.Shape.Limited && (p.incarnation == 1 || c.sizes.Chance(0.2)) {
		p.has = anyCapacity(c.sizes)
	}
	cfg.Capacity = p.has
	c.Book.Stated(p.name, p.has)
	d, err := drone.New(cfg, drone.World{
		Clock: n.Clock(), Tasks: n.Tasks(), Rand: n.Random(),
		Dialer:  c.Network.Dialer(n, p.machine, "/drone", c.addresses()),
		Runtime: m.Engine(n), Prober: m.Prober(n), Ports: m.Ports(n, p.name), Journal: m.Journal(n), Guard: m.Guard(n), Boot: m.Boots(n),
	})
	if err != nil {
		panic(fmt.Sprintf("cluster: drone: %v", err))
	}
	serve(n, "drone", d.Run)
}

func (c *Cluster) bootProxy(p *process) {
	n := p.node
	px, err := proxy.New(c.roles(p).Proxy, n.Clock(), n.Tasks(), n.Random(), c.Network.Dialer(n, p.machine, "/proxy", c.addresses()), c.log(p.name))
	if err != nil {
		panic(fmt.Sprintf("cluster: proxy: %v", err))
	}
	p.router = px
	serve(n, "proxy", px.Run)
	c.bootKeeper(p, px)
	c.Network.Listen(p.name, n, p.machine, gate{c, p, n, px}.serve)
}

func (c *Cluster) bootReceiver(p *process) {
	n := p.node
	r, err := dns.New(c.roles(p).DNS, n.Clock(), n.Tasks(), n.Random(), c.Network.Dialer(n, p.machine, "/dns", c.addresses()), c.log(p.name))
	if err != nil {
		panic(fmt.Sprintf("cluster: DNS receiver: %v", err))
	}
	serve(n, "dns", r.Run)
	c.resolver.Serve(n, p.machine, r)
}

func (c *Cluster) addresses() []string {
	var all []string
	for i := range c.opt.Shape.Controllers {
		all = append(all, fmt.Sprint("co-", i))
	}
	return all
}
