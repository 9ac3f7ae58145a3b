package postgres

import (
	"context"
	"time"

	"plane/system/port"
)

// RenewKeys implements port.Store.
func (s *Store) RenewKeys(ctx context.Context, renewals []port.Renewal) ([]bool, error) {
	renewed, err := s.renewals.do(ctx, renewals)
	return renewed, failed(ctx, "renew keys", err)
}

// renewAll renews leases. Most often all of them are shared, and each term is
// extended by one row. Of what that passes over a second statement renews each
// backend's own row, and has it share a term with the others that came with it;
// and what that passes over, as it is refused or about to expire, is looked at in
// a third.
func (s *Store) renewAll(ctx context.Context, renewals []port.Renewal) ([]bool, error) {
	asked := distinct(renewals, s.seatOf)
	renewed := make(map[lessee]bool, len(asked))
	shares, rest := divide(asked)
	if len(shares) > 0 {
		passed, err := s.extend(ctx, shares, renewed)
		if err != nil {
			return nil, err
		}
		rest = append(rest, passed...)
	}
	for _, late := range []bool{false, true} {
		if len(rest) == 0 {
			break
		}
		var err error
		if rest, err = s.renew(ctx, rest, late, renewed); err != nil {
			return nil, err
		}
	}
	out := make([]bool, len(renewals))
	for i, r := range renewals {
		out[i] = renewed[lessee{text(r.BackendID), int64(r.Drone)}]
	}
	return out, nil
}

// extend renews leases by terms, notes which, and returns those that it has
// passed over.
func (s *Store) extend(ctx context.Context, shares []*share, renewed map[lessee]bool) (passed []renewing, err error) {
	var ids, members []int64
	err = s.pool.QueryRow(ctx, "select terms, members from plane.extend($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[])",
		column(shares, func(s *share) int64 { return s.term }),
		column(shares, func(s *share) int64 { return s.drone }),
		column(shares, func(s *share) int64 { return int64(s.asked) }),
		column(shares, func(s *share) int64 { return s.expiry })).Scan(&ids, &members)
	if err != nil {
		return nil, err
	}
	extended := make(map[int64]uint64, len(ids))
	for i, id := range ids {
		extended[id] = uint64(members[i])
	}
	for _, t := range shares {
		for _, r := range t.members {
			if extended[t.term]&(1<<r.seat.place) == 0 {
				passed = append(passed, r)
				continue
			}
			renewed[r.lessee] = true
			s.sit(r.backend, r.seat)
		}
	}
	return passed, nil
}

// renew renews leases one by one, notes which, and returns those that it has
// passed over. Without late, these may be about to expire.
func (s *Store) renew(ctx context.Context, all []renewing, late bool, renewed map[lessee]bool) (passed []renewing, err error) {
	shares, places := regroup(all)
	var names []string
	var drones []int64
	var terms []*int64
	var taken []*int16
	err = s.pool.QueryRow(ctx, "select backends, drones, terms, places from plane.renew($1::bigint[], $2::text[], $3::bigint[], $4::integer[], $5::smallint[], $6::boolean)",
		column(all, func(r renewing) int64 { return r.drone }),
		column(all, func(r renewing) string { return r.backend }),
		column(all, func(r renewing) int64 { return r.expiry }),
		shares, places, late).Scan(&names, &drones, &terms, &taken)
	if err != nil {
		return nil, err
	}
	for i, name := range names {
		renewed[lessee{name, drones[i]}] = true
		at := seat{drone: drones[i]}
		if terms[i] != nil {
			at.term, at.place = *terms[i], *taken[i]
		}
		s.sit(name, at)
	}
	for _, r := range all {
		if !renewed[r.lessee] {
			passed = append(passed, r)
		}
	}
	return passed, nil
}

func (s *Store) seatOf(backend string) seat {
	kept, _ := s.seats.Get(backend, time.Now())
	return kept.Value
}

func (s *Store) sit(backend string, at seat) { s.seats.Put(backend, at, time.Now()) }
