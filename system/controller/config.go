package controller

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"plane/system/lease"
	"plane/system/name"
	"plane/system/port"
	"plane/system/protocol"
)

// Config is what one controller is told at its start.
type Config struct {
	Name           string // co-…
	ControllerURL  string // what status URLs are built on, without a slash at the end
	DefaultCluster string // for requests that name none; may be empty
	BestOf         int    // how many drones a placement looks at
	// CleanupMinAge is how old a terminated backend becomes before it is
	// deleted; 0 keeps all.
	CleanupMinAge time.Duration
	CleanupBatch  int // how many rows one call deletes at most; 0: 1000
	Version       protocol.Version
	Timing        Timing
	Lease         lease.Timing
	Log           *slog.Logger
	// PeerURL is where other controllers reach this one; empty: nowhere.
	PeerURL string
	// Peers asks other controllers; nil: no other one is ever asked.
	Peers port.Peers
}

// Timing is how often and how long; all of it is on the controller's own clock
// or handed to the store as an age.
type Timing struct {
	Heartbeat    time.Duration // of the controller
	Unhealthy    time.Duration // a drone silent for longer gets no new backends
	DroneLost    time.Duration // and is lost after this
	ProxyGone    time.Duration // a proxy silent for longer holds no connections
	Sweep        time.Duration // how often idle, expired and lost backends are looked for
	HardAfter    time.Duration // from a soft sweep to a hard one
	LeaseGrace   time.Duration // from the end of a lease to its backend's
	TokenLife    time.Duration // for new connections
	ActionRepeat time.Duration // until an action is sent again
	HolderWait   time.Duration // how long a connect waits for a holder that is ending
	StoreCall    time.Duration // the longest one store call may take
	RevokePoll   time.Duration // how often revocations are read even without a hint
	RevokeCall   time.Duration // the longest that may take: one that hangs must not hold up the next
	StreamPoll   time.Duration // how often a history is read even without a hint
	WatchPoll    time.Duration // how often it is looked whether what somebody waits for has ended, likewise
	Cleanup      time.Duration // how often old backends are deleted
	// ChallengeLife is how long a challenge value of a proxy is there unless the
	// proxy withdraws it, or sets it again. A certificate lease lasts for
	// CertificateLease, and is kept alive for ChallengeLife at most after the
	// proxy's last word.
	ChallengeLife    time.Duration
	CertificateLease time.Duration
	CertificateCall  time.Duration // the longest that a proxy waits for an answer while the store fails
}

// DefaultTiming is what the guarantees promise.
func DefaultTiming() Timing {
	return Timing{
		Heartbeat:    port.HeartbeatEvery,
		Unhealthy:    45 * time.Second,
		DroneLost:    120 * time.Second,
		ProxyGone:    120 * time.Second,
		Sweep:        5 * time.Second,
		HardAfter:    40 * time.Second, // past the 30 s that the drone gives a soft termination
		LeaseGrace:   60 * time.Second,
		TokenLife:    time.Hour,
		ActionRepeat: 5 * time.Second,
		HolderWait:   5 * time.Second,
		StoreCall:    10 * time.Second,
		RevokePoll:   500 * time.Millisecond, // half of the second that G8 allows
		RevokeCall:   2 * time.Second,
		StreamPoll:   10 * time.Second,
		WatchPoll:    20 * time.Second,
		Cleanup:      time.Minute,

		ChallengeLife:    10 * time.Minute,
		CertificateLease: time.Minute,
		CertificateCall:  30 * time.Second,
	}
}

// SweepParams are the limits that a sweep goes by.
func (t Timing) SweepParams() port.SweepParams {
	return port.SweepParams{Limit: sweepBatch, DroneLost: t.DroneLost, ProxyGone: t.ProxyGone, HardAfter: t.HardAfter, LeaseGrace: t.LeaseGrace}
}

// Validate says which setting is wrong, or which do not fit together.
func (c Config) Validate() error {
	t := c.Timing
	errs := []error{c.Lease.Validate(), name.Validate(name.Controller, c.Name)}
	if c.DefaultCluster != "" {
		_, err := name.ParseCluster(c.DefaultCluster)
		errs = append(errs, err)
	}
	if c.BestOf < 1 {
		errs = append(errs, fmt.Errorf("best-of %d: look at one drone at least", c.BestOf))
	}
	if c.CleanupBatch < 0 {
		errs = append(errs, fmt.Errorf("cleanup batch %d: want no fewer than 0", c.CleanupBatch))
	}
	for _, d := range []struct {
		what string
		d    time.Duration
	}{
		{"heartbeat", t.Heartbeat}, {"sweep", t.Sweep}, {"hard-after", t.HardAfter}, {"lease-grace", t.LeaseGrace},
		{"token life", t.TokenLife}, {"action repeat", t.ActionRepeat}, {"holder wait", t.HolderWait},
		{"store call", t.StoreCall}, {"revoke poll", t.RevokePoll}, {"revoke call", t.RevokeCall}, {"stream poll", t.StreamPoll}, {"watch poll", t.WatchPoll}, {"cleanup", t.Cleanup},
		{"challenge life", t.ChallengeLife}, {"certificate lease", t.CertificateLease}, {"certificate call", t.CertificateCall},
	} {
		if d.d <= 0 {
			errs = append(errs, fmt.Errorf("timing: %s is %v; it must be positive", d.what, d.d))
		}
	}
	if t.Unhealthy < 2*t.Heartbeat {
		errs = append(errs, fmt.Errorf("timing: a drone is unhealthy after %v, within two heartbeats of %v", t.Unhealthy, t.Heartbeat))
	}
	if t.DroneLost <= t.Unhealthy || t.DroneLost <= c.Lease.Expiry {
		errs = append(errs, fmt.Errorf("timing: a drone is lost after %v, which must be more than unhealthy (%v) and a lease's expiry (%v)", t.DroneLost, t.Unhealthy, c.Lease.Expiry))
	}
	return errors.Join(errs...)
}
