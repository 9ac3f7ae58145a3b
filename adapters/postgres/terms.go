package postgres

import (
	"math/bits"
	"slices"
	"time"

	"plane/system/port"
)

// How many backends' places in terms are remembered, and for how long after the
// last renewal.
const (
	mostSeats = 200_000
	seatAge   = 10 * time.Minute
)

// How many backends share a term at most, and of how many fewer it is a small one:
// these move in with others of their drone.
const (
	mostShare = 64
	fewShare  = 16
)

// lessee is a backend with its drone.
type lessee struct {
	backend string
	drone   int64
}

// seat is a backend's place in a term (plane.term), as it was when its lease was
// last renewed. The zero value: it has a lease of its own.
//
// It may be out of date: the backend may have left since, by its end, by an
// operator's word, or because another controller has regrouped it. It is never
// wrong: no place in a term is ever taken again, and no term's number given
// again. So where plane.extend answers that the place is still taken, it is this
// backend that was renewed. That a drone is never told of a renewal that was none
// (G1) rests on it.
type seat struct {
	drone, term int64
	place       int16
}

// renewing is a renewal that is asked for.
type renewing struct {
	lessee
	expiry int64 // microseconds
	seat   seat
}

// flock is which renewals can share a term.
type flock struct{ drone, expiry int64 }

func (r renewing) flock() flock { return flock{r.drone, r.expiry} }

// share is a term of which some ask.
type share struct {
	term int64
	flock
	asked   uint64 // a bit for the place of each
	members []renewing
}

// distinct are the renewals, each lessee once.
func distinct(renewals []port.Renewal, seatOf func(backend string) seat) []renewing {
	places := make(map[lessee]int, len(renewals))
	all := make([]renewing, 0, len(renewals))
	for _, r := range renewals {
		of := lessee{text(r.BackendID), int64(r.Drone)}
		i, known := places[of]
		if !known {
			i = len(all)
			places[of] = i
			all = append(all, renewing{lessee: of})
			if at := seatOf(of.backend); at.drone == of.drone {
				all[i].seat = at
			}
		}
		all[i].expiry = r.Lease.Expiry.Microseconds()
	}
	return all
}

// divide tells those that share a term from those that have to be renewed one by
// one, and find one to share by that. The members of small terms are among these
// where they find company, so that terms which have shrunk or were cut up grow
// together again. What is divided the same way each time comes to rest: it has
// one small term for each flock at most, and else only such as are no small ones.
func divide(all []renewing) (shares []*share, single []renewing) {
	byTerm := map[int64]*share{}
	company := map[flock]int{}
	for _, r := range all {
		if r.seat.term == 0 {
			single = append(single, r)
			company[r.flock()]++
			continue
		}
		s := byTerm[r.seat.term]
		if s == nil {
			s = &share{term: r.seat.term, flock: r.flock()}
			byTerm[s.term] = s
			shares = append(shares, s)
		}
		if s.flock != r.flock() { // it wants to end at another time than they
			single = append(single, r)
			company[r.flock()]++
			continue
		}
		s.asked |= 1 << r.seat.place
		s.members = append(s.members, r)
	}
	for _, s := range shares {
		if s.small() {
			company[s.flock]++
		}
	}
	shares = slices.DeleteFunc(shares, func(s *share) bool {
		moves := s.small() && company[s.flock] > 1
		if moves {
			single = append(single, s.members...)
		}
		return moves
	})
	return shares, single
}

func (s *share) small() bool { return bits.OnesCount64(s.asked) < fewShare }

// regroup says which of those that are renewed one by one share a term from now
// on: for each the number of the term, from 1, and its place there; nil: none.
func regroup(all []renewing) (shares []*int32, places []int16) {
	flocks := map[flock][]int{}
	var order []flock
	for i, r := range all {
		f := r.flock()
		if flocks[f] == nil {
			order = append(order, f)
		}
		flocks[f] = append(flocks[f], i)
	}
	shares, places = make([]*int32, len(all)), make([]int16, len(all))
	var last int32
	for _, f := range order {
		flock := flocks[f]
		if len(flock) == 1 {
			continue
		}
		// In terms of much the same size.
		n := (len(flock) + mostShare - 1) / mostShare
		for part := range n {
			last++
			number := last
			for place, i := range flock[part*len(flock)/n : (part+1)*len(flock)/n] {
				shares[i], places[i] = &number, int16(place)
			}
		}
	}
	return shares, places
}
