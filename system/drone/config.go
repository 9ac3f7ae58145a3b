package drone

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"plane/system/lease"
	"plane/system/lifecycle"
	"plane/system/name"
	"plane/system/placement"
	"plane/system/port"
	"plane/system/protocol"
	"plane/system/session"
)

// Config is what one drone is told at its start.
type Config struct {
	Name      string // dr-…
	Version   protocol.Version
	Timing    Timing
	Lease     lease.Timing       // as at the controllers
	Capacity  placement.Capacity // for backends
	Reconnect session.Reconnect
	Log       *slog.Logger
}

// Timing is how often and how long, on the drone's own clock.
type Timing struct {
	Heartbeat  time.Duration
	Grace      time.Duration // from a soft termination to the kill
	Ready      time.Duration // from a spawn to the first HTTP answer
	RenewAhead time.Duration // how long before a lease says so its renewal is first asked for
	// RenewSlot is how far apart the times are at which renewals are first asked
	// for, in whole milliseconds; 0: at any time. Each is asked for at the last of
	// them before it is due. Backends that once were renewed together are so from
	// then on (where RenewAhead leaves a multiple of it): they travel, and are
	// stored, together. The drone's name decides where its times lie, so that not
	// all drones ask at once.
	RenewSlot  time.Duration
	RenewRetry time.Duration // until an unanswered renewal is repeated the first time; longer each time
	Quarantine time.Duration // until a port that was given back serves another backend
	Stats      time.Duration // how often each ready backend is measured
	Relist     time.Duration // how often all containers are looked at
	Prune      time.Duration // how often disk space is freed; 0: never
	DiskCall   time.Duration // the longest one call of the journal or the guard may take
	EngineCall time.Duration // the longest one short call of the engine may take
}

// DefaultTiming is what the guarantees promise. A renewal that is asked for 12 s
// into a lease has 28 s until the soft deadline: a controller that stands still
// for 25 s ends nothing, whenever that begins.
func DefaultTiming() Timing {
	return Timing{
		Heartbeat:  port.HeartbeatEvery,
		Grace:      30 * time.Second,
		Ready:      300 * time.Second,
		RenewAhead: 18 * time.Second,
		RenewSlot:  500 * time.Millisecond,
		RenewRetry: time.Second,
		Quarantine: 45 * time.Second,
		Stats:      10 * time.Second,
		Relist:     30 * time.Second,
		Prune:      time.Hour,
		DiskCall:   5 * time.Second,
		EngineCall: 10 * time.Second,
	}
}

// DefaultConfig is a drone with the timings that the guarantees promise.
func DefaultConfig(droneName string) Config {
	return Config{
		Name:      droneName,
		Timing:    DefaultTiming(),
		Lease:     lease.Default(),
		Reconnect: session.DefaultReconnect(),
		Log:       slog.Default(),
	}
}

// What other parts of the system hold this one to.
const (
	routeTrust   = 30 * time.Second // how long a proxy that is cut off trusts a route
	orphanLimit  = 60 * time.Second // how long a container may outlive its backend
	unhealthyAge = 45 * time.Second // how old a heartbeat may be
)

// Validate says which setting is wrong, or which do not fit together.
func (c Config) Validate() error {
	t := c.Timing
	errs := []error{c.Lease.Validate(), name.Validate(name.Drone, c.Name)}
	if c.Log == nil {
		errs = append(errs, errors.New("log: is missing"))
	}
	for _, d := range []struct {
		what string
		d    time.Duration
	}{
		{"heartbeat", t.Heartbeat}, {"grace", t.Grace}, {"ready", t.Ready}, {"renew retry", t.RenewRetry},
		{"quarantine", t.Quarantine}, {"stats", t.Stats}, {"relist", t.Relist}, {"disk call", t.DiskCall},
		{"engine call", t.EngineCall},
	} {
		if d.d <= 0 {
			errs = append(errs, fmt.Errorf("timing: %s is %v; it must be positive", d.what, d.d))
		}
	}
	for _, a := range []struct {
		what      string
		has, most int64
	}{
		{"backends at most", c.Capacity.MaxBackends, placement.MostBackends},
		{"thousandths of a CPU", c.Capacity.MilliCPUs, placement.MostMilliCPUs},
		{"bytes of memory", c.Capacity.MemoryBytes, placement.MostMemoryBytes},
	} {
		if a.has < 0 || a.has > a.most {
			errs = append(errs, fmt.Errorf("capacity: %d %s; want 1 to %d, or 0 for no limit", a.has, a.what, a.most))
		}
	}
	if t.Prune < 0 {
		errs = append(errs, fmt.Errorf("timing: prune is %v; use 0 for never", t.Prune))
	}
	if 2*t.Heartbeat > unhealthyAge {
		errs = append(errs, fmt.Errorf("timing: a heartbeat every %v; a drone counts as unhealthy after %v, so two must fit", t.Heartbeat, unhealthyAge))
	}
	if t.RenewAhead < 0 || t.RenewAhead >= c.Lease.Renew {
		errs = append(errs, fmt.Errorf("timing: renew ahead %v; want 0 or more, and less than the %v after which a lease says to renew", t.RenewAhead, c.Lease.Renew))
	}
	if t.RenewSlot < 0 || t.RenewSlot%time.Millisecond != 0 {
		errs = append(errs, fmt.Errorf("timing: renew slot %v; want whole milliseconds, or 0 for none", t.RenewSlot))
	}
	if t.RenewSlot > 0 && t.RenewAhead+t.RenewSlot >= c.Lease.Renew {
		errs = append(errs, fmt.Errorf("timing: renew ahead %v and slot %v; together they must be less than the %v after which a lease says to renew", t.RenewAhead, t.RenewSlot, c.Lease.Renew))
	}
	if t.RenewRetry > (c.Lease.Soft-c.Lease.Renew)/2 {
		errs = append(errs, fmt.Errorf("timing: renew retry %v leaves no time for two tries between renew %v and soft %v", t.RenewRetry, c.Lease.Renew, c.Lease.Soft))
	}
	trust := routeTrust.Seconds() * (1 + lease.Drift) / (1 - lease.Drift)
	if drifted := time.Duration(trust * float64(time.Second)); t.Quarantine < drifted {
		errs = append(errs, fmt.Errorf("timing: quarantine %v; a proxy may use a route for %v, which is %v with drift", t.Quarantine, routeTrust, drifted.Round(time.Millisecond)))
	}
	if t.Relist+t.EngineCall > orphanLimit {
		errs = append(errs, fmt.Errorf("timing: relist %v and engine call %v; a container may outlive its backend for %v only", t.Relist, t.EngineCall, orphanLimit))
	}
	return errors.Join(errs...)
}

func (c Config) limits() lifecycle.Limits {
	return lifecycle.Limits{Grace: c.Timing.Grace, Ready: c.Timing.Ready, Lease: c.Lease}
}
