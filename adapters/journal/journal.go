// Package journal keeps what a drone must not forget in SQLite files: its
// Journal, and, in a file that all drones of the machine share, the Ports.
//
// What a method wrote is on disk when it returns nil (write-ahead log, one sync
// for each transaction). After a crash at any moment each file holds exactly
// the transactions that were committed. Methods may be called from any
// goroutine; they take turns. A file that is damaged, or was written by a newer
// version, is refused at opening, with what to do about it; a full disk fails
// the call that met it, and the calls after it work again once there is room.
//
// Files are readable by their owner only: a journal holds the environment and
// the static tokens of backends. No error of this package shows a row's
// content.
package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"plane/adapters/internal/durable"
	"plane/system/backend"
	"plane/system/port"
)

// Journal is a drone's memory on disk; it implements port.Journal. Exactly one
// process has it open: two agents with one journal would both act on it.
type Journal struct {
	file *file
	lock *os.File
}

var migrations = []string{`
	CREATE TABLE record (
		backend_id TEXT PRIMARY KEY,
		terminated INTEGER NOT NULL,
		content    TEXT NOT NULL
	) STRICT;
	CREATE TABLE event (
		id         INTEGER PRIMARY KEY AUTOINCREMENT, -- an id is never used twice
		backend_id TEXT NOT NULL,
		content    TEXT NOT NULL
	) STRICT;
	CREATE INDEX event_backend ON event (backend_id);`,
}

// Open opens the journal at path, or makes it, with its directory. It fails
// when another process has it open.
func Open(path string) (*Journal, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	lock, err := durable.Lock(path + ".lock")
	if errors.Is(err, durable.ErrLocked) {
		return nil, fmt.Errorf("journal %s is in use by another drone agent: stop that one, or give this one a journal of its own", path)
	}
	if err != nil {
		return nil, fmt.Errorf("journal: %w", err)
	}
	f, err := openFile(path, "move the file and its -wal and -shm neighbours away and start again: the drone will begin with an empty journal and end the backends that it no longer knows", migrations)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("journal: %w", err), durable.Unlock(lock))
	}
	return &Journal{file: f, lock: lock}, nil
}

// Close closes the journal and lets another process open it.
func (j *Journal) Close() error { return errors.Join(j.file.close(), durable.Unlock(j.lock)) }

// Put implements port.Journal.
func (j *Journal) Put(ctx context.Context, rec port.Record, event *port.Event) (eventID int64, err error) {
	content, err := encodeRecord(rec)
	if err != nil {
		return 0, err
	}
	err = j.file.write(ctx, "write to journal", func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO record (backend_id, terminated, content) VALUES (?1, ?2, ?3)
			ON CONFLICT (backend_id) DO UPDATE SET terminated = ?2, content = ?3`,
			rec.BackendID, rec.State.Status == backend.Terminated, content)
		if err != nil || event == nil {
			return err
		}
		eventID, err = insertEvent(ctx, tx, *event)
		return err
	})
	if err != nil {
		return 0, err
	}
	return eventID, nil
}

func insertEvent(ctx context.Context, tx *sql.Tx, event port.Event) (int64, error) {
	content, err := encodeEvent(event)
	if err != nil {
		return 0, err
	}
	done, err := tx.ExecContext(ctx, "INSERT INTO event (backend_id, content) VALUES (?, ?)", event.BackendID, content)
	if err != nil {
		return 0, err
	}
	return done.LastInsertId()
}

// Records implements port.Journal.
func (j *Journal) Records(ctx context.Context) (records []port.Record, err error) {
	err = j.file.write(ctx, "read journal", func(tx *sql.Tx) error {
		return each(ctx, tx, "SELECT 0, backend_id, content FROM record ORDER BY backend_id", func(_ int64, id, content string) error {
			rec, err := decodeRecord(content)
			if err != nil {
				return fmt.Errorf("record of backend %s: %w", id, err)
			}
			records = append(records, rec)
			return nil
		})
	})
	return records, err
}

// Events implements port.Journal.
func (j *Journal) Events(ctx context.Context) (events []port.Event, err error) {
	err = j.file.write(ctx, "read journal", func(tx *sql.Tx) error {
		return each(ctx, tx, "SELECT id, backend_id, content FROM event ORDER BY id", func(id int64, backendID, content string) error {
			e, err := decodeEvent(id, backendID, content)
			if err != nil {
				return fmt.Errorf("event %d of backend %s: %w", id, backendID, err)
			}
			events = append(events, e)
			return nil
		})
	})
	return events, err
}

func each(ctx context.Context, tx *sql.Tx, query string, row func(id int64, backendID, content string) error) error {
	rows, err := tx.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close() //nolint:errcheck // Err below tells of everything that matters
	for rows.Next() {
		var id int64
		var backendID, content string
		if err := rows.Scan(&id, &backendID, &content); err != nil {
			return err
		}
		if err := row(id, backendID, content); err != nil {
			return err
		}
	}
	return rows.Err()
}

// Ack implements port.Journal.
func (j *Journal) Ack(ctx context.Context, eventID int64) (backendID string, forgotten bool, err error) {
	err = j.file.write(ctx, "write to journal", func(tx *sql.Tx) error {
		err := tx.QueryRowContext(ctx, "DELETE FROM event WHERE id = ? RETURNING backend_id", eventID).Scan(&backendID)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		done, err := tx.ExecContext(ctx, `DELETE FROM record WHERE backend_id = ?1 AND terminated
			AND NOT EXISTS (SELECT 1 FROM event WHERE backend_id = ?1)`, backendID)
		if err != nil {
			return err
		}
		n, err := done.RowsAffected()
		forgotten = n > 0
		return err
	})
	if err != nil {
		return "", false, err
	}
	return backendID, forgotten, nil
}
