package guard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"
)

// Clock tells the time since boot at which the drone's clock shows t.
type Clock interface {
	BootTime(t time.Time) time.Duration
	BootID() string
}

// ClientConfig says how an agent reaches its guard.
type ClientConfig struct {
	Dir      string // as in the guard's Config
	Clock    Clock
	Launcher Launcher
	Log      *slog.Logger
	// Confirm is how long a call may take in all, with a guard that has to be
	// started first; default 2 s.
	Confirm time.Duration
}

// Client is the agent's side of the guard; it implements port.Guard.
type Client struct {
	config ClientConfig
	turn   chan struct{} // holds one token: a request and its reply at a time
	link   *link         // of whoever has the turn; nil: none

	closing context.Context
	close   context.CancelFunc
	reviver sync.WaitGroup
}

// startTimeout is how long the first guard may take to come up.
const startTimeout = 20 * time.Second

// The pauses between attempts, and between launches: a launch takes a moment.
const (
	dialEvery   = 10 * time.Millisecond
	launchEvery = 300 * time.Millisecond
	reviveEvery = time.Second
)

// Start finds the guard of the directory, or launches it, and keeps it alive
// until Close.
func Start(ctx context.Context, c ClientConfig) (*Client, error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	if c.Confirm == 0 {
		c.Confirm = 2 * time.Second
	}
	client := &Client{config: c, turn: make(chan struct{}, 1)}
	client.closing, client.close = context.WithCancel(context.Background())
	client.turn <- struct{}{}
	if err := client.call(ctx, startTimeout, request{Op: opHello}); err != nil {
		return nil, fmt.Errorf("start the lease guard: %w", err)
	}
	return client, nil
}

// Set implements port.Guard.
func (c *Client) Set(ctx context.Context, backendID string, deadline time.Time) error {
	err := c.call(ctx, c.config.Confirm, request{Op: opSet, Backend: backendID, Boot: c.config.Clock.BootID(), Deadline: c.config.Clock.BootTime(deadline)})
	if err != nil {
		return fmt.Errorf("guard %s: %w", backendID, err)
	}
	return nil
}

// Clear implements port.Guard.
func (c *Client) Clear(ctx context.Context, backendID string) error {
	if err := c.call(ctx, c.config.Confirm, request{Op: opClear, Backend: backendID}); err != nil {
		return fmt.Errorf("end the guarding of %s: %w", backendID, err)
	}
	return nil
}

// Close leaves the guard. If it guards nothing, Close blocks until it has ended,
// for a moment at most; else it goes on guarding.
func (c *Client) Close() error {
	c.close()
	<-c.turn // for good: whoever waits for it gets net.ErrClosed
	c.reviver.Wait()
	if c.link == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.config.Confirm)
	defer cancel()
	err := c.link.exchange(ctx, request{Op: opBye})
	if errors.Is(err, io.EOF) {
		err = nil // it has ended
	}
	return errors.Join(err, c.link.conn.Close())
}

// refusal is a guard's answer that it could not do what was asked.
type refusal string

func (r refusal) Error() string { return string(r) }

// call makes a request, of a guard that is started if there is none, until it
// is answered.
func (c *Client) call(ctx context.Context, limit time.Duration, q request) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer from the lease guard within %v", limit))
	defer cancel()
	select {
	case <-c.turn:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.closing.Done():
		return net.ErrClosed
	}
	defer func() { c.turn <- struct{}{} }()
	var launched time.Time
	for {
		err := c.attempt(ctx, q)
		if refused := refusal(""); err == nil || errors.As(err, &refused) {
			return err
		}
		if ctx.Err() == nil && time.Since(launched) > launchEvery {
			launched = time.Now()
			if err := c.config.Launcher.Launch(ctx); err != nil {
				return fmt.Errorf("launch: %w", err)
			}
		}
		pause := time.NewTimer(dialEvery)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return fmt.Errorf("%w (last: %w)", context.Cause(ctx), err)
		}
	}
}

// attempt makes a request of the guard that there is.
func (c *Client) attempt(ctx context.Context, q request) error {
	if c.link == nil {
		conn, err := dial(ctx, c.config.Dir)
		if err != nil {
			return err
		}
		l := newLink(conn)
		c.link = l
		c.reviver.Go(func() { c.revive(l) })
	}
	err := c.link.exchange(ctx, q)
	if refused := refusal(""); err != nil && !errors.As(err, &refused) && !c.link.owed {
		err = errors.Join(err, c.link.conn.Close())
		c.link = nil
	}
	return err
}

// revive waits for the connection's end, which is likely the guard's, and then
// sees to it that there is a guard again.
func (c *Client) revive(l *link) {
	select {
	case <-l.gone:
	case <-c.closing.Done():
		return
	}
	for {
		err := c.call(c.closing, c.config.Confirm, request{Op: opHello})
		if err == nil || c.closing.Err() != nil {
			return
		}
		c.config.Log.Error("the lease guard is gone and cannot be started; no backend can be started or renewed", "error", err)
		pause := time.NewTimer(reviveEvery)
		select {
		case <-pause.C:
		case <-c.closing.Done():
			pause.Stop()
		}
	}
}

// link is a connection to a guard.
type link struct {
	conn    net.Conn
	replies chan reply
	gone    chan struct{} // closed when the connection has ended
	// owed: the reply to a request that was given up is still to come. The next
	// request waits for it: on another connection it could overtake the first,
	// and a backend be guarded that was cleared afterwards.
	owed bool
}

func newLink(conn net.Conn) *link {
	l := &link{conn: conn, replies: make(chan reply, 1), gone: make(chan struct{})}
	go func() {
		defer close(l.gone)
		in := json.NewDecoder(conn)
		for {
			var r reply
			if in.Decode(&r) != nil {
				return
			}
			l.replies <- r // room for the one that is waited for
		}
	}()
	return l
}

// exchange sends a request and waits for its reply. An error that is no refusal
// means that nothing is known, and io.EOF that the guard has ended.
func (l *link) exchange(ctx context.Context, q request) error {
	if l.owed {
		if _, err := l.receive(ctx); err != nil {
			return err
		}
		l.owed = false
	}
	frame, err := json.Marshal(q)
	if err != nil {
		return err
	}
	deadline, _ := ctx.Deadline() // zero, which is none, where there is none
	if err := l.conn.SetWriteDeadline(deadline); err != nil {
		return err
	}
	if _, err := l.conn.Write(frame); err != nil {
		return err
	}
	r, err := l.receive(ctx)
	switch {
	case err != nil:
		l.owed = !errors.Is(err, io.EOF)
		return err
	case r.Ending:
		return errors.New(r.Error)
	case r.Error != "":
		return refusal(r.Error)
	}
	return nil
}

// receive waits for the next reply. The error is io.EOF when none will come.
func (l *link) receive(ctx context.Context) (reply, error) {
	select {
	case r := <-l.replies:
		return r, nil
	case <-l.gone:
		return reply{}, io.EOF
	case <-ctx.Done():
		return reply{}, context.Cause(ctx)
	}
}
