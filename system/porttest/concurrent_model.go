package porttest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"plane/system/backend"
	"plane/system/port"
)

// What is asked of a key in a concurrent history.
const (
	callConnect   = "connect"
	callRenew     = "renew"
	callReport    = "report"
	callTerminate = "terminate"
	callRevoke    = "revoke"
	callRoute     = "route"
	callPrevent   = "prevent renew"
	callLose      = "mark lost"
	callAdvance   = "advance" // of the clock
)

// Seconds of the model's clock. Leases never expire within a few seconds of a
// step.
const (
	concurrentStep   = 25
	concurrentExpiry = 60
)

// keyInput is a call that concerns one key.
type keyInput struct {
	call    string
	key     string
	backend string // that is asked for; of a connect: to be made, if any
	token   string
	status  backend.Status // that is reported
}

// keyOutput is its answer.
type keyOutput struct {
	unclear bool  // the call failed; whether it had its effect is not known
	refused error // a sentinel
	backend string
	status  backend.Status
	yes     bool // spawned, renewed, prevented
	left    int  // of the lease
	outcome port.RecordOutcome
}

// keyState is what there is of one key: what port.Store says, in few words. It
// is never changed, only replaced.
type keyState struct {
	now      int
	holder   string
	backends map[string]keyBackend
	tokens   map[string]keyToken
}

type keyBackend struct {
	status   backend.Status
	leaseEnd int
	final    bool
}

type keyToken struct {
	backend string
	revoked bool
}

// keyModel checks histories key by key.
var keyModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, op := range history {
			key := op.Input.(keyInput).key
			byKey[key] = append(byKey[key], op)
		}
		var parts [][]porcupine.Operation
		for _, key := range slices.Sorted(maps.Keys(byKey)) {
			parts = append(parts, byKey[key])
		}
		return parts
	},
	Init: func() any { return keyState{} },
	Step: func(state, input, output any) (bool, any) {
		next, want := state.(keyState).step(input.(keyInput))
		got := output.(keyOutput)
		return got.unclear || got == want || isEarlier(input.(keyInput), got, want), next
	},
	Equal: func(a, b any) bool { return a.(keyState).equal(b.(keyState)) },
	DescribeOperation: func(input, output any) string {
		return fmt.Sprintf("%+v → %+v", input, output)
	},
	DescribeState: func(state any) string { return fmt.Sprintf("%+v", state) },
}

// isEarlier reports whether a connect answers with a status that its backend had
// a moment before, which port.Connected allows. One that has begun to end since
// is told as refused, or as it was: its new token leads nowhere.
func isEarlier(in keyInput, got, want keyOutput) bool {
	if in.call != callConnect || got.refused != nil || got.backend != want.backend {
		return false
	}
	if want.refused == port.ErrKeyUnhealthy { //nolint:errorlint // the model's own
		return got.status.Alive()
	}
	return want.refused == nil && got.yes == want.yes && got.status < want.status
}

func (s keyState) equal(o keyState) bool {
	return s.now == o.now && s.holder == o.holder && maps.Equal(s.backends, o.backends) && maps.Equal(s.tokens, o.tokens)
}

// step is what a call makes of the state, and what it answers.
func (s keyState) step(in keyInput) (keyState, keyOutput) {
	b, there := s.backends[in.backend]
	switch in.call {
	case callAdvance:
		s.now += concurrentStep
		return s, keyOutput{}
	case callConnect:
		return s.connect(in)
	case callRoute:
		t, ok := s.tokens[in.token]
		status := s.backends[t.backend].status
		if !ok || t.revoked || !status.Alive() {
			return s, keyOutput{refused: port.ErrNotFound}
		}
		return s, keyOutput{backend: t.backend, status: status}
	case callRenew:
		if !there || s.holder != in.backend || s.now >= b.leaseEnd || b.final {
			return s, keyOutput{}
		}
		b.leaseEnd = s.now + concurrentExpiry
		return s.with(in.backend, b), keyOutput{yes: true}
	case callReport:
		return s.report(in, b, there)
	case callPrevent, callLose:
		return s.prevent(in, b)
	}
	if !there {
		return s, keyOutput{refused: port.ErrNotFound}
	}
	if in.call == callRevoke {
		s.tokens = maps.Clone(s.tokens)
		for token, t := range s.tokens {
			if t.backend == in.backend {
				s.tokens[token] = keyToken{t.backend, true}
			}
		}
	}
	return s, keyOutput{}
}

func (s keyState) connect(in keyInput) (keyState, keyOutput) {
	b, held := s.backends[s.holder]
	switch _, there := s.backends[in.backend]; {
	case held && s.now < b.leaseEnd && !b.status.Alive():
		return s, keyOutput{refused: port.ErrKeyUnhealthy, backend: s.holder}
	case held && s.now < b.leaseEnd:
	case in.backend == "":
		return s, keyOutput{refused: port.ErrKeyUnheld}
	case there:
		return s, keyOutput{refused: port.ErrBackendExists}
	default:
		b = keyBackend{status: backend.Scheduled, leaseEnd: s.now + concurrentExpiry}
		s = s.with(in.backend, b)
		s.holder = in.backend
	}
	if !s.tokens[in.token].revoked {
		s.tokens = clone(s.tokens)
		s.tokens[in.token] = keyToken{backend: s.holder}
	}
	return s, keyOutput{backend: s.holder, status: b.status, yes: s.holder == in.backend}
}

func (s keyState) report(in keyInput, b keyBackend, there bool) (keyState, keyOutput) {
	switch {
	case !there:
		return s, keyOutput{outcome: port.NotOfDrone}
	case in.status <= b.status:
		return s, keyOutput{outcome: port.Stale}
	}
	b.status = in.status
	s = s.with(in.backend, b)
	if in.status == backend.Terminated {
		if s.holder == in.backend {
			s.holder = ""
		}
		s.tokens = clone(s.tokens)
		maps.DeleteFunc(s.tokens, func(_ string, t keyToken) bool { return t.backend == in.backend })
	}
	return s, keyOutput{outcome: port.Recorded}
}

func (s keyState) prevent(in keyInput, b keyBackend) (keyState, keyOutput) {
	out := keyOutput{yes: !b.final}
	if in.call == callLose {
		out = keyOutput{left: max(b.leaseEnd-s.now, 0)}
	}
	if b.status == 0 || b.status == backend.Terminated {
		return s, keyOutput{refused: port.ErrNotFound}
	}
	b.final = true
	return s.with(in.backend, b), out
}

// modelLeft is what is left of a lease on the model's clock, which does not move
// by itself, as the store's may by a little.
func modelLeft(left time.Duration) int {
	for l := concurrentExpiry % concurrentStep; l < concurrentExpiry && left > 0; l += concurrentStep {
		if left <= time.Duration(l)*time.Second {
			return l
		}
	}
	if left > 0 {
		return concurrentExpiry
	}
	return 0
}

// with is the state with another backend.
func (s keyState) with(id string, b keyBackend) keyState {
	s.backends = clone(s.backends)
	s.backends[id] = b
	return s
}

// clone is maps.Clone that makes a map of none.
func clone[V any](m map[string]V) map[string]V {
	c := make(map[string]V, len(m)+1)
	maps.Copy(c, m)
	return c
}

// String shows the state in the picture of a history.
func (s keyState) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "at %d %q holds", s.now, s.holder)
	for _, id := range slices.Sorted(maps.Keys(s.backends)) {
		fmt.Fprintf(&b, "; %s %v until %d", id, s.backends[id].status, s.backends[id].leaseEnd)
	}
	for _, token := range slices.Sorted(maps.Keys(s.tokens)) {
		fmt.Fprintf(&b, "; %s %+v", token, s.tokens[token])
	}
	return b.String()
}
