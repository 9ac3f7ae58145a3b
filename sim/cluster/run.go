package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"plane/sim/check"
	"plane/sim/kernel"
	"plane/sim/world"
)

// Result is what became of a run.
type Result struct {
	Options    Options
	Hash       uint64
	Events     int
	Violations []check.Violation
	Story      []world.Line
	Virtual    time.Duration
	Wall       time.Duration
}

// Run plays one run in the kernel. With story, its lines and the roles' logs
// are kept; the hash is the same either way.
func Run(opt Options, story bool) Result {
	began := time.Now()
	k := kernel.New(opt.Seed)
	defer k.Close()
	k.Trace.Keep = story
	total := opt.Storm + opt.Calm
	logs := &logger{elapsed: k.Elapsed, trace: &k.Trace, keep: story}
	c := New(k, opt, logs.of)
	logs.leak = func(node, text string) { c.Book.Violate("G15", "%s logs a secret: %s", node, text) }
	if err := k.Run(total); err != nil {
		c.Book.Violate("panic", "%v", err)
	}
	return Result{
		Options: opt, Hash: k.Trace.Sum(), Events: k.Events() + k.Switches(), Violations: c.Book.Violations,
		Story: k.Trace.Lines, Virtual: total, Wall: time.Since(began),
	}
}

// logger gives the roles their logs: lines of the story when one is kept, and
// always a look for secrets (G15).
type logger struct {
	elapsed func() time.Duration
	trace   *world.Trace
	leak    func(node, text string) // called for a line that holds a secret
	keep    bool
}

func (l *logger) of(node string) *slog.Logger {
	return slog.New(&logHandler{l: l, node: node})
}

type logHandler struct {
	l    *logger
	node string
	with string
}

// Enabled implements slog.Handler.
func (h *logHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo
}

// Handle implements slog.Handler.
func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	var line strings.Builder
	fmt.Fprintf(&line, "%s: %s%s", strings.ToLower(r.Level.String()), r.Message, h.with)
	r.Attrs(func(a slog.Attr) bool {
		writeAttr(&line, a)
		return true
	})
	text := line.String()
	if strings.Contains(text, secret) {
		h.l.leak(h.node, text)
	}
	if h.l.keep {
		h.l.trace.Aside(h.l.elapsed(), h.node, text)
	}
	return nil
}

func writeAttr(line *strings.Builder, a slog.Attr) { fmt.Fprintf(line, " %s=%v", a.Key, a.Value) }

// WithAttrs implements slog.Handler.
func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	var line strings.Builder
	for _, a := range attrs {
		writeAttr(&line, a)
	}
	return &logHandler{l: h.l, node: h.node, with: h.with + line.String()}
}

// WithGroup implements slog.Handler.
func (h *logHandler) WithGroup(string) slog.Handler { return h }
