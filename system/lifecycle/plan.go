package lifecycle

import "plane/system/backend"

// Step is something for the drone to do outside. One is done at a time.
type Step int

// The steps.
const (
	None     Step = iota
	Inspect       // ask the engine for the container
	Pull          // make the image ready, and acquire a port
	NewPort       // remove what was created, and acquire another port
	Start         // start the container
	Probe         // ask once over HTTP
	Stop          // ask the container to end
	Kill          // end it
	Discard       // remove what there is of the container and its guarding
	Release       // give the port back
	Forget        // delete it from the journal
	StepsEnd      // one more than the greatest
)

var stepText = [StepsEnd]string{"none", "inspect", "pull", "replace port", "start", "probe", "stop", "kill", "remove", "release port", "forget"}

// String is the step's name in logs.
func (s Step) String() string { return stepText[s] }

// Interruptible reports whether the step may be given up when another is
// wanted. A start may not: nothing would be known of the container.
func (s Step) Interruptible() bool { return s == Pull || s == Probe }

// Known is what the drone knows besides the Life; none of it is durable.
type Known struct {
	Container Presence
	Saved     bool // the journal says what the Life says
	Startable bool // the lease is fresh and its guard is set
	Unsettled bool // a start was given up on, and may still have its effect
	PortTaken bool
	Doomed    bool // it can never be started
	Asked     bool // it was asked to end (SIGTERM)
	Removed   bool // container and guarding are gone
	Acked     bool // a controller has recorded the end
	Released  bool // the port is given back
	Expired   bool // the spawn can not be handed over again: its deadline has passed
}

// Plan is the next step of a backend. What only builds up waits until the
// journal has what was decided; what ends a container never waits for it.
func Plan(l Life, k Known) Step {
	switch s := l.State.Status; {
	case s == backend.Terminated:
		return planOver(k)
	case k.Doomed, !s.Alive() && (k.Container == Absent || k.Container == Created):
		if k.Unsettled {
			return None
		}
		return Discard
	case s == backend.HardTerminating:
		return Kill
	case k.Container == Unknown:
		return Inspect
	case s == backend.Terminating && !k.Asked:
		return Stop
	case s == backend.Terminating || !k.Saved:
		return None
	case s == backend.Waiting:
		return Probe
	case s == backend.Ready:
		return None
	case k.PortTaken:
		return NewPort
	case s == backend.Loading:
		return Pull
	case s == backend.Starting && k.Startable:
		return Start
	}
	return None
}

// planOver: the end must be in the journal before what shows how it ended is
// removed; the port goes back once no route can be given out (G7), and the
// backend is remembered until its spawn can not be obeyed again (G6).
func planOver(k Known) Step {
	switch {
	case !k.Saved:
		return None
	case !k.Removed:
		return Discard
	case k.Acked && !k.Released:
		return Release
	case k.Acked && k.Expired:
		return Forget
	}
	return None
}
