package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"plane/system/port"
)

// Times of the listening connection.
const (
	quietTime   = 3 * time.Second // without a word, after which it is asked whether it lives
	answerTime  = 2 * time.Second // for its answer
	relistenMin = 100 * time.Millisecond
	relistenMax = 2 * time.Second
)

// maxHints is how many hints wait for a Listener that is behind; when there are
// more they are all replaced by one that stands for any.
const maxHints = 4096

var errListenerClosed = errors.New("listen for hints: closed")

// Listener implements port.Listener on a connection of its own, which is made
// anew whenever it breaks, and which is asked now and then whether it still
// lives. Its first hint is a ResyncTopic: what came before it was not heard.
type Listener struct {
	cfg   Config
	hosts *failover     // of its own connections
	pool  *failover     // of the store's: when these leave a server, so does this
	quiet time.Duration // quietTime

	cancel  context.CancelFunc
	closed  chan struct{} // when the connection is closed for good
	arrived chan struct{} // holds one when there is something for Next

	mu    sync.Mutex
	hints []port.Hint
	cut   error                   // to be told by Next
	leave context.CancelCauseFunc // ends the present connection; nil: there was none yet
}

var _ port.Listener = (*Listener)(nil)

// Listen begins a subscription, which lasts until its Close.
func (s *Store) Listen() *Listener {
	if s.deaf {
		s.cfg.log().Warn("there is a pooler in front of the database; if it works in transaction mode no hint is heard through it, and everything is noticed late: give the listener an address of its own (--db-listen)")
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &Listener{cfg: s.cfg, hosts: s.follow, pool: s.follow, quiet: s.quiet, cancel: cancel, closed: make(chan struct{}), arrived: make(chan struct{}, 1)}
	if s.cfg.listenURL() != s.cfg.URL {
		l.hosts = newFailover()
	}
	go l.run(ctx)
	return l
}

// Next implements port.Listener.
func (l *Listener) Next(ctx context.Context) (port.Hint, error) {
	for {
		if ctx.Err() != nil {
			return port.Hint{}, context.Cause(ctx)
		}
		if h, err, ok := l.take(); ok {
			return h, err
		}
		select {
		case <-l.arrived:
		case <-ctx.Done():
		case <-l.closed:
			return port.Hint{}, errListenerClosed
		}
	}
}

// Close ends the subscription. Harmless twice.
func (l *Listener) Close() {
	l.cancel()
	<-l.closed
}

// take returns what Next has to say, if anything: that the connection was cut
// comes before what a new one has brought.
func (l *Listener) take() (h port.Hint, err error, ok bool) { //nolint:revive,staticcheck // the error is of the answer, not of the asking
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut != nil {
		err, l.cut = l.cut, nil
		return port.Hint{}, err, true
	}
	if len(l.hints) == 0 {
		return port.Hint{}, nil, false
	}
	h = l.hints[0]
	l.hints = l.hints[1:]
	return h, nil, true
}

func (l *Listener) deliver(hints []port.Hint) {
	l.mu.Lock()
	switch {
	case len(l.hints) == 1 && l.hints[0] == resync:
		// Whatever else comes is covered: the look at everything is still to come.
	case len(l.hints)+len(hints) > maxHints:
		l.hints = []port.Hint{resync}
	default:
		l.hints = append(l.hints, hints...)
	}
	l.mu.Unlock()
	l.wake()
}

// cutOff notes that the connection was cut. What it brought is covered by the
// resync that the next one begins with.
func (l *Listener) cutOff(err error) {
	l.mu.Lock()
	l.cut = fmt.Errorf("listen for hints: %w", err)
	l.hints = nil
	l.mu.Unlock()
	l.wake()
}

func (l *Listener) wake() {
	select {
	case l.arrived <- struct{}{}:
	default:
	}
}

// run subscribes again and again. A cut is told once, and not again with each
// try that fails: whoever hears of it looks at everything.
func (l *Listener) run(ctx context.Context) {
	defer close(l.closed)
	defer l.pool.followers.Join(l.depart)()
	told := false
	for pause := relistenMin; ; pause = min(2*pause, relistenMax) {
		listened, err := l.subscribe(ctx)
		if ctx.Err() != nil {
			return
		}
		if listened {
			pause, told = relistenMin, false
		}
		if !told {
			l.cutOff(err)
			told = true
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// subscribe listens on a connection until it breaks, or the store's connections
// leave their server: a former primary tells nothing any more, and its
// connections may live for ever. It reports whether there was one.
func (l *Listener) subscribe(ctx context.Context) (listened bool, err error) {
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	l.mu.Lock()
	l.leave = leave
	l.mu.Unlock()
	conn, err := l.connect(ctx)
	if err != nil {
		return false, err
	}
	defer closeNow(conn)
	l.deliver([]port.Hint{resync})
	return true, l.receive(ctx, conn)
}

var errDeparted = errors.New("the database has left that server")

// depart ends the present connection, or the try to make one.
func (l *Listener) depart() {
	l.mu.Lock()
	leave := l.leave
	l.mu.Unlock()
	if leave != nil {
		leave(errDeparted)
	}
}

// connect makes a connection that listens.
func (l *Listener) connect(ctx context.Context) (*pgx.Conn, error) {
	p, err := l.cfg.parse(l.cfg.listenURL())
	if err != nil {
		return nil, err
	}
	cc := p.ConnConfig
	l.hosts.remember(&cc.Config)
	l.hosts.order(cc)
	pooled(cc)
	conn, err := pgx.ConnectConfig(ctx, cc)
	if err != nil {
		return nil, discreet(err, cc)
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	if _, err := conn.Exec(ctx, "listen "+channel); err != nil {
		closeNow(conn)
		return nil, discreet(err, cc)
	}
	return conn, nil
}

// receive delivers hints until the connection breaks. One that says nothing for
// a while is asked something, since a peer that has gone without a word cannot
// be told from one that has nothing to say.
func (l *Listener) receive(ctx context.Context, conn *pgx.Conn) error {
	for {
		waiting, cancel := context.WithTimeout(ctx, l.quiet)
		n, err := conn.WaitForNotification(waiting)
		quiet := waiting.Err() != nil
		cancel()
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err == nil:
			l.deliver(unpack(n.Payload))
		case !quiet || conn.IsClosed():
			return err
		default:
			asking, cancel := context.WithTimeout(ctx, answerTime)
			err := conn.Ping(asking)
			cancel()
			if err != nil {
				return fmt.Errorf("the connection has died: %w", err)
			}
		}
	}
}

// closeNow closes a connection that may be dead.
func closeNow(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_ = conn.Close(ctx)
}
