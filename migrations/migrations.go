// Package migrations owns the history of the database's schema: SQL files,
// numbered without gaps, that are applied in order and never taken back.
//
// Apply may be called by any number of processes at once, through a pooler in
// transaction mode too, and while programs of the version before are at work:
// each file is applied whole or not at all, by one process. What was applied is
// kept in plane.migrations with a checksum, so that a file that was changed
// afterwards is noticed.
//
// Every file leaves programs of the version before working: it adds, and what
// has become needless is dropped by a later file. So a program accepts a
// database that is one file ahead of it. A file that older programs can live
// with as well says so in a line of its own,
//
//	-- compatible-with: 3
//
// the number of the newest file that those programs know; and one that no older
// program can live with names itself.
package migrations

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Sentinels of Apply and Check.
var (
	// ErrNewer: a newer program has brought the database to where this one
	// cannot follow.
	ErrNewer = errors.New("the database is newer than this program")
	// ErrOlder: a migration is still to be applied.
	ErrOlder = errors.New("the database's schema is out of date")
	// ErrAltered: an applied migration is not what this program has under its
	// number.
	ErrAltered = errors.New("an applied migration was altered")
)

//go:embed *.sql
var files embed.FS

// lockKey is the advisory lock that the one who migrates holds; its number says
// nothing but is Plane's own.
const lockKey = 0x706c616e65_01

// lockWait is how long a migration waits for a table that is in use before it
// steps back to let others pass: who waits for a table holds up all who come
// after.
var lockWait = 2 * time.Second

// lockAttempts is how often it tries.
const lockAttempts = 30

// Apply brings the database's schema up to date, which changes nothing where it
// is so already. It blocks while another process does the same. After an error
// the schema is as some of the files left it, and Apply may be called again.
func Apply(ctx context.Context, conn *pgx.Conn) error {
	all, err := load(files)
	if err != nil {
		return err
	}
	return apply(ctx, conn, all)
}

// Check returns nil when this program can work with the database as it is, and
// ErrOlder, ErrNewer or ErrAltered when it cannot.
func Check(ctx context.Context, conn *pgx.Conn) error {
	all, err := load(files)
	if err != nil {
		return err
	}
	return check(ctx, conn, all)
}

func check(ctx context.Context, conn *pgx.Conn, all []migration) error {
	done, err := applied(ctx, conn)
	if err != nil {
		return err
	}
	next, err := pending(all, done)
	if err == nil && len(next) > 0 {
		err = fmt.Errorf("%w: %s is to be applied; run plane migrate", ErrOlder, next[0].name)
	}
	return err
}

// migration is one file.
type migration struct {
	number     int
	name       string // of the file
	sql        string
	checksum   string
	compatible int // programs whose newest file has this number, or a greater one, can work with it
}

var (
	fileName       = regexp.MustCompile(`^(\d{4})_[a-z0-9_]+\.sql$`)
	compatibleWith = regexp.MustCompile(`(?m)^-- compatible-with: (\d+)$`)
)

// load reads the files, in order.
func load(from fs.FS) ([]migration, error) {
	names, err := fs.Glob(from, "*.sql")
	if err != nil {
		return nil, fmt.Errorf("read migrations: %w", err)
	}
	var all []migration
	for i, name := range names {
		text, err := fs.ReadFile(from, name)
		if err != nil {
			return nil, fmt.Errorf("read migrations: %w", err)
		}
		match := fileName.FindStringSubmatch(name)
		if match == nil || match[1] != fmt.Sprintf("%04d", i+1) {
			return nil, fmt.Errorf("migration %s: want a name like %04d_what_it_does.sql, in order and without gaps", name, i+1)
		}
		sum := sha256.Sum256(text)
		m := migration{number: i + 1, name: name, sql: string(text), checksum: hex.EncodeToString(sum[:]), compatible: i}
		if c := compatibleWith.FindStringSubmatch(m.sql); c != nil {
			if m.compatible, err = strconv.Atoi(c[1]); err != nil || m.compatible > m.number {
				return nil, fmt.Errorf("migration %s: compatible-with: want a number up to %d, not %s", name, m.number, c[1])
			}
		}
		all = append(all, m)
	}
	return all, nil
}

// record is a migration that the database has.
type record struct {
	number     int
	name       string
	checksum   string
	compatible int
}

// applied returns what the database has, in order; nothing where it was never
// migrated.
func applied(ctx context.Context, q querier) ([]record, error) {
	there, err := begun(ctx, q)
	if err != nil || !there {
		return nil, err
	}
	rows, err := q.Query(ctx, "select number, name, checksum, compatible from plane.migrations order by number", pgx.QueryExecModeExec)
	if err != nil {
		return nil, wrap("read applied migrations", err)
	}
	done, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r record, err error) {
		err = row.Scan(&r.number, &r.name, &r.checksum, &r.compatible)
		return r, err
	})
	return done, wrap("read applied migrations", err)
}

// begun reports whether migrations were ever noted. It looks at the rows of the
// catalogue: to_regclass may answer from what the session remembers from before
// it waited for the lock.
func begun(ctx context.Context, q querier) (there bool, err error) {
	err = q.QueryRow(ctx, "select exists (select from pg_tables where schemaname = 'plane' and tablename = 'migrations')", pgx.QueryExecModeExec).Scan(&there)
	return there, wrap("look for migrations", err)
}

// querier is a connection or a transaction.
type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// pending returns which of a program's migrations the database lacks, or why
// the two do not fit.
func pending(all []migration, done []record) ([]migration, error) {
	newest := len(all)
	for i, r := range done {
		switch {
		case r.number != i+1:
			return nil, fmt.Errorf("%w: plane.migrations has number %d where %d should be", ErrAltered, r.number, i+1)
		case i >= newest && r.compatible > newest:
			return nil, fmt.Errorf("%w: it has had %s, which programs that end at number %04d cannot work with; use a newer version of plane", ErrNewer, r.name, newest)
		case i < newest && r.checksum != all[i].checksum:
			return nil, fmt.Errorf("%w: %s is not what was applied under that name (%s); applied files are never edited, changes go into a new one", ErrAltered, all[i].name, r.name)
		}
	}
	if len(done) >= newest {
		return nil, nil
	}
	return all[len(done):], nil
}

// apply brings the schema up to date with all.
func apply(ctx context.Context, conn *pgx.Conn, all []migration) error {
	done, err := applied(ctx, conn) // which is all that most callers ever do
	for attempt := 1; ; attempt++ {
		if err != nil {
			return err
		}
		next, err2 := pending(all, done)
		if err2 != nil || len(next) == 0 {
			return err2
		}
		if done, err = step(ctx, conn, all); isLockTimeout(err) && attempt < lockAttempts {
			done, err = applied(ctx, conn)
		}
	}
}

// step applies the first migration that is missing, if one still is once the
// lock is held, and returns what the database has then.
func step(ctx context.Context, conn *pgx.Conn, all []migration) (done []record, err error) {
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if err := prepare(ctx, tx); err != nil {
			return err
		}
		if done, err = applied(ctx, tx); err != nil {
			return err
		}
		next, err := pending(all, done)
		if err != nil || len(next) == 0 {
			return err
		}
		m := next[0]
		if err := execute(ctx, tx, m.sql); err != nil {
			return fmt.Errorf("apply migration %s: %w", m.name, err)
		}
		_, err = tx.Exec(ctx, "insert into plane.migrations (number, name, checksum, compatible) values ($1, $2, $3, $4)",
			pgx.QueryExecModeExec, m.number, m.name, m.checksum, m.compatible)
		done = append(done, record{m.number, m.name, m.checksum, m.compatible})
		return wrap("note migration "+m.name, err)
	})
	return done, err
}

// prepare takes the lock for the rest of the transaction, however long another
// holds it, and makes the place where migrations are noted.
func prepare(ctx context.Context, tx pgx.Tx) error {
	err := execute(ctx, tx, fmt.Sprintf(`
		set local statement_timeout = 0;
		set local lock_timeout = 0;
		set local idle_in_transaction_session_timeout = 0;
		set local client_min_messages = warning;
		select pg_advisory_xact_lock(%d);
		set local lock_timeout = %d;`, lockKey, lockWait.Milliseconds()))
	if err != nil {
		return fmt.Errorf("wait for another migration: %w", err)
	}
	there, err := begun(ctx, tx)
	if err != nil || there {
		return err
	}
	return wrap("make the schema plane (the user needs the right to create in this database)", execute(ctx, tx, bookkeeping))
}

const bookkeeping = `
create schema if not exists plane;
create table plane.migrations (
	number int primary key,
	name text not null,
	checksum text not null,
	compatible int not null,
	applied_at timestamptz not null default now()
);
comment on table plane.migrations is 'The migrations that this database has had; one row for each file.';
comment on column plane.migrations.number is 'The number in front of the file''s name.';
comment on column plane.migrations.name is 'The file''s name.';
comment on column plane.migrations.checksum is 'SHA-256 of the file as it was applied, in hexadecimal.';
comment on column plane.migrations.compatible is 'Programs whose newest migration has this number, or a greater one, can work with the database once it has had this one.';
comment on column plane.migrations.applied_at is 'When it was applied, by the database''s wall clock.';
`

// execute runs statements that have no parameters and whose answers nobody
// needs.
func execute(ctx context.Context, tx pgx.Tx, sql string) error {
	_, err := tx.Conn().PgConn().Exec(ctx, sql).ReadAll()
	return err
}

func isLockTimeout(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "55P03"
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// Fingerprint is another text whenever a migration is another one.
func Fingerprint() (string, error) {
	all, err := load(files)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	for _, m := range all {
		sum.Write([]byte(m.checksum))
	}
	return hex.EncodeToString(sum.Sum(nil))[:16], nil
}
