// Package durable holds what several adapters need of the file system: files
// that are replaced whole and survive a power cut, and locks that end with the
// process. It keeps no state and may be called from any goroutine; two writers
// of one path have to agree among themselves.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrLocked: another process holds the lock.
var ErrLocked = errors.New("locked by another process")

// WriteFile replaces the file whole, readable by its owner only. When it
// returns nil the content is on disk; after an error or a crash the old content
// is there, or the new.
func WriteFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return SyncDir(filepath.Dir(path))
}

// Sweep removes what writers of the path have left that a crash has ended. Nobody
// may be writing.
func Sweep(path string) error {
	dir, prefix := filepath.Dir(path), "."+filepath.Base(path)+"."
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		made, ok := strings.CutPrefix(e.Name(), prefix)
		if !ok || made == "" || strings.Trim(made, "0123456789") != "" {
			continue // none of WriteFile's
		}
		if err := Remove(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// Remove deletes the file, if it is there, for good.
func Remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes what was created, renamed and removed in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Lock takes the lock that belongs to the file at path, which it makes when it
// is not there; ErrLocked when another holder has it. The lock ends when the
// file is closed or the process ends, however that happens.
func Lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := LockFile(f); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	return f, nil
}

// LockFile takes the lock of a file that is open for writing, or returns
// ErrLocked.
func LockFile(f *os.File) error {
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return ErrLocked
	}
	return err
}

// Unlock lets go of the lock at once and closes the file. Closing alone is not
// enough where others wait: a child that is being forked has the file open too
// for a moment.
func Unlock(f *os.File) error {
	lock := unix.Flock_t{Type: unix.F_UNLCK}
	return errors.Join(unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &lock), f.Close())
}

// Locked reports whether another holder has the file's lock, without taking it
// for even a moment.
func Locked(f *os.File) (bool, error) {
	lock := unix.Flock_t{Type: unix.F_WRLCK}
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock)
	return lock.Type != unix.F_UNLCK, err
}
