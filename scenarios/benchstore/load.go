package main

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"time"

	"plane/adapters/clock"
	"plane/system/name"
	"plane/system/placement"
	"plane/system/protocol"
)

// What both contenders are asked for: a cluster with a few drones, and a
// container with a short environment.
const (
	cluster          = "bench.example.com"
	drones           = 10
	bestOf           = 2
	healthy          = 45 * time.Second
	tokenLife        = time.Hour
	leaseLife        = time.Minute
	lifetime         = 24 * time.Hour
	maxIdle          = 5 * time.Minute
	signsOfLifeEvery = 7 * time.Second
)

var executable = json.RawMessage(`{"image":"registry.example.com/whiteboard:2026-11","pull_policy":"IfNotPresent",` +
	`"env":{"LOG_LEVEL":"info","REGION":"eu-central-1","STORAGE":"s3://whiteboards/production","FEATURES":"cursors,history"},` +
	`"resource_limits":{"memory_limit_bytes":268435456,"cpu_period_percent":50},"network_name":"plane"}`)

// What the backends ask for, as a controller reads it from the executable, and
// what drones have: they state it, as they do by default, and have room for all.
// 0.5.x knows neither.
var (
	asks     = protocol.ResourceLimits{CPUPeriodPercent: 50, MemoryBytes: 256 << 20}.Asks()
	capacity = placement.Capacity{MilliCPUs: 50_000_000, MemoryBytes: 64 << 40}
)

// load is how much is done.
type load struct {
	keys   int           // that are held
	rounds int           // in which the contenders take turns
	cell   time.Duration // of one measurement
	warm   time.Duration // before it
	lean   bool          // the peer's tables have only what its connects need
}

func heldKey(i int) string { return "held-" + strconv.Itoa(i) }
func freshKey() string     { return name.New(name.Key, clock.Rand{}) }

// newToken is a bearer token, or a secret one.
func newToken() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // it never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}
