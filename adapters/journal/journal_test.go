package journal

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"plane/system/backend"
	"plane/system/port"
	"plane/system/porttest"
)

var _ port.Journal = (*Journal)(nil)

// writerEnv makes the test program a process that writes to the journal at its
// value until it is killed.
const writerEnv = "PLANE_TEST_JOURNAL"

func TestMain(m *testing.M) {
	if path := os.Getenv(writerEnv); path != "" {
		os.Exit(writeUntilKilled(path))
	}
	os.Exit(m.Run())
}

func TestJournal(t *testing.T) {
	porttest.Journal(t, func(t *testing.T) (port.Journal, func() port.Journal) {
		path := filepath.Join(t.TempDir(), "journal.db")
		j := mustOpen(t, path)
		return j, func() port.Journal {
			require.NoError(t, j.Close())
			j = mustOpen(t, path)
			return j
		}
	})
}

func mustOpen(t *testing.T, path string) *Journal {
	t.Helper()
	j, err := Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func TestOnlyTheOwnerReadsIt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "plane")
	j := mustOpen(t, filepath.Join(dir, "journal #1?.db"))
	_, err := j.Put(t.Context(), port.Record{BackendID: "b"}, nil)
	require.NoError(t, err)
	info, err := os.Stat(dir)
	require.NoError(t, err)
	require.Equal(t, "drwx------", info.Mode().String())
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, files, 4, "file, log, index of the log, lock")
	for _, f := range files {
		info, err := f.Info()
		require.NoError(t, err)
		require.Equal(t, "-rw-------", info.Mode().String(), f.Name())
	}
}

func TestSecondAgentIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	j := mustOpen(t, path)
	_, err := Open(path)
	require.ErrorContains(t, err, "in use by another drone agent")
	require.NoError(t, j.Close())
	mustOpen(t, path)
}

func TestBadFilesAreRefusedWithAdvice(t *testing.T) {
	for _, test := range []struct {
		name, want string
		spoil      func(t *testing.T, path string)
	}{
		{"not a database", "move the file", func(t *testing.T, path string) {
			require.NoError(t, os.WriteFile(path, []byte(strings.Repeat("nonsense ", 1000)), 0o600))
		}},
		{"a page overwritten", "move the file", func(t *testing.T, path string) {
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			require.NoError(t, err)
			_, err = f.WriteAt([]byte(strings.Repeat("x", 8192)), 4096)
			require.NoError(t, errors.Join(err, f.Close()))
		}},
		{"a newer schema", "newer version of plane", func(t *testing.T, path string) {
			db, err := sql.Open("sqlite", path)
			require.NoError(t, err)
			_, err = db.Exec("PRAGMA user_version = 1000")
			require.NoError(t, errors.Join(err, db.Close()))
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "journal.db")
			require.NoError(t, mustOpen(t, path).Close())
			test.spoil(t, path)
			_, err := Open(path)
			require.ErrorContains(t, err, test.want)
			require.ErrorContains(t, err, path)
		})
	}
}

func TestFullDiskFailsTheCallAndNothingElse(t *testing.T) {
	j := mustOpen(t, filepath.Join(t.TempDir(), "journal.db"))
	small := port.Record{BackendID: "small", State: backend.State{Status: backend.Ready}}
	_, err := j.Put(t.Context(), small, nil)
	require.NoError(t, err)
	var pages int
	require.NoError(t, j.file.db.QueryRow("PRAGMA page_count").Scan(&pages))
	_, err = j.file.db.Exec(fmt.Sprintf("PRAGMA max_page_count = %d", pages+1))
	require.NoError(t, err)

	_, err = j.Put(t.Context(), port.Record{BackendID: "big", Boot: strings.Repeat("x", 100_000)}, nil)
	require.ErrorContains(t, err, "make room on the disk")

	_, err = j.Put(t.Context(), small, nil)
	require.NoError(t, err)
	records, err := j.Records(t.Context())
	require.NoError(t, err)
	require.Len(t, records, 1)
}

func TestEndedContextGivesItsCause(t *testing.T) {
	j := mustOpen(t, filepath.Join(t.TempDir(), "journal.db"))
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("because")
	cancel(why)
	_, err := j.Put(ctx, port.Record{BackendID: "b"}, nil)
	require.ErrorIs(t, err, why)
}

// TestKilledWriter kills a process in the middle of its writes: everything that
// it was told is durable must be there, and record and event always together.
func TestKilledWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	for round := range 3 {
		told := killAfter(t, path, 20)
		j := mustOpen(t, path)
		records, err := j.Records(t.Context())
		require.NoError(t, err)
		events, err := j.Events(t.Context())
		require.NoError(t, err)
		require.Len(t, records, 1)
		require.NotEmpty(t, events, round)
		last := events[len(events)-1]
		require.GreaterOrEqual(t, last.ID, told, "an event was told durable and is lost")
		require.Equal(t, last.State.Message, records[0].State.Message, "record and event are of one transaction")
		require.NoError(t, j.Close())
	}
}

// killAfter starts a writer, kills it once it has told of n writes, and returns
// the last event that it told.
func killAfter(t *testing.T, path string, n int) (told int64) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), writerEnv+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		told, err = strconv.ParseInt(lines.Text(), 10, 64)
		require.NoError(t, err)
		if n--; n == 0 {
			require.NoError(t, cmd.Process.Kill())
		}
	}
	require.Error(t, cmd.Wait(), "killed")
	require.LessOrEqual(t, n, 0)
	return told
}

func writeUntilKilled(path string) int {
	j, err := Open(path)
	for n := 0; err == nil; n++ {
		rec := port.Record{BackendID: "b", State: backend.State{Status: backend.Terminated, Message: fmt.Sprint(os.Getpid(), n)}}
		var id int64
		id, err = j.Put(context.Background(), rec, &port.Event{BackendID: "b", State: rec.State})
		fmt.Fprintln(os.Stdout, id)
	}
	fmt.Fprintln(os.Stderr, err)
	return 1
}
