package executor

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Killer ends backends over a connection of its own: the lease guard's hand.
type Killer struct{ Socket string }

// Kill ends the backend and blocks until the executor says that it does not run.
func (k Killer) Kill(ctx context.Context, backendID string) error {
	conn, err := dialUnix(ctx, k.Socket)
	if err != nil {
		return fmt.Errorf("kill %s: %w", backendID, err)
	}
	l := newLink(conn)
	done := make(chan struct{}, 1)
	var reader sync.WaitGroup
	reader.Go(func() {
		defer l.end()
		l.read(func(m message) { //nolint:errcheck // whoever asks is told that it has ended
			if m.ended != nil && m.ended.BackendID == backendID {
				select {
				case done <- struct{}{}:
				default: // told already
				}
			}
		}, func(error) {})
	})
	defer reader.Wait()
	defer conn.Close() //nolint:errcheck // asked all
	for {
		ran, err := l.terminate(ctx, backendID, true)
		if err != nil {
			return fmt.Errorf("kill %s: %w", backendID, err)
		}
		if !ran {
			return nil
		}
		if err := awaitEnd(ctx, done); err != nil {
			return err
		}
	}
}

// awaitEnd blocks until done gives something, for a while at most: an event can
// be missed, and then asking again tells.
func awaitEnd(ctx context.Context, done <-chan struct{}) error {
	again := time.NewTimer(askAgain)
	defer again.Stop()
	select {
	case <-done:
	case <-again.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return nil
}
