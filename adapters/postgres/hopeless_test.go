package postgres_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"

	"plane/adapters/postgres"
	"plane/migrations"
)

func TestHopeless(t *testing.T) {
	for _, test := range []struct {
		name string
		err  error
		want bool
	}{
		{"the settings are wrong", postgres.ErrConfig, true},
		{"a wrong password", &pgconn.PgError{Code: "28P01"}, true},
		{"no such database", &pgconn.PgError{Code: "3D000"}, true},
		{"a newer schema", migrations.ErrNewer, true},
		{"an altered schema", migrations.ErrAltered, true},
		{"nobody there", &pgconn.ConnectError{}, false},
		{"the server starts up", &pgconn.PgError{Code: "57P03"}, false},
		{"too many connections", &pgconn.PgError{Code: "53300"}, false},
		{"a schema that another controller brings up to date", migrations.ErrOlder, false},
		{"a cut connection", io.ErrUnexpectedEOF, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.Equal(t, test.want, postgres.Hopeless(fmt.Errorf("open: %w", errors.Join(test.err))))
		})
	}
}

func TestSettingsAreCheckedBeforeAServerIsAsked(t *testing.T) {
	password := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(password, []byte("s3cret\n"), 0o600))
	require.NoError(t, postgres.Config{}.Validate())
	require.NoError(t, postgres.Config{URL: "postgres://u@nowhere.invalid/db", ListenURL: "host=/run dbname=db", PasswordFile: password}.Validate())
	for name, cfg := range map[string]postgres.Config{
		"no URL":           {URL: "postgres://u:s3cret@host:port/db"},
		"no listening URL": {URL: "postgres://u@host/db", ListenURL: "postgres://u:s3cret@host:port/db"},
		"no password file": {URL: "postgres://u@host/db", PasswordFile: password + ".none"},
	} {
		err := cfg.Validate()
		require.ErrorIs(t, err, postgres.ErrConfig, name)
		require.NotContains(t, err.Error(), "s3cret", name)
	}
}

func TestOnThisMachine(t *testing.T) {
	for url, want := range map[string]bool{
		"postgres://u@localhost/db":                         true,
		"postgres://u@127.0.0.1:5433/db":                    true,
		"postgres://u@[::1]/db":                             true,
		"host=/run/postgresql dbname=db":                    true,
		"postgres://u@db.example.com/db":                    false,
		"postgres://u@10.0.0.4/db":                          false,
		"postgres://u@localhost,db2.example.com:5432/db":    false,
		"postgres://u@127.0.0.1:5432,127.0.0.2:5432/db":     true,
		"this is no URL, and we do not know what is there:": false,
	} {
		require.Equal(t, want, postgres.Config{URL: url}.OnThisMachine(), url)
	}
}
