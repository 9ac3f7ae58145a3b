// Package fault draws the weather of a run: which of the faults F1 to F7 it
// has, and how hard they blow. Every seed has weather of its own, with about
// half of the kinds of faults left out, because a fault that is always there
// hides what goes wrong without it.
package fault

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"plane/sim/world"
)

// Weather is how often what goes wrong. A probability is for each call or
// message; an interval is the mean time between two, zero meaning never.
type Weather struct {
	// F1 and F2.
	ControllerCrash time.Duration // of each controller
	ProxyCrash      time.Duration
	ReceiverCrash   time.Duration
	AgentCrash      time.Duration
	MachineCrash    time.Duration
	DownFor         time.Duration // at most, mostly much less
	NeverBack       float64       // that what crashed stays away

	// F3.
	Cut       time.Duration // somewhere between two machines, or around one
	CutFor    time.Duration
	OneWay    float64 // that a cut lets one direction through
	Break     time.Duration
	Unnoticed float64 // that a peer does not hear of a connection's end
	Slow      float64 // that a message is late
	SlowBy    time.Duration

	// F4.
	Drift bool // clocks run up to 2 % fast or slow

	// F5.
	StoreFails float64 // before the commit
	StoreLies  float64 // that the answer to a commit is lost
	StoreSlow  float64
	Failover   time.Duration
	StoreStep  time.Duration // of the wall clock of the store's machine
	HintLost   float64
	HintTwice  float64
	HintLate   float64
	HintsCut   time.Duration

	// F6.
	EngineFails   float64
	EngineLies    float64
	EngineSlow    float64
	EngineRestart time.Duration
	Exit          time.Duration // of each container by itself
	OutOfMemory   float64       // that it was for memory
	ExitMissed    float64       // that nobody is told
	PortTaken     float64
	NeverReady    float64
	JournalFails  float64
	JournalLies   float64
	GuardFails    float64

	// F7, and F4 where certificates go by the wall clock.
	AuthorityFails  float64
	AuthorityLies   float64 // that a certificate is issued and the answer lost
	AuthoritySlow   float64
	AuthorityLimits float64 // that it asks to be left alone for a while
	AuthorityDown   time.Duration
	WallStep        time.Duration // of each proxy's wall clock
}

// Calm is weather without faults.
func Calm() Weather { return Weather{} }

// Draw draws the weather of a seed.
func Draw(r *world.Rand) Weather {
	var w Weather
	some := func() bool { return r.Chance(0.5) }
	every := func(lo, hi time.Duration) time.Duration { return r.Between(lo, hi) }
	if some() {
		w.ControllerCrash = every(40*time.Second, 10*time.Minute)
	}
	if some() {
		w.ProxyCrash = every(time.Minute, 10*time.Minute)
	}
	if some() {
		w.AgentCrash = every(40*time.Second, 10*time.Minute)
	}
	if r.Chance(0.35) {
		w.MachineCrash = every(2*time.Minute, 20*time.Minute)
	}
	w.DownFor = r.Between(2*time.Second, 3*time.Minute)
	if some() {
		w.NeverBack = r.Float64() * 0.3
	}
	if some() {
		w.Cut, w.CutFor = every(15*time.Second, 4*time.Minute), r.Between(2*time.Second, 3*time.Minute)
		w.OneWay = r.Float64()
	}
	if some() {
		w.Break = every(5*time.Second, 2*time.Minute)
	}
	if some() {
		w.Unnoticed = r.Float64() * 0.7
	}
	if some() {
		w.Slow, w.SlowBy = r.Float64()*0.2, r.Between(100*time.Millisecond, 5*time.Second)
	}
	w.Drift = some()
	drawStore(&w, r, some, every)
	drawEngine(&w, r, some, every)
	drawAuthority(&w, r, some, every)
	if some() {
		w.ReceiverCrash = every(40*time.Second, 10*time.Minute)
	}
	return w
}

func drawStore(w *Weather, r *world.Rand, some func() bool, every func(lo, hi time.Duration) time.Duration) {
	if some() {
		w.StoreFails = r.Float64() * 0.1
	}
	if some() {
		w.StoreLies = r.Float64() * 0.1
	}
	if some() {
		w.StoreSlow = r.Float64() * 0.1
	}
	if some() {
		w.Failover = every(time.Minute, 10*time.Minute)
	}
	if some() {
		w.StoreStep = every(time.Minute, 10*time.Minute)
	}
	if some() {
		w.HintLost = r.Float64()
	}
	if some() {
		w.HintTwice = r.Float64() * 0.3
	}
	if some() {
		w.HintLate = r.Float64() * 0.5
	}
	if some() {
		w.HintsCut = every(20*time.Second, 3*time.Minute)
	}
}

func drawEngine(w *Weather, r *world.Rand, some func() bool, every func(lo, hi time.Duration) time.Duration) {
	if some() {
		w.EngineFails = r.Float64() * 0.2
	}
	if some() {
		w.EngineLies = r.Float64() * 0.2
	}
	if some() {
		w.EngineSlow = r.Float64() * 0.2
	}
	if some() {
		w.EngineRestart = every(time.Minute, 10*time.Minute)
	}
	if some() {
		w.Exit, w.OutOfMemory = every(time.Minute, 20*time.Minute), r.Float64()*0.5
	}
	if some() {
		w.ExitMissed = r.Float64() * 0.5
	}
	if some() {
		w.PortTaken = r.Float64() * 0.2
	}
	if r.Chance(0.3) {
		w.NeverReady = r.Float64() * 0.1
	}
	if some() {
		w.JournalFails, w.JournalLies = r.Float64()*0.05, r.Float64()*0.05
	}
	if some() {
		w.GuardFails = r.Float64() * 0.1
	}
}

func drawAuthority(w *Weather, r *world.Rand, some func() bool, every func(lo, hi time.Duration) time.Duration) {
	if some() {
		w.AuthorityFails = r.Float64() * 0.3
	}
	if some() {
		w.AuthorityLies = r.Float64() * 0.3
	}
	if some() {
		w.AuthoritySlow = r.Float64() * 0.3
	}
	if some() {
		w.AuthorityLimits = r.Float64() * 0.3
	}
	if some() {
		w.AuthorityDown = every(time.Minute, 10*time.Minute)
	}
	if r.Chance(0.3) {
		w.WallStep = every(time.Minute, 10*time.Minute)
	}
}

// String names the faults that are on.
func (w Weather) String() string {
	var on []string
	v := reflect.ValueOf(w)
	for i := range v.NumField() {
		if f := v.Field(i); !f.IsZero() {
			text := fmt.Sprint(f.Interface())
			if f.Kind() == reflect.Float64 {
				text = fmt.Sprintf("%.2f", f.Float())
			} else if d, ok := f.Interface().(time.Duration); ok {
				text = d.Round(time.Second).String()
			}
			on = append(on, v.Type().Field(i).Name+"="+text)
		}
	}
	if len(on) == 0 {
		return "calm"
	}
	return strings.Join(on, " ")
}

// Without is the weather with one kind of fault, by its field's name, left out.
func (w Weather) Without(name string) Weather {
	reflect.ValueOf(&w).Elem().FieldByName(name).SetZero()
	return w
}

// Kinds names the kinds of faults that are on.
func (w Weather) Kinds() []string {
	var kinds []string
	v := reflect.ValueOf(w)
	for i := range v.NumField() {
		if !v.Field(i).IsZero() {
			kinds = append(kinds, v.Type().Field(i).Name)
		}
	}
	return kinds
}
