package postgres

import (
	"context"
	"time"

	"plane/system/port"
)

// RecordStates implements port.Store.
func (s *Store) RecordStates(ctx context.Context, reports []port.StateReport) ([]port.RecordOutcome, error) {
	outcomes, err := s.states.do(ctx, reports)
	return outcomes, failed(ctx, "record states", err)
}

func (s *Store) recordAll(ctx context.Context, reports []port.StateReport) ([]port.RecordOutcome, error) {
	n := len(reports)
	drones, backends, at := make([]int64, n), make([]string, n), make([]time.Time, n)
	statuses, lasts := make([]int16, n), make([]int16, n)
	addresses, terminations, reasons, messages := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	exitCodes, ooms := make([]*int, n), make([]bool, n)
	for i, r := range reports {
		drones[i], backends[i], at[i] = int64(r.Drone), text(r.BackendID), r.Time
		statuses[i], lasts[i] = int16(r.State.Status), int16(r.State.Last)
		addresses[i], messages[i] = text(r.State.Address), text(r.State.Message)
		terminations[i], reasons[i] = text(string(r.State.Termination)), text(string(r.State.Reason))
		exitCodes[i], ooms[i] = r.State.ExitCode, r.State.OOM
	}
	var codes []int16
	err := s.pool.QueryRow(ctx, `select plane.record($1::bigint[], $2::text[], $3::smallint[], $4::timestamptz[], $5::text[], $6::smallint[],
		$7::text[], $8::text[], $9::bigint[], $10::boolean[], $11::text[])`,
		drones, backends, statuses, at, addresses, lasts, terminations, reasons, exitCodes, ooms, messages).Scan(&codes)
	if err != nil {
		return nil, err
	}
	outcomes := make([]port.RecordOutcome, len(codes))
	var hints []port.Hint
	for i, c := range codes {
		if outcomes[i] = port.RecordOutcome(c); outcomes[i] != port.NotOfDrone {
			hints = append(hints, backendHint(reports[i].BackendID))
		}
	}
	s.announcer.announce(hints...)
	return outcomes, nil
}

// RenewKeys implements port.Store.
func (s *Store) RenewKeys(ctx context.Context, renewals []port.Renewal) ([]bool, error) {
	renewed, err := s.renewals.do(ctx, renewals)
	return renewed, failed(ctx, "renew keys", err)
}

// lessee is a backend with its drone.
type lessee struct {
	backend string
	drone   int64
}

// renewAll renews leases, most often all in one statement. What that passes over,
// as it is refused or about to expire, is looked at in another.
func (s *Store) renewAll(ctx context.Context, renewals []port.Renewal) ([]bool, error) {
	renewed, err := s.renew(ctx, renewals, false)
	if err != nil {
		return nil, err
	}
	var rest []port.Renewal
	for i, r := range renewals {
		if !renewed[i] {
			rest = append(rest, r)
		}
	}
	if len(rest) == 0 {
		return renewed, nil
	}
	late, err := s.renew(ctx, rest, true)
	if err != nil {
		return nil, err
	}
	for i := range renewed {
		if !renewed[i] {
			renewed[i], late = late[0], late[1:]
		}
	}
	return renewed, nil
}

// renew renews leases. Without late, those that are about to expire are passed
// over.
func (s *Store) renew(ctx context.Context, renewals []port.Renewal, late bool) ([]bool, error) {
	n := len(renewals)
	drones, backends, expiries := make([]int64, n), make([]string, n), make([]int64, n)
	for i, r := range renewals {
		drones[i], backends[i], expiries[i] = int64(r.Drone), text(r.BackendID), r.Lease.Expiry.Microseconds()
	}
	var names []string
	var on []int64
	err := s.pool.QueryRow(ctx, "select backends, drones from plane.renew($1::bigint[], $2::text[], $3::bigint[], $4::boolean)", drones, backends, expiries, late).Scan(&names, &on)
	if err != nil {
		return nil, err
	}
	there := make(map[lessee]bool, len(names))
	for i, name := range names {
		there[lessee{name, on[i]}] = true
	}
	renewed := make([]bool, n)
	for i := range renewals {
		renewed[i] = there[lessee{backends[i], drones[i]}]
	}
	return renewed, nil
}

// KeepAlive implements port.Store.
func (s *Store) KeepAlive(ctx context.Context, u port.ProxyUse) error {
	backends := make([]string, len(u.Backends))
	for i, b := range u.Backends {
		backends[i] = text(b)
	}
	var asOf *time.Time
	if u.Complete {
		asOf = &u.AsOf
	}
	err := insist(func() error {
		_, err := s.pool.Exec(ctx, "select plane.use($1::bigint, $2::text[], $3::boolean, $4::timestamptz)", int64(u.Proxy), backends, u.Complete, asOf)
		return err
	})
	return failed(ctx, "note keep-alives", err)
}

func backendHint(id string) port.Hint { return port.Hint{Topic: port.BackendTopic, Subject: id} }
