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

// revisitsAtOnce is how many backends are looked at in one statement.
const revisitsAtOnce = 500

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
		// Lookups first, and again after each look at some of the backends: after
		// a fail-over it is all of them that may have changed.
		tokens := s.lookups.TakeAll()
		if err := r.answer(ctx, tokens); err != nil {
			return err
		}
		changed := s.changed.Take(revisitsAtOnce)
		if err := r.revisit(ctx, changed); err != nil {
			return err
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
		answers, err := r.lookUp(ctx, chunk)
		if err != nil {
			return err
		}
		var failed error
		for i, token := range chunk {
			if err := answers[i].err; err != nil && !errors.Is(err, port.ErrNotFound) {
				failed = err
				r.lookups.Put(token)
				continue
			}
			r.settle(token, answers[i])
		}
		if failed != nil {
			r.log.Warn("route lookups failed; trying again", "error", failed)
			if err := r.c.clock.Sleep(ctx, storePause); err != nil {
				return err
			}
			r.news.Advance()
		}
	}
	return nil
}

// lookUp asks the store for each token; the error is that of the context.
func (r *routes) lookUp(ctx context.Context, tokens []string) ([]found, error) {
	answers := make([]found, len(tokens))
	g := r.c.tasks.Group(ctx)
	for i, token := range tokens {
		g.Go("route lookup", func(ctx context.Context) error {
			answers[i].err = r.c.call(ctx, func(ctx context.Context) (err error) {
				answers[i].route, err = r.c.store.RouteToken(ctx, token)
				return err
			})
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return answers, context.Cause(ctx)
}

// settle answers one lookup, or puts it off.
func (r *routes) settle(token string, f found) {
	id := f.route.Info.BackendID
	switch {
	case f.err != nil:
		r.reply(token, nil)
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

// revisit looks at backends that may have changed.
func (r *routes) revisit(ctx context.Context, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	var statuses []backend.Status
	err := r.c.call(ctx, func(ctx context.Context) (err error) {
		statuses, err = r.c.store.Statuses(ctx, ids)
		return err
	})
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		r.log.Warn("cannot read backends that routes lead to; trying again", "backends", len(ids), "error", err)
		for _, id := range ids {
			r.changed.Mark(id)
		}
		r.news.Advance()
		return r.c.clock.Sleep(ctx, storePause)
	}
	var tokens []string
	for i, id := range ids {
		switch {
		case statuses[i] == backend.Terminated:
			r.gone(id)
		case statuses[i] >= backend.Ready:
			tokens = append(tokens, r.takeWaiting(id)...)
		}
	}
	return r.answer(ctx, tokens)
}

// gone tells the proxy that a backend has ended.
func (r *routes) gone(id string) {
	r.unwatch(id)
	for _, token := range r.takeWaiting(id) {
		r.reply(token, nil)
	}
	r.out.Put(protocol.EncodeToProxy(protocol.BackendRemoved{Backend: id}))
}

func (r *routes) takeWaiting(backendID string) []string {
	tokens := slices.Sorted(maps.Keys(r.waiting[backendID]))
	delete(r.waiting, backendID)
	return tokens
}
