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
