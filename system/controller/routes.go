package controller

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"plane/system/backend"
	"plane/system/port"
	"plane/system/protocol"
)

// lookupsAtOnce is how many lookups of one proxy ask the store side by side.
const lookupsAtOnce = 16

// waitingPoll is how often a backend that a lookup waits for is looked at even
// without a hint.
const waitingPoll = 2 * time.Second

// routes is what one proxy was told, or waits for. It belongs to one task.
type routes struct {
	*proxySeat
	// waiting holds the tokens that lead to a backend that is not ready yet.
	waiting map[string]map[string]bool
	// watched holds, for each backend that the proxy has heard of, how to stop
	// watching it.
	watched map[string]func()
}

// serveRoutes answers the proxy's lookups, those for a starting backend once it
// is ready, and tells the proxy when a backend that it knows is gone.
func (s *proxySeat) serveRoutes(ctx context.Context) error {
	r := &routes{proxySeat: s, waiting: map[string]map[string]bool{}, watched: map[string]func(){}}
	defer r.unwatchAll()
	for {
		seen := s.news.Read()
		tokens, changed := s.lookups.TakeAll(), s.changed.Take()
		if err := r.answer(ctx, tokens); err != nil {
			return err
		}
		for _, b := range changed {
			if err := r.revisit(ctx, b); err != nil {
				return err
			}
		}
		if len(tokens)+len(changed) > 0 {
			continue
		}
		poll := s.c.cfg.Timing.StreamPoll
		if len(r.waiting) > 0 {
			poll = waitingPoll
		}
		if err := s.c.await(ctx, s.news, seen, poll); err != nil {
			return err
		}
		if s.news.Read() == seen {
			for _, b := range slices.Sorted(maps.Keys(r.waiting)) {
				s.changed.Mark(b)
			}
		}
	}
}

// found is the store's answer to one lookup.
type found struct {
	route port.Route
	err   error
}

// answer looks tokens up and answers those that can be answered now.
func (r *routes) answer(ctx context.Context, tokens []string) error {
	for chunk := range slices.Chunk(tokens, lookupsAtOnce) {
		answers := make([]found, len(chunk))
		g := r.c.tasks.Group(ctx)
		for i, token := range chunk {
			g.Go("route lookup", func(ctx context.Context) error {
				answers[i].err = r.c.call(ctx, func(ctx context.Context) (err error) {
					answers[i].route, err = r.c.store.RouteToken(ctx, token)
					return err
				})
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		for i, token := range chunk {
			if err := r.settle(ctx, token, answers[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// settle answers one lookup, or puts it off.
func (r *routes) settle(ctx context.Context, token string, f found) error {
	id := f.route.Info.BackendID
	switch {
	case errors.Is(f.err, port.ErrNotFound):
		r.reply(token, nil)
	case f.err != nil:
		r.log.Warn("a route lookup failed; trying again", "error", f.err)
		if err := r.c.clock.Sleep(ctx, storePause); err != nil {
			return err
		}
		r.lookups.Put(token)
		r.news.Advance()
	case f.route.Status == backend.Ready:
		r.watch(id)
		r.reply(token, &f.route.Info)
	default:
		if r.waiting[id] == nil {
			r.waiting[id] = map[string]bool{}
		}
		r.waiting[id][token] = true
		r.watch(id)
	}
	return nil
}

func (r *routes) reply(token string, info *protocol.RouteInfo) {
	r.out.Put(protocol.EncodeToProxy(protocol.RouteInfoResponse{Token: token, RouteInfo: info}))
}

// watch has changes of the backend marked from now on, and marks it at once
// for what may have changed since it was read.
func (r *routes) watch(backendID string) {
	if r.watched[backendID] != nil {
		return
	}
	mark := func() {
		r.changed.Mark(backendID)
		r.news.Advance()
	}
	r.watched[backendID] = r.c.hints.Subscribe(backendTopic(backendID), mark)
	mark()
}

func (r *routes) unwatch(backendID string) {
	if stop := r.watched[backendID]; stop != nil {
		stop()
		delete(r.watched, backendID)
	}
}

func (r *routes) unwatchAll() {
	for _, id := range slices.Sorted(maps.Keys(r.watched)) {
		r.unwatch(id)
	}
}

// revisit looks at a backend that may have changed.
func (r *routes) revisit(ctx context.Context, id string) error {
	var b port.Backend
	err := r.c.call(ctx, func(ctx context.Context) (err error) {
		b, err = r.c.store.Backend(ctx, id)
		return err
	})
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, port.ErrNotFound), err == nil && b.State.Status == backend.Terminated:
		r.unwatch(id)
		for _, token := range r.takeWaiting(id) {
			r.reply(token, nil)
		}
		r.out.Put(protocol.EncodeToProxy(protocol.BackendRemoved{Backend: id}))
	case err != nil:
		r.log.Warn("cannot read a backend that a route leads to; trying again", "backend", id, "error", err)
		r.changed.Mark(id)
		r.news.Advance()
		return r.c.clock.Sleep(ctx, storePause)
	case b.State.Status >= backend.Ready:
		return r.answer(ctx, r.takeWaiting(id))
	}
	return nil
}

func (r *routes) takeWaiting(backendID string) []string {
	tokens := slices.Sorted(maps.Keys(r.waiting[backendID]))
	delete(r.waiting, backendID)
	return tokens
}
