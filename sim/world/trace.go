package world

import (
	"fmt"
	"time"
)

// Trace hashes every event of a run as it happens, and keeps the lines of the
// story where someone wants to read them. It is not locked.
type Trace struct {
	hash  uint64
	Keep  bool // keep the lines
	Lines []Line
}

// Line is one line of a run's story.
type Line struct {
	At   time.Duration // true time since Epoch
	Who  string
	What string
}

func (l Line) String() string {
	return fmt.Sprintf("%10.3fs  %-12s %s", l.At.Seconds(), l.Who, l.What)
}

const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

// Mix adds numbers to the hash.
func (t *Trace) Mix(numbers ...uint64) {
	h := t.hash
	if h == 0 {
		h = fnvOffset
	}
	for _, n := range numbers {
		h = (h ^ n) * fnvPrime
		h ^= h >> 29
	}
	t.hash = h
}

// MixString adds a text to the hash.
func (t *Trace) MixString(s string) {
	h := t.hash
	if h == 0 {
		h = fnvOffset
	}
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * fnvPrime
	}
	t.hash = h ^ h>>29
}

// Tell adds a line.
func (t *Trace) Tell(at time.Duration, who, format string, args ...any) {
	what := format
	if len(args) > 0 {
		what = fmt.Sprintf(format, args...)
	}
	t.Mix(uint64(at))
	t.MixString(who)
	t.MixString(what)
	t.Aside(at, who, what)
}

// Aside adds a line to the story that is no event of the trace (a log line).
func (t *Trace) Aside(at time.Duration, who, what string) {
	if t.Keep {
		t.Lines = append(t.Lines, Line{at, who, what})
	}
}

// Sum is the hash of all events so far.
func (t *Trace) Sum() uint64 { return t.hash }
