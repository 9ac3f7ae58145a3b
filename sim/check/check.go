// Package check holds a simulated cluster to its guarantees, G1 to G13 (sim/cluster to G14), and to
// what drones have: none is ever promised more. It looks at the truth (which
// containers run, what passed to which of them, what the store committed, what
// clients were told), never at what a role believes.
//
// A Book is written by the fakes and the cluster as things happen, with the
// world's lock held. A violation is noted and the run goes on, so that its story
// shows what came of it.
package check

import (
	"fmt"
	"time"

	"plane/sim/fake"
	"plane/sim/world"
	"plane/system/ledger"
	"plane/system/placement"
	"plane/system/protocol"
)

// Violation is a guarantee that did not hold.
type Violation struct {
	At        time.Duration // true time since the run began
	Guarantee string
	What      string
}

func (v Violation) String() string {
	return fmt.Sprintf("%s at %.3fs: %s", v.Guarantee, v.At.Seconds(), v.What)
}

// maxViolations is how many are kept; one fault tends to break things over and
// over.
const maxViolations = 50

// Book keeps what happened, as far as a guarantee depends on it.
type Book struct {
	env    *fake.Env
	ledger *ledger.Ledger
	// storeNow is what the store's clock shows.
	storeNow func() time.Time

	Violations []Violation

	running   map[keyName]*fake.Container
	fencing   map[keyName]acquisition
	starts    map[string]int                         // of each backend
	ended     map[string]time.Time                   // when its container ended, on the store's clock
	tokens    map[string]*Token                      // that clients were given
	uses      []*Use                                 // open upgraded connections
	usedUntil map[string]time.Time                   // when each backend's last use ended
	drained   map[string]drain                       // by drone
	orphans   map[string]time.Duration               // how long each could have been ended
	loads     map[string]placement.Load              // of each drone, at the last look
	stated    map[string]map[placement.Capacity]bool // what each drone has ever said it has
}

type keyName struct{ namespace, name string }

type acquisition struct {
	backend string
	token   int64
}

type drain struct {
	at    time.Time // true time of the answer
	store time.Time // the store's clock then
}

// New makes an empty book.
func New(env *fake.Env, db *fake.Database) *Book {
	return &Book{
		env: env, ledger: db.Ledger(), storeNow: db.Now,
		running: map[keyName]*fake.Container{}, fencing: map[keyName]acquisition{},
		starts: map[string]int{}, ended: map[string]time.Time{}, tokens: map[string]*Token{},
		drained: map[string]drain{}, orphans: map[string]time.Duration{}, usedUntil: map[string]time.Time{},
		stated: map[string]map[placement.Capacity]bool{},
	}
}

// Violate notes that a guarantee did not hold.
func (b *Book) Violate(guarantee, format string, args ...any) {
	v := Violation{b.env.Now().Sub(world.Epoch), guarantee, fmt.Sprintf(format, args...)}
	b.env.Tell("VIOLATION", "%s: %s", v.Guarantee, v.What)
	if len(b.Violations) < maxViolations {
		b.Violations = append(b.Violations, v)
	}
}

func nameOf(k protocol.Key) keyName { return keyName{k.Namespace, k.Name} }
