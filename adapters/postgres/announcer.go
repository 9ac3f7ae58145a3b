package postgres

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"plane/system/port"
)

// Times of the announcer.
const (
	gatherTime  = 4 * time.Millisecond   // between two statements
	sendTime    = 2 * time.Second        // for one to take
	retryTime   = 100 * time.Millisecond // after the first that failed; doubled after each
	retryMost   = 2 * time.Second
	closingTime = time.Second // for the last one
)

// maxWaiting is how many hints wait at most; more than that are worth one
// resync.
const maxWaiting = 10_000

// announcer sends hints to all controllers, this one too: in statements of its
// own, each with all that was announced since the one before. A notification in
// each transaction would take one lock for all commits of the database.
//
// Hints that could not be sent are sent again, so they may come twice; too many
// that wait become one resync. Those that wait when the process is killed are
// lost: whoever needs them looks by itself now and then.
type announcer struct {
	pool   *pgxpool.Pool
	log    *slog.Logger
	waits  chan struct{} // holds one when hints wait
	stop   chan struct{}
	closed chan struct{}

	mu    sync.Mutex
	hints []port.Hint // without doubles
	there map[port.Hint]bool
}

func newAnnouncer(pool *pgxpool.Pool, log *slog.Logger) *announcer {
	a := &announcer{
		pool: pool, log: log, waits: make(chan struct{}, 1), stop: make(chan struct{}), closed: make(chan struct{}),
		there: map[port.Hint]bool{},
	}
	go a.run()
	return a
}

// announce has hints sent soon; it never blocks.
func (a *announcer) announce(hints ...port.Hint) {
	if len(hints) == 0 {
		return
	}
	a.add(hints)
	select {
	case a.waits <- struct{}{}:
	default:
	}
}

func (a *announcer) add(hints []port.Hint) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, h := range hints {
		if !a.there[h] && !a.there[resync] {
			a.there[h] = true
			a.hints = append(a.hints, h)
		}
	}
	if len(a.hints) > maxWaiting {
		a.hints = []port.Hint{resync}
		a.there = map[port.Hint]bool{resync: true}
	}
}

func (a *announcer) take() []port.Hint {
	a.mu.Lock()
	defer a.mu.Unlock()
	hints := a.hints
	a.hints = nil
	clear(a.there)
	return hints
}

// close sends what waits and ends the announcer.
func (a *announcer) close() {
	close(a.stop)
	<-a.closed
}

// run sends until close: at once when there was nothing for a while, otherwise
// what has gathered.
func (a *announcer) run() {
	defer close(a.closed)
	failed := 0
	for {
		select {
		case <-a.waits:
		case <-a.stop:
			_ = a.send(closingTime) // whoever misses these looks again by itself
			return
		}
		pause := gatherTime
		if err := a.send(sendTime); err != nil {
			if failed == 0 {
				a.log.Warn("cannot send hints to the other controllers; trying again", "error", err)
			}
			pause = min(retryTime<<min(failed, 10), retryMost)
			failed++
		} else {
			failed = 0
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-a.stop:
			timer.Stop()
		}
	}
}

// send sends what waits, and puts it back if that fails.
func (a *announcer) send(limit time.Duration) error {
	hints := a.take()
	if len(hints) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	_, err := a.pool.Exec(ctx, "select pg_notify($1, payload) from unnest($2::text[]) payload", channel, pack(hints))
	if err != nil {
		a.announce(hints...)
	}
	return err
}
