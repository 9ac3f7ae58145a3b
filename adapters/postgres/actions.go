package postgres

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"plane/system/backend"
	"plane/system/port"
	"plane/system/protocol"
)

// Terminate implements port.Store.
func (s *Store) Terminate(ctx context.Context, p port.TerminateParams) error {
	var drone int64
	err := insist(func() error {
		return s.pool.QueryRow(ctx, "select plane.terminate($1::text, $2::text, $3::text, $4::text)",
			text(p.BackendID), text(p.ActionID), string(p.Kind), string(p.Reason)).Scan(&drone)
	})
	switch {
	case err != nil:
		return failed(ctx, "terminate "+p.BackendID, err)
	case drone < 0:
		return unknownBackend(p.BackendID)
	case drone > 0:
		s.announcer.announce(actionHint(drone))
	}
	return nil
}

func actionHint(drone int64) port.Hint {
	return port.Hint{Topic: port.ActionTopic, Subject: strconv.FormatInt(drone, 10)}
}

// PendingActions implements port.Store.
func (s *Store) PendingActions(ctx context.Context, drone port.NodeID) ([]port.PendingAction, error) {
	rows, err := s.pool.Query(ctx, `select id, backend, kind, reason, executable, renew_at, soft_at, hard_at,
		namespace, name, tag, fencing, static_token from plane.pending($1::bigint)`, int64(drone))
	if err != nil {
		return nil, failed(ctx, "read actions", err)
	}
	actions, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (port.PendingAction, error) {
		return scanAction(row, drone)
	})
	return actions, failed(ctx, "read actions", err)
}

func scanAction(row pgx.CollectableRow, drone port.NodeID) (port.PendingAction, error) {
	a := protocol.Action{DroneID: int64(drone)}
	var (
		kind, reason, static string
		executable           *string
		renew, soft, hard    *int64
		key                  protocol.AcquiredKey
	)
	err := row.Scan(&a.ActionID, &a.BackendID, &kind, &reason, &executable, &renew, &soft, &hard,
		&key.Key.Namespace, &key.Key.Name, &key.Key.Tag, &key.Token, &static)
	if err != nil {
		return port.PendingAction{}, err
	}
	if kind != "spawn" {
		a.Action.Terminate = &protocol.Terminate{Kind: backend.Kind(kind), Reason: backend.Reason(reason)}
		return port.PendingAction{Action: a}, nil
	}
	key.Key = protocol.Key{Namespace: plain(key.Key.Namespace), Name: plain(key.Key.Name), Tag: plain(key.Key.Tag)}
	key.Deadlines = protocol.Deadlines{RenewAt: millis(renew), SoftTerminateAt: millis(soft), HardTerminateAt: millis(hard)}
	spawn := &protocol.Spawn{Key: key}
	if executable != nil {
		spawn.Executable = json.RawMessage(*executable)
	}
	if static != "" {
		spawn.StaticToken = &static
	}
	a.Action.Spawn = spawn
	return port.PendingAction{Action: a}, nil
}

// millis is a time on a drone's clock.
func millis(ms *int64) time.Time {
	if ms == nil {
		return time.Time{}
	}
	return time.UnixMilli(*ms)
}

// acknowledgement names an action of a drone.
type acknowledgement struct {
	drone  port.NodeID
	action string
}

// AckActions implements port.Store.
func (s *Store) AckActions(ctx context.Context, drone port.NodeID, actionIDs []string) error {
	acks := make([]acknowledgement, len(actionIDs))
	for i, id := range actionIDs {
		acks[i] = acknowledgement{drone, id}
	}
	_, err := s.acks.do(ctx, acks)
	return failed(ctx, "acknowledge actions", err)
}

func (s *Store) ackAll(ctx context.Context, acks []acknowledgement) ([]struct{}, error) {
	drones, actions := make([]int64, len(acks)), make([]string, len(acks))
	for i, a := range acks {
		drones[i], actions[i] = int64(a.drone), text(a.action)
	}
	_, err := s.pool.Exec(ctx, "select plane.ack($1::bigint[], $2::text[])", drones, actions)
	return make([]struct{}, len(acks)), err
}
