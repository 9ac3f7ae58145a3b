package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"plane/system/port"
)

var _ port.ChallengeStore = (*Store)(nil)

// LeaseCertificate implements port.ChallengeStore.
func (s *Store) LeaseCertificate(ctx context.Context, cluster string, proxy port.NodeID, term time.Duration) (bool, error) {
	var leased bool
	err := s.pool.QueryRow(ctx, "select plane.lease_certificate($1::text, $2::bigint, $3::bigint, $4::bigint)",
		text(cluster), int64(proxy), term.Microseconds(), lately.Microseconds()).Scan(&leased)
	return leased, failed(ctx, "lease the certificate of "+cluster, err)
}

// ReleaseCertificate implements port.ChallengeStore.
func (s *Store) ReleaseCertificate(ctx context.Context, cluster string, proxy port.NodeID) error {
	_, err := s.pool.Exec(ctx, "select plane.release_certificate($1::text, $2::bigint)", text(cluster), int64(proxy))
	return failed(ctx, "release the certificate of "+cluster, err)
}

// AddChallenge implements port.ChallengeStore.
func (s *Store) AddChallenge(ctx context.Context, cluster string, proxy port.NodeID, value string, life time.Duration) error {
	_, err := s.pool.Exec(ctx, "select plane.add_challenge($1::text, $2::bigint, $3::text, $4::bigint, $5::integer)",
		text(cluster), int64(proxy), text(value), life.Microseconds(), port.MaxChallenges)
	return failed(ctx, "add a challenge for "+cluster, err)
}

// Challenges implements port.ChallengeStore.
func (s *Store) Challenges(ctx context.Context, clusters []string) ([][]string, error) {
	names := make([]string, len(clusters))
	for i, c := range clusters {
		names[i] = text(c)
	}
	all := make([][]string, len(clusters))
	rows, err := s.pool.Query(ctx, "select n, value from plane.challenges($1::text[])", names)
	if err != nil {
		return nil, failed(ctx, "read challenges", err)
	}
	var n int
	var value string
	_, err = pgx.ForEachRow(rows, []any{&n, &value}, func() error {
		all[n-1] = append(all[n-1], plain(value))
		return nil
	})
	return all, failed(ctx, "read challenges", err)
}
