package executor

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// How long the executor may take. Prepare may take as long as its caller lets
// it, and so may Spawn.
const (
	terminateTimeout = 15 * time.Second // one that waits for a soft end has 10 s for it in 0.5
	waitTimeout      = 10 * time.Minute // of a WaitForBackend, which probes come back to
	probePatience    = 5 * time.Second  // of one probe
	askAgain         = time.Second      // after a Terminate that found something, for a TerminateEvent
)

// The waits between attempts to connect, and how long a connection has to last
// for the next wait to be short again.
const (
	firstWait = 100 * time.Millisecond
	mostWait  = 5 * time.Second
	lasting   = 5 * time.Second
)

// Config says where the executor is, and where its backends are remembered. Zero
// durations mean the defaults.
type Config struct {
	Socket string
	// File is what is known of the backends: this drone's alone.
	File string
	// IP is the machine's address, as proxies reach it.
	IP  netip.Addr
	Log *slog.Logger

	// LateAnswer is how long the answer to a Spawn may still be under way when
	// whoever asked has given up or died; default 5 s.
	LateAnswer time.Duration
	// VouchEvery is the wait before an executor that does not vouch for a
	// backend is asked again; default 10 s.
	VouchEvery time.Duration
	// Patience is how long a call waits for a connection; default 2 s.
	Patience time.Duration
}

func (c Config) withDefaults() Config {
	for d, value := range map[*time.Duration]time.Duration{
		&c.LateAnswer: 5 * time.Second, &c.VouchEvery: 10 * time.Second, &c.Patience: 2 * time.Second,
	} {
		if *d == 0 {
			*d = value
		}
	}
	return c
}

// Runtime runs backends through an executor; it implements
// port.ContainerRuntime and port.Prober.
type Runtime struct {
	config  Config
	records *records
	exits   exits
	stats   stats
	probes  probes
	starts  turns

	life  context.Context // ends with Close
	close context.CancelFunc
	tasks sync.WaitGroup

	mu   sync.Mutex
	link *link         // nil without a connection
	up   chan struct{} // closed while there is one
	why  error         // there is none
}

// Open reads what is known and begins to connect. It does not wait until the
// executor answers: without it, calls fail.
func Open(c Config) (*Runtime, error) {
	if !c.IP.IsValid() {
		return nil, errors.New("executor: the address of this machine is missing")
	}
	known, err := openRecords(c.File)
	if err != nil {
		return nil, fmt.Errorf("executor: %w", err)
	}
	r := &Runtime{
		config: c.withDefaults(), records: known, exits: newExits(), up: make(chan struct{}), why: errors.New("it was not reached yet"),
	}
	r.life, r.close = context.WithCancel(context.Background())
	r.tasks.Go(r.connect)
	return r, nil
}

// Close ends the connection, and calls with it. Backends go on.
func (r *Runtime) Close() {
	r.close()
	r.tasks.Wait()
}

// connect keeps one connection at a time until Close.
func (r *Runtime) connect() {
	wait := firstWait
	for first := true; r.life.Err() == nil; first = false {
		began := time.Now()
		err := r.session(first)
		if r.life.Err() != nil {
			return
		}
		if time.Since(began) >= lasting {
			wait = firstWait
		}
		r.config.Log.Error("no connection to the executor; trying again", "socket", r.config.Socket, "error", err, "wait", wait)
		if pause(r.life, wait) != nil {
			return
		}
		wait = min(2*wait, mostWait)
	}
}

// session is one connection, from dialling to its end.
func (r *Runtime) session(first bool) error {
	conn, err := dialUnix(r.life, r.config.Socket)
	if err != nil {
		r.mu.Lock()
		r.why = err
		r.mu.Unlock()
		return err
	}
	l := newLink(conn)
	unhook := context.AfterFunc(r.life, func() { conn.Close() }) //nolint:errcheck,gosec // the reader is told
	defer unhook()
	r.mu.Lock()
	r.link = l
	close(r.up)
	r.mu.Unlock()
	r.config.Log.Info("connected to the executor", "socket", r.config.Socket)
	if !first {
		r.exits.gap()
	}
	r.vouchAll(l)
	err = l.read(r.receive, func(what error) { r.config.Log.Debug("skipped a line of the executor", "why", what) })
	r.mu.Lock()
	r.link, r.up, r.why = nil, make(chan struct{}), err
	r.mu.Unlock()
	l.end() // only now: who is told so and tries again finds the next connection
	return err
}

// connection returns the present connection, and waits a moment for one.
func (r *Runtime) connection(ctx context.Context) (*link, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	patience := time.NewTimer(r.config.Patience)
	defer patience.Stop()
	for {
		r.mu.Lock()
		l, up, why := r.link, r.up, r.why
		r.mu.Unlock()
		if l != nil {
			return l, nil
		}
		select {
		case <-up:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-r.life.Done():
			return nil, net.ErrClosed
		case <-patience.C:
			return nil, fmt.Errorf("no connection to the executor at %s: %w", r.config.Socket, why)
		}
	}
}

// receive takes in what the executor says, asked or unasked, in its order.
func (r *Runtime) receive(m message) {
	switch {
	case m.ended != nil:
		r.ended(m.ended.BackendID, m.ended.ExitCode, true)
	case m.metrics != nil:
		if rec, known := r.records.get(m.metrics.BackendID); known && rec.Phase != over {
			r.stats.add(*m.metrics)
		}
	case m.spawned != nil:
		r.spawned(m.id, *m.spawned)
	}
}

// ended notes the end of a backend, once.
func (r *Runtime) ended(backendID string, exitCode *int, told bool) {
	news := false
	err := r.records.update(backendID, func(rec *record, known bool) bool {
		if !known || rec.Phase == over && (rec.Told || !told) {
			return false
		}
		news = rec.Phase != over
		rec.Phase, rec.ExitCode, rec.Told = over, exitCode, told
		return true
	})
	if err != nil {
		r.config.Log.Error("the end of a backend is known, but not written", "backend", backendID, "error", err)
	}
	if news {
		r.stats.forget(backendID)
		r.exits.put(backendID)
	}
}

func (r *Runtime) address(p int) string {
	return netip.AddrPortFrom(r.config.IP, uint16(p)).String() //nolint:gosec // a port
}

// requestID is unique and names the backend, so that an answer can be placed
// when nobody waits for it any more.
func requestID(backendID string) string { return backendID + "/" + rand.Text() }

func backendOf(requestID string) string {
	backendID, _, _ := strings.Cut(requestID, "/")
	return backendID
}

// clip bounds the executor's words and keeps them on one line.
func clip(text string) string {
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText], "") + "…"
	}
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, text)
}

// pause blocks for d, or until the context ends.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
