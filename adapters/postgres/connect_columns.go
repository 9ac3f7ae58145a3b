package postgres

import (
	"slices"

	"plane/system/port"
)

// connectColumns are the parameters of plane.connect: an element for each item,
// and one for each way to spawn that is among them, which are few.
type connectColumns struct {
	namespace, name, tag, secret []string
	token                        [][]byte
	username, data               []*string
	life                         []int64
	refuseStatic                 []bool
	backend                      []*string
	action, static, subdomain    []string
	seed                         []int64
	spawn                        []int32 // which of those below, from 1

	spawns []spawn
}

// spawn is what a new backend would be, but for its names.
type spawn struct {
	cluster, pool, executable                             string
	lifetime, maxIdle, healthy, renew, soft, hard, expiry int64 // milliseconds: renew, soft, hard; else microseconds
	bestOf                                                int32
	milliCPUs, memory                                     int64
}

func connectColumnsOf(items []port.ConnectParams) *connectColumns {
	c := newConnectColumns(len(items))
	for _, p := range items {
		c.add(p)
	}
	return c
}

func newConnectColumns(n int) *connectColumns {
	return &connectColumns{
		namespace: make([]string, 0, n), name: make([]string, 0, n), tag: make([]string, 0, n), token: make([][]byte, 0, n), secret: make([]string, 0, n),
		username: make([]*string, 0, n), data: make([]*string, 0, n), life: make([]int64, 0, n), refuseStatic: make([]bool, 0, n),
		backend: make([]*string, 0, n), action: make([]string, 0, n), static: make([]string, 0, n), subdomain: make([]string, 0, n),
		seed: make([]int64, 0, n), spawn: make([]int32, 0, n),
	}
}

// many are the parameters of plane.connect, and common those of connectManySQL.
func (c *connectColumns) many() []any {
	return slices.Concat([]any{
		c.namespace, c.name, c.tag, c.token, c.secret, c.username, c.data, c.life, c.refuseStatic,
		c.backend, c.action, c.static, c.subdomain, c.seed, c.spawn,
		column(c.spawns, func(s spawn) string { return s.cluster }),
		column(c.spawns, func(s spawn) string { return s.pool }),
		column(c.spawns, spawn.run),
		column(c.spawns, func(s spawn) int64 { return s.lifetime }),
		column(c.spawns, func(s spawn) int64 { return s.maxIdle }),
		column(c.spawns, func(s spawn) int32 { return s.bestOf }),
	}, c.figures())
}

func (c *connectColumns) common(drones []*int64) []any {
	return slices.Concat([]any{
		c.namespace, c.name, c.tag, c.token, c.secret, c.username, c.data, c.life,
		c.backend, c.action, c.subdomain, c.spawn, drones,
		column(c.spawns, func(s spawn) string { return s.cluster }),
		column(c.spawns, func(s spawn) string { return s.pool }),
		column(c.spawns, spawn.run),
		column(c.spawns, func(s spawn) int64 { return s.lifetime }),
		column(c.spawns, func(s spawn) int64 { return s.maxIdle }),
	}, c.figures())
}

// figures are the parameters that come last, of each way to spawn.
func (c *connectColumns) figures() []any {
	return []any{
		column(c.spawns, func(s spawn) int64 { return s.healthy }),
		column(c.spawns, func(s spawn) int64 { return s.renew }),
		column(c.spawns, func(s spawn) int64 { return s.soft }),
		column(c.spawns, func(s spawn) int64 { return s.hard }),
		column(c.spawns, func(s spawn) int64 { return s.expiry }),
		column(c.spawns, func(s spawn) int64 { return s.milliCPUs }),
		column(c.spawns, func(s spawn) int64 { return s.memory }),
	}
}

// connectParameters are the parameters of the statements for one connect, but for
// the drone.
func connectParameters(p port.ConnectParams) []any {
	w := wished(p)
	s := spawnOf(w)
	return []any{
		text(p.Key.Namespace), text(p.Key.Name), text(p.Key.Tag), digest(p.Token), text(p.SecretToken),
		optional(p.User), raw(p.UserData), p.TokenLife.Microseconds(), p.RefuseStatic,
		wish(p), w.ActionID, w.StaticToken, w.Subdomain, int64(p.PlacementSeed),
		s.cluster, s.pool, s.run(), s.lifetime, s.maxIdle, s.bestOf, s.healthy, s.renew, s.soft, s.hard, s.expiry, s.milliCPUs, s.memory,
	}
}

// wished is what a new backend would be; all empty: none is to be made.
func wished(p port.ConnectParams) *port.SpawnParams {
	if p.Spawn == nil {
		return &port.SpawnParams{}
	}
	return p.Spawn
}

// column is one field of many.
func column[S, T any](all []S, field func(S) T) []T {
	out := make([]T, len(all))
	for i, s := range all {
		out[i] = field(s)
	}
	return out
}

// run is what to run, as a parameter; nil: nothing.
func (s spawn) run() *string {
	if s.executable == "" {
		return nil
	}
	return &s.executable
}

func (c *connectColumns) add(p port.ConnectParams) {
	c.namespace = append(c.namespace, text(p.Key.Namespace))
	c.name = append(c.name, text(p.Key.Name))
	c.tag = append(c.tag, text(p.Key.Tag))
	c.token = append(c.token, digest(p.Token))
	c.secret = append(c.secret, text(p.SecretToken))
	c.username = append(c.username, optional(p.User))
	c.data = append(c.data, raw(p.UserData))
	c.life = append(c.life, p.TokenLife.Microseconds())
	c.refuseStatic = append(c.refuseStatic, p.RefuseStatic)
	c.seed = append(c.seed, int64(p.PlacementSeed))
	s := wished(p)
	c.backend = append(c.backend, wish(p))
	c.action = append(c.action, s.ActionID)
	c.static = append(c.static, s.StaticToken)
	c.subdomain = append(c.subdomain, s.Subdomain)
	c.spawn = append(c.spawn, c.like(spawnOf(s)))
}

func spawnOf(s *port.SpawnParams) spawn {
	return spawn{
		cluster: s.Cluster, pool: s.Pool, executable: string(s.Executable),
		lifetime: s.Lifetime.Microseconds(), maxIdle: s.MaxIdle.Microseconds(), bestOf: int32(s.BestOf), healthy: s.Healthy.Microseconds(),
		renew: s.Lease.Renew.Milliseconds(), soft: s.Lease.Soft.Milliseconds(), hard: s.Lease.Hard.Milliseconds(), expiry: s.Lease.Expiry.Microseconds(),
		milliCPUs: s.Asks.MilliCPUs, memory: s.Asks.MemoryBytes,
	}
}

// like is the place of a spawn among those that differ.
func (c *connectColumns) like(s spawn) int32 {
	i := slices.Index(c.spawns, s)
	if i < 0 {
		i = len(c.spawns)
		c.spawns = append(c.spawns, s)
	}
	return int32(i + 1)
}
