package postgres_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/backend"
	"plane/system/lease"
	"plane/system/port"
)

// terms is a database with backends of one drone, which have asked for renewals
// together.
type terms struct {
	*database
	drone port.NodeID
	ids   []string
}

func sharing(t *testing.T, n int) *terms {
	t.Helper()
	s := &terms{database: open(t)}
	s.drone = s.database.drone("dr-1")
	for i := range n {
		s.ids = append(s.ids, fmt.Sprintf("b-%02d", i))
		_, err := s.Connect(t.Context(), spawning(s.ids[i], s.ids[i]))
		require.NoError(t, err)
	}
	s.renewed(s, s.ids...)
	return s
}

// ask has a controller ask for renewals in one call.
func (s *terms) ask(by port.Store, ids ...string) []bool {
	s.t.Helper()
	renewed, err := by.RenewKeys(s.t.Context(), s.renewals(ids...))
	require.NoError(s.t, err)
	return renewed
}

func (s *terms) renewals(ids ...string) []port.Renewal {
	var all []port.Renewal
	for _, id := range ids {
		all = append(all, port.Renewal{Drone: s.drone, BackendID: id, Lease: lease.Default()})
	}
	return all
}

// renewed requires that all are renewed, until a minute from now.
func (s *terms) renewed(by port.Store, ids ...string) {
	s.t.Helper()
	require.Equal(s.t, slices.Repeat([]bool{true}, len(ids)), s.ask(by, ids...))
	for _, id := range ids {
		require.InDelta(s.t, 60, s.left(id), 5, id)
	}
}

// left is for how many seconds a lease still lasts.
func (s *terms) left(id string) int {
	s.t.Helper()
	return s.number(`select extract(epoch from greatest(b.lease_end, t.ends) - plane.now())::integer
		from plane.backend b left join plane.term t on t.id = b.term where b.id = '` + id + `'`)
}

// rows tells a version of each row of the table from the next.
func (s *terms) rows(table string) (rows []string) {
	s.t.Helper()
	require.NoError(s.t, s.conn.QueryRow(s.t.Context(), "select array_agg(xmin::text || x.ctid::text order by x.id) from plane."+table+" x").Scan(&rows))
	return rows
}

// members requires terms of such sizes, and that they and the backends agree on
// who is in them.
func (s *terms) members(sizes ...int) {
	s.t.Helper()
	var got []int
	require.NoError(s.t, s.conn.QueryRow(s.t.Context(), "select coalesce(array_agg(bit_count(members::bit(64))::integer order by id), '{}') from plane.term").Scan(&got))
	require.ElementsMatch(s.t, sizes, got)
	require.Zero(s.t, s.number(`select count(*) from plane.term t full join
		(select b.term, b.drone, bit_or(1::bigint << b.place) as members from plane.backend b where b.term is not null group by b.term, b.drone) b
		on b.term = t.id where (t.drone, t.members) is distinct from (b.drone, b.members)`))
}

func TestWhoRenewTogetherWriteOneRow(t *testing.T) {
	s := sharing(t, 50)
	s.members(50)
	backends, term := s.rows("backend"), s.rows("term")
	s.advance(12 * time.Second)
	s.renewed(s, s.ids...)
	require.Equal(t, backends, s.rows("backend"))
	require.NotEqual(t, term, s.rows("term"))
	require.Len(t, s.rows("term"), 1)

	s.advance(50 * time.Second)
	require.Zero(t, s.sweep())
	_, err := s.Connect(t.Context(), spawning("b-00", "other"))
	require.NoError(t, err)
	require.Zero(t, s.number("select count(*) from plane.backend where id = 'other'"), "its key is held")
}

func TestMoreThanATermHoldsAreInSeveral(t *testing.T) {
	s := sharing(t, 150)
	s.members(50, 50, 50)
	backends := s.rows("backend")
	s.renewed(s, s.ids...)
	require.Equal(t, backends, s.rows("backend"))
}

// A lease that nobody asked for ends, as it would by itself.
func TestAMemberThatDoesNotAskIsNotRenewed(t *testing.T) {
	s := sharing(t, 20)
	s.advance(30 * time.Second)
	s.renewed(s, s.ids[1:]...)
	require.InDelta(t, 30, s.left("b-00"), 5)
	s.members(1, 19)
	s.advance(31 * time.Second)
	require.Equal(t, append([]bool{false}, slices.Repeat([]bool{true}, 19)...), s.ask(s, s.ids...), "it has expired")
	require.Equal(t, 1, s.sweep(), "it was never started")
	s.members(19)
}

func TestAMemberThatMayNotRenewIsRefusedFromThenOn(t *testing.T) {
	s := sharing(t, 20)
	s.advance(10 * time.Second)
	changed, err := s.PreventRenew(t.Context(), "b-03")
	require.NoError(t, err)
	require.True(t, changed)
	want := slices.Repeat([]bool{true}, 20)
	want[3] = false
	for range 3 {
		require.Equal(t, want, s.ask(s, s.ids...))
		require.InDelta(t, 50, s.left("b-03"), 5)
		require.InDelta(t, 60, s.left("b-04"), 5)
	}
	s.members(19)
	expires, err := s.MarkLost(t.Context(), "b-04")
	require.NoError(t, err)
	require.InDelta(t, 60, expires.Seconds(), 5)
	want[4] = false
	require.Equal(t, want, s.ask(s, s.ids...))
	s.members(18)
	s.advance(expires)
	require.Equal(t, 20, s.sweep())
	s.members()
}

func TestAMemberThatHasEndedHoldsNobodyUp(t *testing.T) {
	s := sharing(t, 20)
	for _, id := range []string{"b-07", "b-08"} {
		_, err := s.RecordStates(t.Context(), []port.StateReport{{Drone: s.drone, BackendID: id, State: backend.State{Status: backend.Terminated, Last: backend.Scheduled}}})
		require.NoError(t, err)
	}
	s.members(18)
	backends := s.rows("backend")
	s.advance(20 * time.Second)
	rest := slices.Concat(s.ids[:7], s.ids[9:])
	s.renewed(s, rest...)
	require.Equal(t, backends, s.rows("backend"), "nobody has moved")
	require.Equal(t, []bool{false}, s.ask(s, "b-07"))
}

// What a controller remembers of terms may be out of date.
func TestWhatAnotherControllerRegroupedIsRenewedAllTheSame(t *testing.T) {
	s := sharing(t, 40)
	other := s.controllers(2)[1]
	s.renewed(other, s.ids[:20]...)
	s.members(20, 20)
	s.advance(20 * time.Second)
	// The first one thinks that all are in one term, of which half is left.
	s.renewed(s, s.ids...)
	_, err := s.PreventRenew(t.Context(), "b-00")
	require.NoError(t, err)
	require.Equal(t, []bool{false, true, true}, s.ask(other, "b-00", "b-01", "b-30"))
	require.Equal(t, []bool{false, true, true}, s.ask(s, "b-00", "b-01", "b-30"))
	for range 3 {
		s.renewed(s, s.ids[1:]...)
	}
	s.members(19, 18, 2)
}

// G1: with a term its members' keys become free.
func TestWhenATermHasExpiredItsKeysAreFree(t *testing.T) {
	s := sharing(t, 20)
	s.advance(58 * time.Second)
	require.InDelta(t, 2, s.left("b-01"), 2)
	s.renewed(s, "b-00") // in time, if barely
	s.advance(4 * time.Second)
	s.beat(s.drone, "dr-1")
	c, err := s.Connect(t.Context(), spawning("b-01", "other"))
	require.NoError(t, err)
	require.Equal(t, "other", c.BackendID)
	for range 2 {
		require.Equal(t, []bool{true, false, false}, s.ask(s, "b-00", "b-01", "b-02"))
	}
	s.renewed(s, "b-00", "other")
	require.Equal(t, 19, s.sweep())
	require.Equal(t, 2, s.number("select count(*) from plane.backend"))
}

// extending is a renewal of the term whose commit takes long.
func (s *terms) extending() (release func()) {
	s.t.Helper()
	return s.hold(`select plane.extend(array_agg(id), array_agg(drone), array_agg(members), array_agg(60000000::bigint)) from plane.term`)
}

// A renewal that waits for an operator's word finds its place gone, and one that
// the operator's word waits for is in the answer.
func TestARenewalAndAnOperatorMeet(t *testing.T) {
	s := sharing(t, 3)
	s.advance(30 * time.Second)
	release := s.hold("select plane.mark_lost('b-00')")
	answer := make(chan []bool)
	go func() { answer <- s.ask(s, s.ids...) }()
	s.blocked()
	release()
	require.Equal(t, []bool{false, true, true}, <-answer)
	require.InDelta(t, 30, s.left("b-00"), 5)

	s.advance(20 * time.Second)
	release = s.extending()
	expires := make(chan time.Duration)
	go func() {
		left, err := s.MarkLost(t.Context(), "b-01")
		require.NoError(t, err)
		expires <- left
	}()
	s.blocked()
	release()
	require.InDelta(t, 60, (<-expires).Seconds(), 5)
	require.Equal(t, []bool{false, false, true}, s.ask(s, s.ids...))
}

// G1: a renewal whose commit waits for a standby, for longer than the lease had
// left, was in time: who finds the key free by then waits for it.
func TestARenewalWhoseCommitTakesLongKeepsTheKey(t *testing.T) {
	s := sharing(t, 3)
	s.advance(50 * time.Second)
	release := s.extending()
	s.advance(20 * time.Second)
	s.beat(s.drone, "dr-1")
	require.Zero(t, s.sweep())
	found := make(chan string)
	go func() {
		c, err := s.Connect(t.Context(), spawning("b-00", "other"))
		require.NoError(t, err)
		found <- c.BackendID
	}()
	s.blocked()
	release()
	require.Equal(t, "b-00", <-found)
	require.Zero(t, s.sweep())
	s.renewed(s, s.ids...)
}

// A renewal that has read the time before another one, and is slower, takes
// nothing of the lease back that the other one has given.
func TestALeaseIsNotCutShortByARenewalFromBefore(t *testing.T) {
	s := sharing(t, 3)
	s.advance(30 * time.Second)
	s.exec("update plane.backend set lease_end = lease_end + interval '40 seconds' where id = 'b-02'")
	s.renewed(s, "b-00", "b-01")
	require.Equal(t, 0, s.number(`select count(*) from (select (plane.renew(array[drone], array[id], array[60000000], array[null::integer], array[null::smallint], false)).backends from plane.backend where id = 'b-02') r where r.backends is not null`))
	require.InDelta(t, 70, s.left("b-02"), 5)
}
