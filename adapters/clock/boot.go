package clock

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"plane/adapters/internal/durable"
)

// Source is what a machine knows of time.
type Source interface {
	// SinceBoot is the time since the machine was started. It counts while the
	// machine is suspended, and nobody can set it.
	SinceBoot() time.Duration
	// BootID is another text after each boot of the machine.
	BootID() string
	// Wall is the time of day, which anybody may have set to anything.
	Wall() time.Time
}

// Machine is this machine's Source.
type Machine struct{ bootID string }

// NewMachine reads which boot this is.
func NewMachine() (Machine, error) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Machine{}, fmt.Errorf("find out which boot of the machine this is: %w", err)
	}
	return Machine{bootID: string(bytes.TrimSpace(id))}, nil
}

// SinceBoot implements Source.
func (Machine) SinceBoot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(fmt.Sprintf("clock: CLOCK_BOOTTIME: %v", err)) // every Linux since 2.6.39 has it
	}
	return time.Duration(ts.Nano())
}

// BootID implements Source and port.Boot.
func (m Machine) BootID() string { return m.bootID }

// Wall implements Source.
func (Machine) Wall() time.Time { return time.Now() }

// Boot is a drone's clock. It never goes back: not when the wall clock is
// stepped, for it is the time since boot plus a number that is kept in a file;
// not when the process restarts, for the number is; and not when the machine
// does, for no time is shown that a mark in the file does not lie beyond, and
// the clock goes on from that mark or the wall clock, whichever is later.
//
// Should the mark be impossible to write (the disk is full), the clock goes on
// and an error is logged: it could then go back if the machine boots before
// the disk works again, and its wall clock is wrong too.
//
// It implements port.Clock and port.Boot.
type Boot struct {
	Source
	path   string
	offset int64 // from the time since boot to the time shown since 1970, in ns

	mark      atomic.Int64 // no time from here on was shown yet, in ns since 1970
	extending atomic.Bool  // a goroutine moves the mark
	mu        sync.Mutex   // held while the mark is moved
	retryAt   int64        // after a failure, under mu
}

const (
	// markAhead is how far the mark is set into the future.
	markAhead = time.Minute
	// markRetry is the least pause between two attempts to write it.
	markRetry = 5 * time.Second
	// longestNap bounds a timer, for Go's do not count while the machine is
	// suspended.
	longestNap = 2 * time.Second
)

// bootState is the file.
type bootState struct {
	BootID string `json:"boot_id"`
	Offset int64  `json:"offset_ns"`
	Mark   int64  `json:"mark_ns"`
}

// OpenBoot opens the clock that is kept in the directory of a drone's journal.
// The journal has to be open, so that no other process has the clock.
func OpenBoot(journalDir string) (*Boot, error) {
	m, err := NewMachine()
	if err != nil {
		return nil, err
	}
	return OpenBootOn(m, journalDir)
}

// OpenBootOn is OpenBoot on another Source.
func OpenBootOn(source Source, journalDir string) (*Boot, error) {
	if err := os.MkdirAll(journalDir, 0o700); err != nil {
		return nil, fmt.Errorf("clock: %w", err)
	}
	b := &Boot{Source: source, path: filepath.Join(journalDir, "clock.json")}
	last, found, err := b.read()
	if err != nil {
		return nil, err
	}
	b.offset = last.Offset
	since := int64(source.SinceBoot())
	// A machine that was put back to a snapshot goes on in the same boot, but
	// earlier.
	wentBack := since+last.Offset < last.Mark-int64(markAhead)
	if !found || last.BootID != source.BootID() || wentBack {
		b.offset = max(source.Wall().UnixNano(), last.Mark) - since
	}
	if err := b.write(since + b.offset); err != nil {
		return nil, fmt.Errorf("clock: %w", err)
	}
	return b, nil
}

func (b *Boot) read() (last bootState, found bool, err error) {
	content, err := os.ReadFile(b.path)
	if errors.Is(err, fs.ErrNotExist) {
		return last, false, nil
	}
	if err != nil {
		return last, false, fmt.Errorf("clock: %w", err)
	}
	if err := json.Unmarshal(content, &last); err != nil {
		return last, false, fmt.Errorf("clock: %s is damaged (%w): make sure that the time of day is right, remove the file and start again", b.path, err)
	}
	return last, true, nil
}

// write puts the mark into the future of now.
func (b *Boot) write(now int64) error {
	mark := now + int64(markAhead)
	content, err := json.Marshal(bootState{BootID: b.BootID(), Offset: b.offset, Mark: mark})
	if err != nil {
		return err
	}
	if err := durable.WriteFile(b.path, content); err != nil {
		return err
	}
	b.mark.Store(mark)
	return nil
}

// Now implements port.Clock. It waits for the disk only when the mark was
// reached before a goroutine could move it, as after a suspension.
func (b *Boot) Now() time.Time {
	now := int64(b.SinceBoot()) + b.offset
	switch mark := b.mark.Load(); {
	case now >= mark:
		b.extend(now)
	case now >= mark-int64(markAhead)/2 && b.extending.CompareAndSwap(false, true):
		go func() {
			defer b.extending.Store(false)
			b.extend(now)
		}()
	}
	return time.Unix(0, now)
}

func (b *Boot) extend(now int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now < b.mark.Load()-int64(markAhead)/2 || now < b.retryAt {
		return
	}
	if err := b.write(now); err != nil {
		b.retryAt = now + int64(markRetry)
		slog.Error("cannot write the clock's mark to disk; make room or repair it before the machine boots again", "error", err)
	}
}

// BootTime returns the time since boot at which the clock shows t. It is
// negative for a time before the boot.
func (b *Boot) BootTime(t time.Time) time.Duration { return time.Duration(t.UnixNano() - b.offset) }

// Sleep implements port.Clock.
func (b *Boot) Sleep(ctx context.Context, d time.Duration) error {
	return b.sleep(ctx, b.SinceBoot()+d)
}

// SleepUntil implements port.Clock.
func (b *Boot) SleepUntil(ctx context.Context, t time.Time) error {
	return b.sleep(ctx, b.BootTime(t))
}

func (b *Boot) sleep(ctx context.Context, until time.Duration) error {
	for {
		left := until - b.SinceBoot()
		if err := Sleep(ctx, min(left, longestNap)); err != nil || left <= longestNap {
			return err
		}
	}
}

// WithDeadline implements port.Clock. The time of a suspension may come on top:
// it is for calls that take too long, not for leases.
func (b *Boot) WithDeadline(ctx context.Context, t time.Time) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, b.BootTime(t)-b.SinceBoot())
}
