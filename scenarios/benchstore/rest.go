package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"plane/adapters/clock"
	"plane/system/controller"
	"plane/system/lease"
	"plane/system/port"
	"plane/system/protocol"
)

// restLoad is how many live backends there are, and how long they are watched.
type restLoad struct {
	backends int
	settle   time.Duration // before they are watched
	watch    time.Duration
	// each is how many statements of one each are really run; their processor
	// time is multiplied to what it would be for all.
	each int
}

const (
	restControllers = 3
	restProxies     = 2
)

var version = protocol.Version{Version: "bench"}

// cost is what the server did in a while.
type cost struct {
	statements float64 // per second
	processor  float64 // seconds per second
}

// atRest measures what live backends cost that only have their leases renewed
// and are used.
func (b *benchmark) atRest(ctx context.Context) error {
	all, asked, err := b.watchOurs(ctx)
	if err != nil {
		return fmt.Errorf("ours: %w", err)
	}
	each, err := b.oneEach(ctx, asked)
	if err != nil {
		return fmt.Errorf("one statement each: %w", err)
	}
	fmt.Printf("\n%d live backends at rest: %d controllers, %d drones, %d proxies through which all are in use, watched for %v: everything that the controllers ask of the server. Beside it the %.0f renewals and %.0f keep-alives per second that came in, one statement each; for these, %d are run as fast as they can be, and their processor time taken by the statement.\n",
		b.rest.backends, restControllers, drones, restProxies, b.rest.watch, asked.renewals, asked.keepAlives, b.rest.each)
	costs(os.Stdout, all, each)
	return nil
}

// asked is what drones and proxies asked of the controllers, per second.
type asked struct{ renewals, keepAlives float64 }

// restingCluster is controllers with the far ends of their sessions.
type restingCluster struct {
	cancel  context.CancelFunc
	tasks   sync.WaitGroup
	stores  []*ours
	drones  map[string]*node
	give    map[string]func(backends []string)
	proxies []*node
	inUse   []func(backends []string)
}

// watchOurs runs controllers with a cluster at rest, in real time.
func (b *benchmark) watchOurs(ctx context.Context) (cost, asked, error) {
	const database = "rest"
	url, err := b.counted(ctx, database)
	if err != nil {
		return cost{}, asked{}, err
	}
	c, err := startResting(ctx, url)
	if err != nil {
		return cost{}, asked{}, err
	}
	defer c.stop()
	if err := c.fill(ctx, b.rest.backends); err != nil {
		return cost{}, asked{}, err
	}
	if err := b.server.exec(ctx, database, "VACUUM (ANALYZE)"); err != nil {
		return cost{}, asked{}, err
	}
	say("rest: %d backends are there", b.rest.backends)
	select { // until it goes its even way
	case <-ctx.Done():
		return cost{}, asked{}, context.Cause(ctx)
	case <-time.After(b.rest.settle):
	}
	renewals, keepAlives := c.counts()
	all, err := b.observe(ctx, database, func() error {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(b.rest.watch):
			return nil
		}
	})
	renewalsAfter, keepAlivesAfter := c.counts()
	for name, n := range c.drones {
		if n.refused.Load() > 0 || n.asked.Load()-n.renewed.Load() > int64(b.rest.backends/drones) {
			err = errors.Join(err, fmt.Errorf("%s asked for %d renewals and got %d; %d were refused", name, n.asked.Load(), n.renewed.Load(), n.refused.Load()))
		}
	}
	seconds := b.rest.watch.Seconds()
	return all, asked{float64(renewalsAfter-renewals) / seconds, float64(keepAlivesAfter-keepAlives) / seconds}, err
}

func startResting(ctx context.Context, url string) (*restingCluster, error) {
	ctx, cancel := context.WithCancel(ctx)
	c := &restingCluster{cancel: cancel, drones: map[string]*node{}, give: map[string]func([]string){}}
	var roles []*controller.Controller
	for i := range restControllers {
		o := &ours{}
		if err := o.open(ctx, url); err != nil {
			c.stop()
			return nil, err
		}
		c.stores = append(c.stores, o)
		role, err := controller.New(controller.Config{
			Name: fmt.Sprint("co-", i), ControllerURL: "http://localhost", BestOf: bestOf, Version: version,
			Timing: controller.DefaultTiming(), Lease: lease.Default(),
			Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		}, clock.New(), clock.NewTasks(ctx), clock.Rand{}, o.store, o.hints)
		if err != nil {
			c.stop()
			return nil, err
		}
		c.tasks.Go(func() { _ = role.Run(ctx) }) // until the context ends
		roles = append(roles, role)
	}
	for i := range drones {
		name := fmt.Sprint("dr-", i+1)
		n, give := restingDrone(name)
		c.drones[name], c.give[name] = n, give
		c.tasks.Go(func() { _ = roles[i%len(roles)].ServeDrone(ctx, cluster, "", n) })
	}
	for i := range restProxies {
		n, use := restingProxy(fmt.Sprint("px-", i+1))
		c.proxies, c.inUse = append(c.proxies, n), append(c.inUse, use)
		c.tasks.Go(func() { _ = roles[i%len(roles)].ServeProxy(ctx, cluster, n) })
	}
	return c, nil
}

func (c *restingCluster) stop() {
	c.cancel()
	c.tasks.Wait()
	for _, o := range c.stores {
		o.shut()
	}
}

func (c *restingCluster) counts() (renewals, keepAlives int64) {
	for _, n := range c.drones {
		renewals += n.renewed.Load()
	}
	for _, n := range c.proxies {
		keepAlives += n.asked.Load()
	}
	return renewals, keepAlives
}

// fill makes the backends, once the drones have said that they live, and gives
// them to drones and proxies.
func (c *restingCluster) fill(ctx context.Context, n int) error {
	for {
		state, err := c.stores[0].store.ClusterState(ctx, cluster)
		if err != nil {
			return err
		}
		if len(state.Drones) == drones && len(state.Proxies) == restProxies {
			break
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
	made, err := c.makeReady(ctx, n)
	if err != nil {
		return err
	}
	byDrone, byProxy := map[string][]string{}, make([][]string, restProxies)
	for i, b := range made {
		byDrone[b.Drone] = append(byDrone[b.Drone], b.BackendID)
		byProxy[i%restProxies] = append(byProxy[i%restProxies], b.BackendID)
	}
	for drone, backends := range byDrone {
		rand.Shuffle(len(backends), func(i, j int) { backends[i], backends[j] = backends[j], backends[i] })
		c.give[drone](backends)
	}
	for i, backends := range byProxy {
		c.inUse[i](backends)
	}
	return nil
}

// makeReady makes the backends, some at a time, and keeps the leases of those
// that are there.
func (c *restingCluster) makeReady(ctx context.Context, n int) ([]port.Connected, error) {
	const some = 1000
	var all []port.Connected
	for renewed := time.Now(); len(all) < n; {
		first := len(all)
		made, err := fill(ctx, min(some, n-first), func(ctx context.Context, i int) (port.Connected, error) {
			return c.stores[i%len(c.stores)].connect(ctx, heldKey(first+i))
		})
		if err == nil {
			err = ready(ctx, c.stores[0].store, made)
		}
		all = append(all, made...)
		if err == nil && time.Since(renewed) > renewEvery {
			err = renewAll(ctx, c.stores[0].store, all)
			renewed = time.Now()
		}
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

func renewAll(ctx context.Context, store port.Store, all []port.Connected) error {
	renewals := make([]port.Renewal, len(all))
	for i, b := range all {
		renewals[i] = port.Renewal{Drone: b.DroneID, BackendID: b.BackendID, Lease: lease.Default()}
	}
	_, err := store.RenewKeys(ctx, renewals)
	return err
}

// counted makes a database whose statements are counted.
func (b *benchmark) counted(ctx context.Context, database string) (string, error) {
	url, err := b.server.create(ctx, database)
	if err != nil {
		return "", err
	}
	return url, b.server.exec(ctx, "postgres",
		"CREATE EXTENSION IF NOT EXISTS pg_stat_statements",
		"ALTER DATABASE "+pgx.Identifier{database}.Sanitize()+" SET pg_stat_statements.track = 'top'")
}

// observe says what the server did for a database while something was done.
func (b *benchmark) observe(ctx context.Context, database string, do func() error) (cost, error) {
	if err := b.server.exec(ctx, "postgres", "SELECT pg_stat_statements_reset()"); err != nil {
		return cost{}, err
	}
	before, err := b.server.processorTime()
	if err != nil {
		return cost{}, err
	}
	began := time.Now()
	if err := do(); err != nil {
		return cost{}, err
	}
	seconds := time.Since(began).Seconds()
	after, err := b.server.processorTime()
	if err != nil {
		return cost{}, err
	}
	statements, err := b.statements(ctx, database)
	return cost{float64(statements) / seconds, (after - before).Seconds() / seconds}, err
}

// statements counts those of a database since the last reset, and tells of the
// most frequent.
func (b *benchmark) statements(ctx context.Context, database string) (int64, error) {
	conn, err := pgx.Connect(ctx, b.server.url("postgres"))
	if err != nil {
		return 0, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, `
		SELECT s.calls, s.rows, s.total_exec_time, regexp_replace(s.query, '\s+', ' ', 'g')
		FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
		WHERE d.datname = $1 ORDER BY s.calls DESC`, database)
	if err != nil {
		return 0, err
	}
	var sum, calls, touched int64
	var took float64
	var query string
	shown := 0
	_, err = pgx.ForEachRow(rows, []any{&calls, &touched, &took, &query}, func() error {
		sum += calls
		if shown++; shown <= 8 {
			say("%s: %7d calls, %8d rows, %6.0f ms: %.90s", database, calls, touched, took, query)
		}
		return nil
	})
	return sum, err
}

// oneEach runs a part of what was asked for, a statement each, and says what all
// of it would cost.
func (b *benchmark) oneEach(ctx context.Context, a asked) (cost, error) {
	const database = "one_each"
	url, err := b.counted(ctx, database)
	if err != nil {
		return cost{}, err
	}
	if err := b.server.exec(ctx, database, append(peerSchema, fmt.Sprintf(`
		INSERT INTO backend (id, cluster, drone_id, state, last_status, last_status_time, last_keepalive)
		SELECT 'b' || n, 'bench', n %% %d, '{"status":"ready"}', 'ready', now(), now() FROM generate_series(0, %d) n`, drones, b.rest.backends-1), `
		INSERT INTO backend_key (id, namespace, key_name, tag, expires_at, fencing_token)
		SELECT id, '', 'key of ' || id, '', now() + interval '1 hour', 1 FROM backend`, "VACUUM (ANALYZE)")...); err != nil {
		return cost{}, err
	}
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return cost{}, err
	}
	cfg.MaxConns = poolSize
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return cost{}, err
	}
	defer pool.Close()
	total := a.renewals + a.keepAlives
	var seconds float64
	done, err := b.observe(ctx, database, func() error {
		began := time.Now()
		defer func() { seconds = time.Since(began).Seconds() }()
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(poolSize)
		for range b.rest.each {
			id := fmt.Sprint("b", rand.IntN(b.rest.backends))
			renewal := rand.Float64()*total < a.renewals
			g.Go(func() error { return oneUpdate(ctx, pool, id, renewal) })
		}
		return g.Wait()
	})
	return cost{total, done.processor * seconds / float64(b.rest.each) * total}, err
}

func oneUpdate(ctx context.Context, pool *pgxpool.Pool, id string, renewal bool) error {
	sql, args := peerKeepAlive, []any{id}
	if renewal {
		sql, args = peerRenew, []any{id, leaseLife}
	}
	tag, err := pool.Exec(ctx, sql, args...)
	if err == nil && tag.RowsAffected() != 1 {
		return fmt.Errorf("backend %s: %d rows were changed", id, tag.RowsAffected())
	}
	return err
}
