// Package inquiry holds what a DNS receiver asks a controller, and remembers for
// a moment what it was told.
//
// A Table owns the questions under way, at most one for a cluster, and the
// answers. It promises that who asks is told what was so after it asked: who comes
// while a question is under way waits for the next one. Only when more is asked
// than Policy.Calm, which no honest use comes near, answers are remembered: then a
// flood of questions about one cluster becomes none to the controller, and a value
// that is set may be hidden by an older answer, for Policy.Keep and the time that
// the question took.
//
// Nor does a flood of questions about many clusters, most of which nobody has:
// the controller has Policy.MaxSent of them at a time, the others wait for room.
// When too many wait, the oldest gives way to the newest: its resolver has the
// least patience left. A cluster that had values lately, which nobody on the
// internet can bring about, gives way to none, and is asked for before all others.
//
// It never blocks and knows nothing of the session: TakeAsks gives what is to be
// sent, Answered takes what came. All methods may be called at once. When a
// session ends, what is under way is sent again in the next one, for as long as
// somebody waits.
package inquiry

import (
	"cmp"
	"container/list"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"
)

// ErrTooMany refuses a question while too many are under way, or wait.
var ErrTooMany = errors.New("too many questions to the controller are under way")

// Policy is how much a Table holds.
type Policy struct {
	Keep        time.Duration // how long an answer is given out in a flood
	Calm        int           // questions to the controller in that time that are no flood
	MaxSent     int           // questions that the controller has
	MaxAsked    int           // questions under way, those included
	MaxWaiting  int           // tasks that wait for answers; an eighth is for clusters that had values lately
	MaxRemember int           // answers; beyond, the oldest is forgotten
}

// DefaultPolicy remembers nothing below some two hundred questions a second, and
// then for less than a second.
func DefaultPolicy() Policy {
	return Policy{
		Keep: 900 * time.Millisecond, Calm: 200, MaxSent: 1 << 9, MaxAsked: 1 << 10, MaxWaiting: 1 << 11, MaxRemember: 1 << 14,
	}
}

// Validate refuses a policy that could not work.
func (p Policy) Validate() error {
	if p.Keep <= 0 || p.Keep > time.Second || p.Calm < 0 || min(p.MaxSent, p.MaxAsked, p.MaxWaiting, p.MaxRemember) < 1 {
		return errors.New("inquiry policy: answers are kept for a second at most, and every limit must be positive")
	}
	return nil
}

// Result is what a controller says of a cluster.
type Result struct {
	Values  []string
	Failed  bool // it could not say
	GaveWay bool // it was not asked, or has not answered: the question made room for another
}

// Waker wakes the task that waits for an answer.
type Waker interface{ Advance() }

// Waiter is one task's interest in an answer.
type Waiter struct {
	cluster string
	wake    Waker
	done    bool
	result  Result
}

// Ask is a question to be sent. The controller's answer has its ID, unless it is
// one of 0.5.x; so a late answer to an earlier question about the cluster is told
// apart.
type Ask struct {
	Cluster string
	ID      uint64 // greater than 0
}

type question struct {
	cluster string
	valued  bool // the cluster had values lately
	waiters []*Waiter
	later   []*Waiter     // came after it was sent
	sent    uint64        // its ID in this session; 0: not yet
	place   *list.Element // in its queue; nil: it is sent
}

type answer struct {
	result Result
	until  time.Time
}

// Table is what a receiver asks and remembers.
type Table struct {
	policy Policy

	mu        sync.Mutex
	asked     map[string]*question
	first     list.List            // of *question that are to be sent: those of clusters that had values lately,
	others    list.List            // and all others
	valued    map[string]time.Time // until when a cluster counts as one that had values lately
	lastID    uint64
	waiting   int
	since     time.Time // the beginning of a span of Policy.Keep
	sent      [2]int    // questions in the span before, and in this one
	answers   map[string]answer
	oldest    []string // the keys of answers, and some that are in it no more, oldest first
	connected bool
	lostAt    time.Time // when not connected: since when
}

// NewTable makes an empty table, which is not connected since now.
func NewTable(p Policy, now time.Time) *Table {
	return &Table{policy: p, asked: map[string]*question{}, valued: map[string]time.Time{}, answers: map[string]answer{}, lostAt: now}
}

// Find returns an answer that is remembered.
func (t *Table) Find(cluster string, now time.Time) (Result, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a, ok := t.answers[cluster]
	return a.result, ok && now.Before(a.until)
}

// Joined is what has come of a Join.
type Joined struct {
	*Waiter
	Ask  bool    // there is a question to be sent
	Wake []Waker // of those that gave way
}

// Join waits for the answer on a cluster. ErrTooMany when there are too many, and
// none that could give way. wake is advanced when there is something to see: an
// answer, or a change of the session. Every Waiter has to Leave.
func (t *Table) Join(cluster string, wake Waker, now time.Time) (Joined, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	q, valued := t.asked[cluster], now.Before(t.valued[cluster])
	j := Joined{Waiter: &Waiter{cluster: cluster, wake: wake}}
	for t.full(q == nil, valued) {
		oldest := t.others.Front()
		if oldest == nil || oldest.Value == q {
			return j, ErrTooMany // but some may have given way before
		}
		j.Wake = append(j.Wake, t.giveWay(oldest.Value.(*question))...)
	}
	t.waiting++
	if q != nil && q.sent != 0 {
		q.later = append(q.later, j.Waiter)
		return j, nil
	}
	if q == nil {
		q = &question{cluster: cluster, valued: valued}
		t.asked[cluster] = q
		t.enqueue(q)
		j.Ask = true
	}
	q.waiters = append(q.waiters, j.Waiter)
	return j, nil
}

// full reports whether there is no room for one more who waits, perhaps with a
// new question.
func (t *Table) full(isNew, valued bool) bool {
	most := t.policy.MaxWaiting
	if !valued {
		most -= most / 8
	}
	return t.waiting >= most || isNew && len(t.asked) >= t.policy.MaxAsked
}

// giveWay drops a question that is not sent, and returns whom to wake.
func (t *Table) giveWay(q *question) []Waker {
	t.drop(q)
	return t.tell(q.waiters, Result{GaveWay: true})
}

// tell gives waiters their result, and returns whom to wake.
func (t *Table) tell(waiters []*Waiter, r Result) (wake []Waker) {
	for _, w := range waiters {
		w.done, w.result = true, r
		wake = append(wake, w.wake)
	}
	t.waiting -= len(waiters)
	return wake
}

// Result returns what the waiter was told, once it was.
func (t *Table) Result(w *Waiter) (Result, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return w.result, w.done
}

// Leave ends the waiter's interest. A question that nobody waits for any more is
// given up; should its answer come all the same, it counts for nobody. ask says
// that there is a question to be sent, for which there is room now.
func (t *Table) Leave(w *Waiter) (ask bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if w.done {
		return false
	}
	t.waiting--
	q := t.asked[w.cluster]
	isW := func(other *Waiter) bool { return other == w }
	q.waiters, q.later = slices.DeleteFunc(q.waiters, isW), slices.DeleteFunc(q.later, isW)
	if len(q.waiters)+len(q.later) > 0 {
		return false
	}
	t.drop(q)
	return t.toSend() > 0
}

// TakeAsks returns what a controller is to be asked now.
func (t *Table) TakeAsks(now time.Time) (asks []Ask) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.connected && t.toSend() > 0 && len(t.asked)-t.toSend() < t.policy.MaxSent {
		q := t.dequeue()
		t.lastID++
		q.sent = t.lastID
		asks = append(asks, Ask{q.cluster, q.sent})
	}
	t.flood(now)
	t.sent[1] += len(asks)
	return asks
}

// flood reports whether more is asked than is taken for calm.
func (t *Table) flood(now time.Time) bool {
	switch span := now.Sub(t.since); {
	case span >= 2*t.policy.Keep:
		t.since, t.sent = now, [2]int{}
	case span >= t.policy.Keep:
		t.since, t.sent = now, [2]int{t.sent[1], 0}
	}
	return max(t.sent[0], t.sent[1]) > t.policy.Calm
}

// Answered takes a controller's word on a cluster, and returns whom to wake, and
// whether there is a question to be sent. id is that of the question; 0 from a
// controller that does not tell. An answer to a question that was given up counts
// for nobody.
func (t *Table) Answered(cluster string, id uint64, r Result, now time.Time) (wake []Waker, ask bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.noteValued(cluster, r, now)
	q := t.asked[cluster]
	if q == nil || q.sent == 0 || id != 0 && id != q.sent {
		return nil, false
	}
	t.drop(q)
	told, flood := q.waiters, t.flood(now)
	switch {
	case flood || r.Failed:
		t.remember(cluster, answer{r, now.Add(t.policy.Keep)})
		told = append(told, q.later...)
	case len(q.later) > 0:
		again := &question{cluster: cluster, valued: now.Before(t.valued[cluster]), waiters: q.later}
		t.asked[cluster] = again
		t.enqueue(again)
	}
	return t.tell(told, r), t.toSend() > 0
}

// remember keeps an answer, and forgets those that are over. All are kept for
// the same time, so the oldest ends first.
func (t *Table) remember(cluster string, a answer) {
	now := a.until.Add(-t.policy.Keep)
	for len(t.oldest) > 0 {
		old, ok := t.answers[t.oldest[0]]
		if ok && now.Before(old.until) && len(t.answers) < t.policy.MaxRemember && len(t.oldest) < 2*t.policy.MaxRemember {
			break
		}
		delete(t.answers, t.oldest[0])
		t.oldest = t.oldest[1:]
	}
	t.answers[cluster] = a
	t.oldest = append(t.oldest, cluster)
}

// Connected notes that a session has begun, in which everything under way is to
// be sent; what an earlier controller could not say is forgotten. It returns whom
// to wake.
func (t *Table) Connected() []Waker {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.connected = true
	maps.DeleteFunc(t.answers, func(_ string, a answer) bool { return a.result.Failed })
	return t.wakers()
}

// Disconnected notes that the session is over, and returns whom to wake.
func (t *Table) Disconnected(now time.Time) []Waker {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.connected, t.lostAt = false, now
	var sent []*question
	for _, cluster := range slices.Sorted(maps.Keys(t.asked)) {
		if q := t.asked[cluster]; q.sent != 0 {
			sent = append(sent, q)
		}
	}
	slices.SortFunc(sent, func(a, b *question) int { return cmp.Compare(a.sent, b.sent) })
	for _, q := range slices.Backward(sent) {
		q.sent, q.waiters, q.later = 0, append(q.waiters, q.later...), nil
		q.place = t.queue(q).PushFront(q)
	}
	return t.wakers()
}

func (t *Table) wakers() (all []Waker) {
	for _, cluster := range slices.Sorted(maps.Keys(t.asked)) {
		q := t.asked[cluster]
		for _, w := range slices.Concat(q.waiters, q.later) {
			all = append(all, w.wake)
		}
	}
	return all
}

// Session reports whether a controller is connected, and else since when none
// is.
func (t *Table) Session() (connected bool, since time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.connected, t.lostAt
}

// Size is how many questions are under way, and how many answers remembered.
func (t *Table) Size() (asked, remembered int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.asked), len(t.answers)
}
