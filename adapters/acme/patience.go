package acme

import (
	"context"
	"errors"
	"fmt"
	"time"

	"plane/system/port"
)

// Waits between two looks at something that the authority works on, unless it
// says how long.
const (
	firstPoll = 100 * time.Millisecond
	mostPoll  = 5 * time.Second
)

func nextPoll(d time.Duration) time.Duration { return min(d*2, mostPoll) }

// pause waits until it is time to look again: as long as the authority's last
// answer says, or d. Where that is longer than the context lasts there is no use
// in waiting, and the authority is not to be asked before, by nobody.
func (c *client) pause(ctx context.Context, d time.Duration) error {
	if hint := c.wire.retryAfter; hint > 0 {
		if end, ends := ctx.Deadline(); ends && time.Until(end) < hint {
			return fmt.Errorf("wait for the authority: %w", &port.RateLimitError{RetryAfter: hint})
		}
		d = hint
	}
	return wait(ctx, d)
}

// persist asks the authority for something that can be asked for any number of
// times, until it is there to answer.
func (c *client) persist(ctx context.Context, what string, ask func() error) error {
	for pause := firstPoll; ; pause = nextPoll(pause) {
		err := ask()
		if err == nil {
			return nil
		}
		if err = c.wire.explain(what, err); !isPassing(err) {
			return err
		}
		if paused := c.pause(ctx, pause); paused != nil {
			return fmt.Errorf("%w: %w", err, paused)
		}
	}
}

// isPassing reports whether an error says that the authority cannot answer now.
func isPassing(err error) bool {
	var limited *port.RateLimitError
	return errors.Is(err, port.ErrAuthorityAway) || errors.As(err, &limited)
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
