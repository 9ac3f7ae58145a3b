// Package lease holds the arithmetic of key leases: when a drone renews, when
// it gives up softly and hard, and which timings are safe together.
//
// A lease is counted on two clocks. The database's clock says when a key is
// free for another backend (Expiry, from the commit). The drone's clock says
// when its backend must be gone (the deadlines, from a time that the drone
// took before that commit). No time of one is ever compared with a time of the
// other; that the drone's end comes first is what Timing.Validate makes sure.
package lease

import (
	"fmt"
	"time"
)

// Drift is how much faster or slower than real time a machine's clock may
// run, as a fraction.
const Drift = 0.02

// KillTime is how long a container engine may take to obey a kill.
const KillTime = 5 * time.Second

// Timing is how long the parts of a lease last.
type Timing struct {
	Renew  time.Duration // after which the drone starts to renew
	Soft   time.Duration // after which it terminates the backend softly
	Hard   time.Duration // after which it kills the backend
	Expiry time.Duration // after which the key is free, on the database's clock
}

// Default is 30, 40, 50 and 60 seconds.
func Default() Timing {
	return Timing{Renew: 30 * time.Second, Soft: 40 * time.Second, Hard: 50 * time.Second, Expiry: 60 * time.Second}
}

// Validate refuses timings under which two backends could run for one key.
func (t Timing) Validate() error {
	if t.Renew <= 0 || t.Soft <= t.Renew || t.Hard <= t.Soft {
		return fmt.Errorf("lease timing: want 0 < renew < soft < hard, have renew %v, soft %v, hard %v", t.Renew, t.Soft, t.Hard)
	}
	end := time.Duration(float64(t.Hard)/(1-Drift)) + KillTime
	limit := time.Duration(float64(t.Expiry) / (1 + Drift))
	if end > limit {
		return fmt.Errorf("lease timing: hard %v can last %v with drift and the time of a kill, past the %v that an expiry of %v allows; make hard shorter or expiry longer",
			t.Hard, end.Round(time.Millisecond), limit.Round(time.Millisecond), t.Expiry)
	}
	return nil
}

// Deadlines are times on the drone's clock.
type Deadlines struct {
	RenewAt         time.Time
	SoftTerminateAt time.Time
	HardTerminateAt time.Time
}

// Deadlines counts from local, a time that the drone took before the lease was
// written.
func (t Timing) Deadlines(local time.Time) Deadlines {
	return Deadlines{RenewAt: local.Add(t.Renew), SoftTerminateAt: local.Add(t.Soft), HardTerminateAt: local.Add(t.Hard)}
}
