package postgres

import (
	"errors"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"

	"plane/migrations"
)

// hopeless are the server's answers that waiting does not change: somebody has
// to set something right. That a role or a password is refused is among them.
var hopeless = []string{
	"28000", // invalid_authorization_specification
	"28P01", // invalid_password
	"3D000", // invalid_catalog_name: there is no such database
	"42501", // insufficient_privilege
	"0A000", // feature_not_supported, as by a server that is too old
	"42601", // syntax_error, the same
}

// Hopeless reports whether an error of Migrate or Open will be the same when it
// is tried again: the settings are wrong, or database and program do not go
// together. Every other error is one of the moment.
func Hopeless(err error) bool {
	for _, sentinel := range []error{ErrConfig, migrations.ErrNewer, migrations.ErrAltered} {
		if errors.Is(err, sentinel) {
			return true
		}
	}
	var answer *pgconn.PgError
	return errors.As(err, &answer) && slices.Contains(hopeless, answer.Code)
}
