package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"plane/system/backend"
	"plane/system/port"
	"plane/system/protocol"
)

// RouteToken implements port.Store.
func (s *Store) RouteToken(ctx context.Context, token string) (port.Route, error) {
	unknown := fmt.Errorf("token: %w", port.ErrNotFound)
	var (
		info       protocol.RouteInfo
		subdomain  string
		status     int16
		user, data *string
		static     bool
		left       *int64
	)
	err := s.pool.QueryRow(ctx, "select backend, address, cluster, subdomain, status, secret, username, data, static, left_ms from plane.route($1::bytea)", digest(token)).
		Scan(&info.BackendID, &info.Address, &info.Cluster, &subdomain, &status, &info.SecretToken, &user, &data, &static, &left)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return port.Route{}, unknown
	case err != nil:
		return port.Route{}, failed(ctx, "route a token", err)
	}
	if subdomain != "" {
		info.Subdomain = &subdomain
	}
	if static {
		return port.Route{Info: info, Status: backend.Status(status)}, nil
	}
	if *left <= 0 {
		return port.Route{}, unknown
	}
	info.SecretToken, info.ExpiresIn = plain(info.SecretToken), left
	if user != nil {
		name := plain(*user)
		info.User = &name
	}
	if data != nil {
		info.UserData = json.RawMessage(*data)
	}
	return port.Route{Info: info, Status: backend.Status(status)}, nil
}

// Revoke implements port.Store.
func (s *Store) Revoke(ctx context.Context, backendID, user string) error {
	var known bool
	err := s.pool.QueryRow(ctx, "select plane.revoke($1::text, $2::text)", text(backendID), text(user)).Scan(&known)
	if err != nil {
		return failed(ctx, "revoke", err)
	}
	if !known {
		return unknownBackend(backendID)
	}
	s.announcer.announce(port.Hint{Topic: port.RevokedTopic})
	return nil
}

// Revocations implements port.Store. It also ticks the store's clock.
func (s *Store) Revocations(ctx context.Context, within time.Duration) ([]port.Revocation, time.Time, error) {
	var (
		now                 time.Time
		ids                 []int64
		backends, usernames []string
	)
	err := s.pool.QueryRow(ctx, "select now, ids, backends, usernames from plane.revocations($1::bigint)", within.Microseconds()).
		Scan(&now, &ids, &backends, &usernames)
	if err != nil {
		return nil, time.Time{}, failed(ctx, "read revocations", err)
	}
	recent := make([]port.Revocation, len(ids))
	for i, id := range ids {
		recent[i] = port.Revocation{ID: id, BackendID: backends[i], User: plain(usernames[i])}
	}
	return recent, now, nil
}

func unknownBackend(id string) error { return fmt.Errorf("backend %q: %w", id, port.ErrNotFound) }
