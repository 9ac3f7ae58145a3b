package route

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

type woken struct{ n int }

func (w *woken) Advance() { w.n++ }

func newTable(change func(*Policy)) *Table {
	p := DefaultPolicy()
	if change != nil {
		change(&p)
	}
	return NewTable(p)
}

var t0 = time.Unix(1_000_000, 0)

// learn asks for the token and answers.
func learn(t *testing.T, table *Table, token string, r *Route, now time.Time) {
	t.Helper()
	w, _, err := table.Join(token, &woken{})
	require.NoError(t, err)
	defer table.Leave(w)
	table.TakeAsks(now)
	table.Answered(token, r, now).Do()
}

func TestPoliciesThatDoNotFitAreRefused(t *testing.T) {
	require.NoError(t, DefaultPolicy().Validate())
	p := DefaultPolicy()
	p.ConnectWithin = 20 * time.Second
	require.ErrorContains(t, p.Validate(), "must be longer")
}

func TestOnlyASentQuestionIsAnswered(t *testing.T) {
	table := newTable(nil)
	table.Connected()
	table.Answered("a", &Route{BackendID: "one"}, t0)
	_, known, _ := table.Find("a", t0)
	require.Equal(t, Unknown, known, "nobody asked")
	w, ask, err := table.Join("a", &woken{})
	require.NoError(t, err)
	require.True(t, ask)
	table.Answered("a", &Route{BackendID: "one"}, t0)
	_, _, done := table.Result(w)
	require.False(t, done, "put, but not sent yet: this answers something else")
	table.Answered("a", nil, t0)
	_, _, done = table.Result(w)
	require.False(t, done)
}

func TestForgottenVoidsAreAssumed(t *testing.T) {
	table := newTable(func(p *Policy) { p.MaxVoids = 2 })
	table.Connected()
	w, _, err := table.Join("a", &woken{})
	require.NoError(t, err)
	table.TakeAsks(t0)
	for i := range 3 {
		table.Removed(fmt.Sprint("b", i))
	}
	effects := table.Answered("a", &Route{BackendID: "b0"}, t0)
	require.True(t, effects.Ask, "whether b0 was removed is not known any more")
	_, _, done := table.Result(w)
	require.False(t, done)
}

func TestRemovalWithManyTokens(t *testing.T) {
	table := newTable(func(p *Policy) { p.MaxRoutes = 3 })
	table.Connected()
	for i := range 5 {
		learn(t, table, fmt.Sprint("t", i), &Route{BackendID: "one"}, t0)
	}
	require.Equal(t, 3, table.Size().Routes)
	require.Len(t, table.byBackend["one"], 3)
	table.Removed("one")
	require.Zero(t, table.Size().Routes)
	require.Empty(t, table.byBackend)
}

// TestTableAgainstItsRules plays at random and compares with what is promised.
func TestTableAgainstItsRules(t *testing.T) {
	tokens := []string{"amy-one", "bob-one", "amy-two", "junk"}
	rapid.Check(t, func(rt *rapid.T) {
		table := newTable(func(p *Policy) { p.MaxRoutes, p.MaxVoids = 3, 3 })
		now, connected := t0, false
		removed, revoked := map[string]bool{}, map[string]bool{}         // as the world has it
		toldRemoved, toldRevoked := map[string]bool{}, map[string]bool{} // as the table heard
		lastTrue := map[string]time.Time{}                               // when an answer could last have been given
		pending := map[string]*Route{}                                   // answers under way
		open := map[string]context.Context{}
		steps := rapid.SliceOfN(rapid.IntRange(0, 8), 1, 60).Draw(rt, "steps")
		for i, step := range steps {
			token := tokens[rapid.IntRange(0, 3).Draw(rt, fmt.Sprint("token", i))]
			user, backend, good := strings.Cut(token, "-")
			switch step {
			case 0:
				now = now.Add(time.Duration(rapid.IntRange(0, 12_000).Draw(rt, fmt.Sprint("wait", i))) * time.Millisecond)
			case 1:
				if connected {
					table.Disconnected(now).Do()
					pending = map[string]*Route{}
				} else {
					table.Connected()
				}
				connected = !connected
			case 2:
				_, _, err := table.Join(token, &woken{}) // and never leaves
				require.NoError(rt, err)
			case 3: // a controller gets the questions, and looks things up now
				if connected {
					for _, asked := range table.TakeAsks(now) {
						u, b, ok := strings.Cut(asked, "-")
						pending[asked] = nil
						if ok && !removed[b] && !revoked[asked] {
							pending[asked] = &Route{BackendID: b, User: &u}
							lastTrue[asked] = now
						}
					}
				}
			case 4:
				if r, ok := pending[token]; ok {
					delete(pending, token)
					table.Answered(token, r, now).Do()
				}
			case 5:
				removed[backend] = true
				if connected {
					toldRemoved[backend] = true
					table.Removed(backend)
				}
			case 6:
				revoked[token] = true
				if connected && good {
					toldRevoked[token] = true
					table.Revoked(backend, user).Do()
					if use := open[token]; use != nil {
						require.Error(rt, use.Err(), "a revoked token's use goes on")
					}
				}
			case 7, 8:
				r, known, _ := table.Find(token, now)
				if known != Present {
					break
				}
				require.Equal(rt, backend, r.BackendID)
				require.False(rt, toldRemoved[backend] || toldRevoked[token], "what is void came back")
				require.Less(rt, now.Sub(lastTrue[token]), 30*time.Second, "trusted for too long")
				ctx, end := context.WithCancelCause(context.Background())
				if _, _, ok := table.Open(token, r, true, now, end); ok {
					open[token] = ctx //nolint:fatcontext // one for each token
				}
			}
		}
	})
}

// BenchmarkUses opens and closes a use, and lists those in use every 7 s,
// while 10,000 connections to 1,000 backends are open.
func BenchmarkUses(b *testing.B) {
	table := newTable(nil)
	table.Connected()
	now := t0
	learn := func(token string, r Route) {
		if _, _, err := table.Join(token, &woken{}); err != nil {
			b.Fatal(err)
		}
		table.TakeAsks(now)
		table.Answered(token, &r, now)
	}
	for i := range 10_000 {
		token, r := fmt.Sprint("t", i), Route{BackendID: fmt.Sprint("b", i%1000)}
		learn(token, r)
		table.Open(token, r, true, now, func(error) {})
	}
	b.ReportAllocs()
	n := 0 // one is a millisecond
	for b.Loop() {
		now = now.Add(time.Millisecond)
		r, known, _ := table.Find("t7", now)
		if known == Unknown {
			r = Route{BackendID: "b7"}
			learn("t7", r)
		}
		use, _, ok := table.Open("t7", r, false, now, func(error) {})
		if !ok {
			b.Fatal("void")
		}
		table.TakeFresh()
		if n++; n%7000 == 0 {
			table.Used(now)
		}
		table.Close(use)
	}
}
