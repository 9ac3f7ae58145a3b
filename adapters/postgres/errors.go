package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
)

// SQLSTATEs that matter; those beginning with PL are of our own functions.
const (
	codeUnique        = "23505"
	codeSerialization = "40001"
	codeDeadlock      = "40P01"
	codeCareful       = "PL001"
	codeNotFound      = "PL404"
)

// attempts is how often a transaction is tried that the server took back, and a
// connect that others were in the way of.
const attempts = 5

func code(err error) string {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code
	}
	return ""
}

// insist calls fn again while the server has taken its transaction back whole
// to let another pass, or the connection was found dead before anything was
// sent. What may have been committed is not tried again here: the caller knows
// what a repetition means by then.
func insist(fn func() error) error {
	for n := 1; ; n++ {
		err := fn()
		if n == attempts {
			return err
		}
		switch code(err) {
		case codeSerialization, codeDeadlock:
		default:
			if _, refused := errors.AsType[*pgconn.ConnectError](err); refused || !pgconn.SafeToRetry(err) || pgconn.Timeout(err) {
				return err
			}
		}
	}
}

// isRefusal reports whether the server has refused a statement because of the
// data in it: another part of the same batch may be fine.
func isRefusal(err error) bool {
	c := code(err)
	if len(c) < 2 {
		return false
	}
	switch c[:2] {
	case "21", "22", "23", "54": // cardinality, data, constraints, limits of the server
		return true
	}
	return false
}

// failed names the operation that failed. When the caller's context has ended,
// that is why.
func failed(ctx context.Context, operation string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return fmt.Errorf("%s: %w", operation, err)
}
