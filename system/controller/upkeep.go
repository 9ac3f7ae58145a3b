package controller

import (
	"context"
	"slices"
	"strings"
	"time"

	"plane/system/backend"
	"plane/system/port"
	"plane/system/protocol"
)

// listenPause is the wait before subscribing again to hints that were cut.
const listenPause = time.Second

// sweepBatch is how many backends one sweep statement ends at most, so that it
// never holds others up for long.
const sweepBatch = 200

const defaultCleanupBatch = 1000

// beat tells the store that this controller lives.
func (c *Controller) beat(ctx context.Context) error {
	info := port.ControllerInfo{Name: c.cfg.Name, Version: c.cfg.Version, PeerURL: c.cfg.PeerURL}
	return c.every(ctx, c.cfg.Timing.Heartbeat, "heartbeat", func(ctx context.Context) (bool, error) {
		return false, c.store.ControllerHeartbeat(ctx, info)
	})
}

// sweep ends idle, expired and lost backends. Each controller does so, and one
// look at all backends serves them all: a controller leaves its own out where
// another's began within four fifths of the interval. (Within all of it would be
// too much. A controller's own last look would then be in the way of its next,
// wherever that comes a little early by the store's clock.) So, as controllers
// come at different times, looks are four to five fifths of the interval apart,
// however many controllers there are. Where one stops, or fails, in the middle of
// its turn, the next to come after those four fifths finds what it has left.
//
// A controller that was told of more goes on at once, whosever turn it is.
func (c *Controller) sweep(ctx context.Context) error {
	params := c.cfg.Timing.SweepParams()
	params.NewActionID = c.newActionID
	goesOn := false
	return c.every(ctx, c.cfg.Timing.Sweep, "sweep", func(ctx context.Context) (more bool, err error) {
		params.SkipIdle = c.storeJustBack()
		params.Every = c.cfg.Timing.Sweep * 4 / 5
		if goesOn {
			params.Every = 0
		}
		_, more, err = c.store.Sweep(ctx, params)
		goesOn = more && err == nil
		return goesOn, err
	})
}

// cleanUp deletes tokens that have expired, and backends that ended long ago if
// these are not to be kept.
func (c *Controller) cleanUp(ctx context.Context) error {
	return c.every(ctx, c.cfg.Timing.Cleanup, "cleanup", func(ctx context.Context) (more bool, err error) {
		n, err := c.store.Cleanup(ctx, c.cfg.CleanupMinAge, c.cfg.CleanupBatch)
		return n == c.cfg.CleanupBatch, err
	})
}

// watchBatch is how many backends one statement looks at.
const watchBatch = 10_000

// lookForEnds tells those who wait for news of a backend that has ended, in case
// nobody has: a controller that stops between a commit and its hint tells nobody,
// and proxies must not keep routes to what is gone.
func (c *Controller) lookForEnds(ctx context.Context) error {
	return c.every(ctx, c.cfg.Timing.WatchPoll, "looking for what has ended", func(ctx context.Context) (bool, error) {
		for topics := range slices.Chunk(c.hints.Topics(backendTopic("")), watchBatch) {
			ids := make([]string, len(topics))
			for i, topic := range topics {
				ids[i] = strings.TrimPrefix(topic, backendTopic(""))
			}
			statuses, err := c.store.Statuses(ctx, ids)
			if err != nil {
				return false, err
			}
			for i, status := range statuses {
				if status == backend.Terminated {
					c.hints.Announce(topics[i])
				}
			}
		}
		return false, nil
	})
}

// every makes the store call fn at once and then at each interval, each time
// again while there is more to do. Failures are logged: the next call makes up
// for them.
func (c *Controller) every(ctx context.Context, interval time.Duration, what string, fn func(ctx context.Context) (more bool, err error)) error {
	for {
		more := false
		err := c.call(ctx, func(ctx context.Context) (err error) {
			more, err = fn(ctx)
			return err
		})
		if err != nil && ctx.Err() == nil {
			c.cfg.Log.Warn(what+" failed; the next one makes up for it", "error", err)
		}
		if err == nil && more {
			continue
		}
		if err := c.clock.Sleep(ctx, interval); err != nil {
			return err
		}
	}
}

// revocationWindow is how far back revocations are read each time: longer than
// a transaction may take to become visible after its time was taken.
const revocationWindow = 30 * time.Second

// spreadRevocations tells this controller's proxies of each revocation once, on
// the hint of one and, since hints may be lost, by itself twice a second. What
// the store's clock shows comes with the answer.
func (c *Controller) spreadRevocations(ctx context.Context) error {
	news := c.tasks.EventCount()
	defer c.hints.Subscribe(hintTopic(port.RevokedTopic, ""), news.Advance)()
	told := map[int64]bool{}
	last := c.clock.Now() // when the store answered
	for {
		seen := news.Read()
		recent, err := c.readRevocations(ctx)
		if now := c.clock.Now(); err == nil {
			if now.Sub(last) > storeGap {
				c.storeBack.Store(&now)
			}
			last = now
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			c.cfg.Log.Warn("cannot read revocations; trying again", "error", err)
		default:
			told = c.tell(recent, told)
		}
		if err := c.await(ctx, news, seen, c.cfg.Timing.RevokePoll); err != nil {
			return err
		}
	}
}

// storeGap is for how long the store must not have answered for its word on
// what is idle to be out of date afterwards: fail-over takes longer, and during
// it no keep-alive could be noted, while the store's clock may have stood still.
const storeGap = 3 * time.Second

// storeJustBack reports whether the store was out of reach a moment ago, and
// proxies have not all had the time to say what they use since.
func (c *Controller) storeJustBack() bool {
	back := c.storeBack.Load()
	return back != nil && c.clock.Now().Sub(*back) < 2*c.cfg.Timing.Heartbeat
}

func (c *Controller) readRevocations(ctx context.Context) ([]port.Revocation, error) {
	ctx, cancel := port.WithTimeout(ctx, c.clock, c.cfg.Timing.RevokeCall)
	defer cancel()
	recent, now, err := c.store.Revocations(ctx, revocationWindow)
	if err == nil {
		c.storeTime.Store(&now)
	}
	return recent, err
}

// tell sends each revocation that is not in told to all proxies, and returns
// what is told now.
func (c *Controller) tell(recent []port.Revocation, told map[int64]bool) map[int64]bool {
	now := make(map[int64]bool, len(recent))
	for _, r := range recent {
		now[r.ID] = true
		if told[r.ID] {
			continue
		}
		frame := protocol.EncodeToProxy(protocol.TokenRevoked{Backend: r.BackendID, User: r.User})
		for _, seat := range c.proxies.Members() {
			seat.out.Put(frame)
		}
	}
	return now
}

// await blocks until the count passes seen, or for the interval at most; the
// error is that of the context.
func (c *Controller) await(ctx context.Context, news port.EventCount, seen uint64, most time.Duration) error {
	waiting, cancel := port.WithTimeout(ctx, c.clock, most)
	defer cancel()
	if err := news.Await(waiting, seen); err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}
