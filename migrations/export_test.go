package migrations

import (
	"context"
	"io/fs"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// ApplyFrom is Apply with other files.
func ApplyFrom(ctx context.Context, conn *pgx.Conn, from fs.FS) error {
	all, err := load(from)
	if err != nil {
		return err
	}
	return apply(ctx, conn, all)
}

// CheckFrom is Check with other files.
func CheckFrom(ctx context.Context, conn *pgx.Conn, from fs.FS) error {
	all, err := load(from)
	if err != nil {
		return err
	}
	return check(ctx, conn, all)
}

// StepBackAfter has migrations wait less long for a table in use.
func StepBackAfter(t *testing.T, wait time.Duration) {
	t.Helper()
	before := lockWait
	lockWait = wait
	t.Cleanup(func() { lockWait = before })
}
