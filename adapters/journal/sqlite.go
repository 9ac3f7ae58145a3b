package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// file is one SQLite file, with what is said about it in errors.
type file struct {
	db   *sql.DB
	path string
	// ifDamaged tells the reader of an error what to do about a damaged file.
	ifDamaged string
}

// openFile opens or makes the file and brings its schema up to date. There is
// one connection, so one statement at a time.
func openFile(path, ifDamaged string, migrations []string) (*file, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if err := private(path); err != nil {
		return nil, err
	}
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: "_txlock=immediate" +
		"&_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)"}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	db.SetMaxOpenConns(1)
	f := &file{db: db, path: path, ifDamaged: ifDamaged}
	if err := f.prepare(migrations); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return f, nil
}

// private makes sure that the file is there and that only its owner reads it.
// SQLite gives its write-ahead log the same mode.
func private(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o600), f.Close())
}

// prepare checks that the file is sound and applies the migrations that it has
// not seen. They are only ever appended to; user_version counts them.
func (f *file) prepare(migrations []string) error {
	ctx := context.Background()
	return f.write(ctx, "open", func(tx *sql.Tx) error {
		var verdict string
		if err := tx.QueryRow("PRAGMA quick_check(1)").Scan(&verdict); err != nil {
			return err
		}
		if verdict != "ok" {
			return fmt.Errorf("%w: %s", errDamaged, verdict)
		}
		var version int
		if err := tx.QueryRow("PRAGMA user_version").Scan(&version); err != nil {
			return err
		}
		if version > len(migrations) {
			return fmt.Errorf("it was written by a newer version of plane (schema %d, this one knows %d): run that version, or a later one", version, len(migrations))
		}
		for _, m := range migrations[version:] {
			if _, err := tx.Exec(m); err != nil {
				return fmt.Errorf("migrate: %w", err)
			}
		}
		_, err := tx.Exec(fmt.Sprintf("PRAGMA user_version = %d", len(migrations)))
		return err
	})
}

var errDamaged = errors.New("damaged")

// write runs fn in one transaction. Once it returns nil, what fn did is on
// disk.
func (f *file) write(ctx context.Context, operation string, fn func(tx *sql.Tx) error) error {
	tx, err := f.db.BeginTx(ctx, nil)
	if err != nil {
		return f.explain(ctx, operation, err)
	}
	if err := fn(tx); err != nil {
		if rollback := tx.Rollback(); rollback != nil && !errors.Is(rollback, sql.ErrTxDone) {
			err = errors.Join(err, rollback)
		}
		return f.explain(ctx, operation, err)
	}
	if err := tx.Commit(); err != nil {
		return f.explain(ctx, operation, err)
	}
	return nil
}

// explain says which file, and for the troubles that people have to act on,
// what to do.
func (f *file) explain(ctx context.Context, operation string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var advice string
	var code *sqlite.Error
	errors.As(err, &code)
	switch {
	case errors.Is(err, errDamaged), code != nil && (code.Code()&0xff == sqlite3.SQLITE_CORRUPT || code.Code() == sqlite3.SQLITE_NOTADB):
		advice = "; " + f.ifDamaged
	case code != nil && code.Code()&0xff == sqlite3.SQLITE_FULL:
		advice = "; make room on the disk"
	case code != nil && code.Code()&0xff == sqlite3.SQLITE_BUSY:
		advice = "; another program has kept the file locked for 10 s"
	}
	return fmt.Errorf("%s %s: %w%s", operation, f.path, err, advice)
}

func (f *file) close() error { return f.db.Close() }
