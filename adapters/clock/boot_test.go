package clock_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/clock"
	"plane/system/port"
)

var (
	_ port.Clock   = (*clock.Boot)(nil)
	_ port.Boot    = (*clock.Boot)(nil)
	_ port.Boot    = clock.Machine{}
	_ clock.Source = clock.Machine{}
)

// source is a machine whose time is moved by hand.
type source struct {
	since time.Duration
	boot  string
	wall  time.Time
}

func (s *source) SinceBoot() time.Duration { return s.since }
func (s *source) BootID() string           { return s.boot }
func (s *source) Wall() time.Time          { return s.wall }

var noon = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

func openBoot(t *testing.T, s clock.Source, dir string) *clock.Boot {
	t.Helper()
	b, err := clock.OpenBootOn(s, dir)
	require.NoError(t, err)
	return b
}

func TestBootNeverGoesBack(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(s *source)
		// from and to are when, after noon, the clock may go on.
		from, to time.Duration
	}{
		{"process restarts", func(*source) {}, 10 * time.Minute, 10 * time.Minute},
		{"wall clock is set back", func(s *source) { s.wall = s.wall.Add(-24 * time.Hour) }, 10 * time.Minute, 10 * time.Minute},
		{"wall clock is set forward", func(s *source) { s.wall = s.wall.Add(24 * time.Hour) }, 10 * time.Minute, 10 * time.Minute},
		{"machine boots", func(s *source) { *s = source{time.Second, "two", noon.Add(time.Hour)} }, time.Hour, time.Hour},
		{"machine boots with a wall clock that is behind", func(s *source) { *s = source{time.Second, "two", noon.Add(-time.Hour)} },
			10 * time.Minute, 11 * time.Minute},
		{"machine is put back to a snapshot", func(s *source) { s.since -= 9 * time.Minute; s.wall = noon },
			10 * time.Minute, 11 * time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			s := &source{since: time.Hour, boot: "one", wall: noon}
			b := openBoot(t, s, dir)
			require.True(t, noon.Equal(b.Now()))
			// In steps past the mark each time, so that it is moved at once.
			for range 5 {
				s.since += 2 * time.Minute
				b.Now()
			}
			before := b.Now()
			require.True(t, noon.Add(10*time.Minute).Equal(before))

			test.change(s)
			after := openBoot(t, s, dir).Now()
			require.False(t, after.Before(before), "%v is before %v", after, before)
			require.False(t, after.Before(noon.Add(test.from)), after)
			require.False(t, after.After(noon.Add(test.to)), after)
		})
	}
}

func TestBootShowsNothingBeyondTheMark(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s := &source{since: time.Hour, boot: "one", wall: noon}
		b := openBoot(t, s, dir)
		// In small steps the mark is moved in the background.
		for range 200 {
			s.since += time.Second
			last := b.Now()
			synctest.Wait()
			reborn := openBoot(t, &source{boot: "two", wall: noon.Add(-time.Hour)}, copyOf(t, dir))
			require.False(t, reborn.Now().Before(last))
		}
	})
}

func copyOf(t *testing.T, dir string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, "clock.json"))
	require.NoError(t, err)
	dst := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dst, "clock.json"), content, 0o600))
	return dst
}

func TestBootGoesOnWhenTheDiskDoesNot(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := &source{since: time.Hour, boot: "one", wall: noon}
	b := openBoot(t, s, dir)
	require.NoError(t, os.RemoveAll(dir))
	s.since += time.Hour
	require.True(t, noon.Add(time.Hour).Equal(b.Now()))
	require.NoError(t, os.Mkdir(dir, 0o700))
	s.since += time.Hour
	b.Now()
	require.FileExists(t, filepath.Join(dir, "clock.json"), "it is tried again")
}

func TestBootRefusesADamagedFile(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "clock.json"), []byte("{"), 0o600))
	_, err := clock.OpenBoot(dir)
	require.ErrorContains(t, err, "is damaged")
	require.ErrorContains(t, err, "remove the file")
}

func TestBootTimeIsWhenTheClockShowsIt(t *testing.T) {
	s := &source{since: time.Hour, boot: "one", wall: noon}
	b := openBoot(t, s, t.TempDir())
	at := b.BootTime(noon.Add(time.Minute))
	require.Equal(t, time.Hour+time.Minute, at)
	s.since = at
	require.True(t, noon.Add(time.Minute).Equal(b.Now()))
}

// bubble is a machine in a bubble, with a suspension that Go's timers do not
// notice.
type bubble struct {
	start     time.Time
	suspended atomic.Int64 // ns
}

func (s *bubble) SinceBoot() time.Duration {
	return time.Since(s.start) + time.Duration(s.suspended.Load())
}
func (s *bubble) BootID() string  { return "one" }
func (s *bubble) Wall() time.Time { return time.Now() }

func TestBootSleeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &bubble{start: time.Now()}
		b := openBoot(t, s, t.TempDir())
		start := time.Now()
		require.NoError(t, b.Sleep(t.Context(), 90*time.Second))
		require.Equal(t, 90*time.Second, time.Since(start))
		require.NoError(t, b.SleepUntil(t.Context(), b.Now().Add(90*time.Second)))
		require.Equal(t, 180*time.Second, time.Since(start))
		require.NoError(t, b.SleepUntil(t.Context(), b.Now().Add(-time.Hour)))
		require.Equal(t, 180*time.Second, time.Since(start))

		why := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(why) })
		require.ErrorIs(t, b.Sleep(ctx, time.Hour), why)

		ctx, end := b.WithDeadline(t.Context(), b.Now().Add(time.Minute))
		defer end()
		<-ctx.Done()
		require.ErrorIs(t, context.Cause(ctx), context.DeadlineExceeded)
		require.Equal(t, 241*time.Second, time.Since(start))
	})
}

func TestBootSleepCountsSuspension(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &bubble{start: time.Now()}
		b := openBoot(t, s, t.TempDir())
		start := time.Now()
		done := make(chan error)
		go func() { done <- b.Sleep(t.Context(), time.Hour) }()
		synctest.Wait()
		s.suspended.Store(int64(time.Hour))
		require.NoError(t, <-done)
		require.LessOrEqual(t, time.Since(start), 2*time.Second)
	})
}

func TestMachine(t *testing.T) {
	m, err := clock.NewMachine()
	require.NoError(t, err)
	require.NotEmpty(t, m.BootID())
	first := m.SinceBoot()
	require.Positive(t, first)
	require.GreaterOrEqual(t, m.SinceBoot(), first)
}
