package inquiry_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/inquiry"
)

var start = time.UnixMilli(1_000_000)

type wakes int

func (w *wakes) Advance() { *w++ }

func table(t *testing.T, change func(*inquiry.Policy)) *inquiry.Table {
	p := inquiry.DefaultPolicy()
	if change != nil {
		change(&p)
	}
	require.NoError(t, p.Validate())
	tbl := inquiry.NewTable(p, start)
	tbl.Connected()
	return tbl
}

func join(t *testing.T, tbl *inquiry.Table, cluster string) *inquiry.Waiter {
	t.Helper()
	j, err := tbl.Join(cluster, new(wakes), start)
	require.NoError(t, err)
	return j.Waiter
}

func answer(tbl *inquiry.Table, cluster string, id uint64, r inquiry.Result, now time.Time) []inquiry.Waker {
	wake, _ := tbl.Answered(cluster, id, r, now)
	return wake
}

// flooded is a table that takes everything for a flood.
func flooded(t *testing.T, change func(*inquiry.Policy)) *inquiry.Table {
	return table(t, func(p *inquiry.Policy) {
		if p.Calm = 0; change != nil {
			change(p)
		}
	})
}

func TestOneQuestionForAllWhoAskBeforeItIsSent(t *testing.T) {
	tbl := table(t, nil)
	var woken wakes
	a, err := tbl.Join("c", &woken, start)
	require.NoError(t, err)
	require.True(t, a.Ask)
	b, err := tbl.Join("c", &woken, start)
	require.NoError(t, err)
	require.False(t, b.Ask)
	require.Equal(t, []inquiry.Ask{{Cluster: "c", ID: 1}}, tbl.TakeAsks(start))
	require.Empty(t, tbl.TakeAsks(start))

	for _, w := range answer(tbl, "c", 1, inquiry.Result{Values: []string{"x"}}, start) {
		w.Advance()
	}
	require.Equal(t, wakes(2), woken)
	for _, w := range []*inquiry.Waiter{a.Waiter, b.Waiter} {
		r, done := tbl.Result(w)
		require.True(t, done)
		require.Equal(t, []string{"x"}, r.Values)
		tbl.Leave(w)
	}
	_, known := tbl.Find("c", start)
	require.False(t, known, "nothing is remembered: another value may be set by now")
}

func TestWhoAsksIsToldWhatWasSoAfterwards(t *testing.T) {
	tbl := table(t, nil)
	early := join(t, tbl, "c")
	tbl.TakeAsks(start)
	late, err := tbl.Join("c", new(wakes), start)
	require.NoError(t, err)
	require.False(t, late.Ask, "one at a time")
	wake, ask := tbl.Answered("c", 1, inquiry.Result{}, start)
	require.Len(t, wake, 1)
	require.True(t, ask)
	_, done := tbl.Result(early)
	require.True(t, done)
	_, done = tbl.Result(late.Waiter)
	require.False(t, done, "that answer may be older than the question")
	require.Equal(t, []inquiry.Ask{{Cluster: "c", ID: 2}}, tbl.TakeAsks(start))
	answer(tbl, "c", 2, inquiry.Result{Values: []string{"x"}}, start)
	r, done := tbl.Result(late.Waiter)
	require.True(t, done)
	require.Equal(t, []string{"x"}, r.Values)
}

func TestInAFloodAnAnswerIsGivenOutForAMoment(t *testing.T) {
	tbl := table(t, func(p *inquiry.Policy) { p.Calm = 2 })
	ask := func(cluster string, now time.Time) bool {
		w := join(t, tbl, cluster)
		tbl.TakeAsks(now)
		answer(tbl, cluster, 0, inquiry.Result{}, now)
		tbl.Leave(w)
		_, known := tbl.Find(cluster, now)
		return known
	}
	require.False(t, ask("a", start))
	require.False(t, ask("b", start))
	require.True(t, ask("c", start), "the third in so short a time")
	_, known := tbl.Find("c", start.Add(899*time.Millisecond))
	require.True(t, known)
	_, known = tbl.Find("c", start.Add(900*time.Millisecond))
	require.False(t, known)
	require.True(t, ask("d", start.Add(900*time.Millisecond)), "it was a flood just now")
	require.False(t, ask("e", start.Add(1800*time.Millisecond)), "and is none any more")
}

func TestInAFloodAllAreToldTheSame(t *testing.T) {
	tbl := flooded(t, nil)
	join(t, tbl, "c")
	tbl.TakeAsks(start)
	join(t, tbl, "c")
	wake, ask := tbl.Answered("c", 1, inquiry.Result{}, start)
	require.Len(t, wake, 2)
	require.False(t, ask)
}

func TestALateAnswerIsNotTakenForALaterQuestion(t *testing.T) {
	tbl := table(t, nil)
	tbl.TakeAsks(start)
	w := join(t, tbl, "c")
	require.Equal(t, uint64(1), tbl.TakeAsks(start)[0].ID)
	tbl.Leave(w)
	require.Empty(t, answer(tbl, "c", 1, inquiry.Result{}, start), "nobody waits")
	_, known := tbl.Find("c", start)
	require.False(t, known, "an answer of unknown age is not remembered")

	w = join(t, tbl, "c")
	require.Empty(t, answer(tbl, "c", 1, inquiry.Result{}, start), "it is not even sent")
	require.Equal(t, uint64(2), tbl.TakeAsks(start)[0].ID)
	require.Empty(t, answer(tbl, "c", 1, inquiry.Result{}, start))
	_, done := tbl.Result(w)
	require.False(t, done)
	require.Len(t, answer(tbl, "c", 0, inquiry.Result{}, start), 1, "a controller of 0.5.x tells no number")
}

func TestWhatIsUnderWayIsSentAgainInTheNextSession(t *testing.T) {
	tbl := table(t, nil)
	for _, c := range []string{"b", "a", "c"} {
		join(t, tbl, c)
	}
	require.Len(t, tbl.TakeAsks(start), 3)
	require.Len(t, tbl.Disconnected(start), 3, "they look whether they still want to wait")
	require.Empty(t, tbl.TakeAsks(start))
	tbl.Connected()
	require.Equal(t, []inquiry.Ask{{"b", 4}, {"a", 5}, {"c", 6}}, tbl.TakeAsks(start), "in the same order")
}

func TestAFailureIsForgottenWithItsSession(t *testing.T) {
	tbl := table(t, nil)
	join(t, tbl, "c")
	tbl.TakeAsks(start)
	answer(tbl, "c", 1, inquiry.Result{Failed: true}, start)
	r, known := tbl.Find("c", start)
	require.True(t, known && r.Failed, "a flood must not go through while the store is away")
	tbl.Disconnected(start)
	tbl.Connected()
	_, known = tbl.Find("c", start)
	require.False(t, known)
}

func TestLimits(t *testing.T) {
	tbl := table(t, func(p *inquiry.Policy) { p.MaxAsked, p.MaxWaiting, p.MaxRemember = 2, 3, 2 })
	a := join(t, tbl, "a")
	join(t, tbl, "b")
	tbl.TakeAsks(start)
	_, err := tbl.Join("c", new(wakes), start)
	require.ErrorIs(t, err, inquiry.ErrTooMany, "too many questions")
	join(t, tbl, "b")
	_, err = tbl.Join("b", new(wakes), start)
	require.ErrorIs(t, err, inquiry.ErrTooMany, "too many who wait")
	tbl.Leave(a)
	join(t, tbl, "b")
	asked, _ := tbl.Size()
	require.Equal(t, 1, asked, "nobody waits for a any more")
}

func clusters(asks []inquiry.Ask) (names []string) {
	for _, a := range asks {
		names = append(names, a.Cluster)
	}
	return names
}

func TestTheControllerHasSoManyQuestionsAtATime(t *testing.T) {
	tbl := table(t, func(p *inquiry.Policy) { p.MaxSent = 2 })
	var waiters []*inquiry.Waiter
	for _, c := range []string{"a", "b", "c", "d", "e"} {
		waiters = append(waiters, join(t, tbl, c))
	}
	require.Equal(t, []string{"a", "b"}, clusters(tbl.TakeAsks(start)))
	require.Empty(t, tbl.TakeAsks(start))
	_, ask := tbl.Answered("a", 1, inquiry.Result{}, start)
	require.True(t, ask, "there is room")
	require.Equal(t, []string{"c"}, clusters(tbl.TakeAsks(start)))
	require.True(t, tbl.Leave(waiters[1]), "and again: nobody waits for b any more")
	require.Equal(t, []string{"d"}, clusters(tbl.TakeAsks(start)))
	require.False(t, tbl.Leave(waiters[4]), "nothing is left to be sent")
}

func TestTheOldestQuestionGivesWay(t *testing.T) {
	for what, limit := range map[string]func(*inquiry.Policy){
		"too many questions": func(p *inquiry.Policy) { p.MaxSent, p.MaxAsked = 1, 3 },
		"too many who wait":  func(p *inquiry.Policy) { p.MaxSent, p.MaxWaiting = 1, 3 },
	} {
		t.Run(what, func(t *testing.T) {
			tbl := table(t, limit)
			join(t, tbl, "sent")
			tbl.TakeAsks(start)
			var woken wakes
			oldest, err := tbl.Join("oldest", &woken, start)
			require.NoError(t, err)
			join(t, tbl, "older")
			newest, err := tbl.Join("newest", new(wakes), start)
			require.NoError(t, err)
			require.True(t, newest.Ask)
			require.Len(t, newest.Wake, 1)
			newest.Wake[0].Advance()
			require.Equal(t, wakes(1), woken)
			r, done := tbl.Result(oldest.Waiter)
			require.True(t, done)
			require.True(t, r.GaveWay)
			tbl.Leave(oldest.Waiter)
			answer(tbl, "sent", 1, inquiry.Result{}, start)
			require.Equal(t, []string{"older"}, clusters(tbl.TakeAsks(start)))
		})
	}
}

// A flood of names that nobody has does not keep out a cluster that has something
// to show: not while others wait, nor while the controller is slow.
func TestAClusterThatHadValuesLatelyComesFirst(t *testing.T) {
	tbl := table(t, func(p *inquiry.Policy) { p.MaxSent, p.MaxAsked, p.MaxWaiting = 2, 8, 8 })
	known := join(t, tbl, "real")
	tbl.TakeAsks(start)
	answer(tbl, "real", 1, inquiry.Result{Values: []string{"x"}}, start)
	tbl.Leave(known)
	flood := func(from, to int) {
		for i := from; i < to; i++ {
			_, err := tbl.Join(fmt.Sprint("x", i), new(wakes), start.Add(9*time.Minute))
			require.NoError(t, err)
		}
	}
	flood(0, 2)
	require.Len(t, tbl.TakeAsks(start), 2)
	flood(2, 100)
	shown, err := tbl.Join("real", new(wakes), start.Add(9*time.Minute))
	require.NoError(t, err)
	require.Empty(t, shown.Wake, "there is room for it that others do not have")
	flood(100, 200)
	_, done := tbl.Result(shown.Waiter)
	require.False(t, done, "it gives way to nobody")
	answer(tbl, "x0", 2, inquiry.Result{}, start)
	require.Equal(t, []string{"real"}, clusters(tbl.TakeAsks(start)), "before those that came first")

	tbl = table(t, func(p *inquiry.Policy) { p.MaxSent, p.MaxWaiting = 1, 8 })
	answer(tbl, "real", 0, inquiry.Result{Values: []string{"x"}}, start)
	for range 7 {
		join(t, tbl, "same")
		tbl.TakeAsks(start)
	}
	_, err = tbl.Join("unknown", new(wakes), start)
	require.ErrorIs(t, err, inquiry.ErrTooMany)
	_, err = tbl.Join("real", new(wakes), start.Add(10*time.Minute))
	require.ErrorIs(t, err, inquiry.ErrTooMany, "that was long ago")
	_, err = tbl.Join("real", new(wakes), start.Add(10*time.Minute-1))
	require.NoError(t, err)
}

func TestClustersThatHadValuesAreBounded(t *testing.T) {
	tbl := table(t, func(p *inquiry.Policy) { p.MaxSent, p.MaxRemember = 1, 2 })
	for i := range 3 {
		answer(tbl, fmt.Sprint("c", i), 0, inquiry.Result{Values: []string{"x"}}, start)
	}
	for i := range 3 {
		join(t, tbl, fmt.Sprint("c", 2-i))
	}
	tbl.TakeAsks(start)
	answer(tbl, "c1", 1, inquiry.Result{}, start)
	require.Equal(t, []string{"c0"}, clusters(tbl.TakeAsks(start)))
	answer(tbl, "c9", 0, inquiry.Result{Values: []string{"x"}}, start.Add(10*time.Minute))
	later := start.Add(11 * time.Minute)
	answer(tbl, "c0", 2, inquiry.Result{}, later)
	_, err := tbl.Join("c9", new(wakes), later)
	require.NoError(t, err)
	require.Equal(t, []string{"c9"}, clusters(tbl.TakeAsks(later)), "it took the place of one that was over")
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	tbl := flooded(t, func(p *inquiry.Policy) { p.MaxRemember = 10 })
	for i := range 1000 {
		c := fmt.Sprint("c", i)
		w := join(t, tbl, c)
		tbl.TakeAsks(start)
		answer(tbl, c, 0, inquiry.Result{}, start)
		tbl.Leave(w)
		_, remembered := tbl.Size()
		require.LessOrEqual(t, remembered, 10)
		_, known := tbl.Find(c, start)
		require.True(t, known, "the newest is remembered")
	}
}

func TestPoliciesThatAreRefused(t *testing.T) {
	for _, p := range []inquiry.Policy{{}, {Keep: 2 * time.Second, Calm: 1, MaxAsked: 1, MaxSent: 1, MaxWaiting: 1, MaxRemember: 1}, {Keep: -1, MaxSent: 1, MaxAsked: 1, MaxWaiting: 1, MaxRemember: 1}} {
		require.Error(t, p.Validate())
	}
}
