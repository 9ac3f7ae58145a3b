package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"plane/adapters/clock"
	"plane/system/backend"
	"plane/system/port"
	"plane/system/protocol"
	"plane/system/recent"
)

// event is one change of a backend's status.
type event struct {
	BackendID string       `json:"backend_id"`
	Cluster   string       `json:"cluster"`
	Drone     string       `json:"drone"`
	Key       protocol.Key `json:"key"`
	protocol.StatusEntry
}

func (e event) line(w io.Writer) error {
	text := fmt.Sprintf("%s  %-14s  %-16s  %s  %s", e.Time.Local().Format(time.DateTime), e.BackendID, e.Status, e.Drone, e.Cluster)
	if reason := why(e.StatusEntry); reason != "" {
		text += "  " + plain(reason)
	}
	_, err := fmt.Fprintln(w, text)
	return err
}

// How many ended backends are remembered, and for how long, so that a hint that
// comes twice or late tells nothing twice.
const (
	mostEnded = 100_000
	endedAge  = time.Hour
)

// lookEvery is how often everything is looked at: hints may be lost, as by a
// controller that stops between a change and its hint.
const lookEvery = 10 * time.Second

// eventLog turns the store's hints into lines. A hint says only where to look:
// what has changed is what the store shows beyond what was seen.
type eventLog struct {
	kept  *state
	clock port.Clock
	show  func(event) error
	note  func(format string, values ...any) // tells a person what is no event

	live  map[string]backend.Status // the last status that was seen of those that live
	ended *recent.Table[struct{}]
}

func newEventLog(kept *state, show func(event) error, note func(string, ...any)) *eventLog {
	return &eventLog{
		kept: kept, clock: clock.New(), show: show, note: note,
		live: map[string]backend.Status{}, ended: recent.New[struct{}](mostEnded, endedAge),
	}
}

// run prints what happens from now on, until the context ends or nothing can be
// printed any more. While the database is away it waits.
func (e *eventLog) run(ctx context.Context) error {
	if err := e.eachLive(ctx, func(b port.Backend) error {
		e.live[b.ID] = b.State.Status
		return nil
	}); err != nil {
		return databaseError(err)
	}
	e.note("listening; %d backends live", len(e.live))
	looked := e.clock.Now()
	for {
		waiting, cancel := e.clock.WithDeadline(ctx, looked.Add(lookEvery))
		hint, err := e.kept.listener.Next(waiting)
		if waiting.Err() != nil && ctx.Err() == nil {
			hint, err = port.Hint{Topic: port.ResyncTopic}, nil
		}
		cancel()
		if err == nil {
			err = e.follow(ctx, hint)
		}
		if err == nil && hint.Topic == port.ResyncTopic {
			looked = e.clock.Now()
		}
		var broken printError
		switch {
		case err == nil:
			continue
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &broken):
			return broken.error
		}
		e.note("the database is out of reach, trying again: %v", err)
		if err := clock.Sleep(ctx, time.Second); err != nil {
			return err
		}
	}
}

// printError means that nobody reads any more.
type printError struct{ error }

func (e *eventLog) follow(ctx context.Context, hint port.Hint) error {
	switch hint.Topic {
	case port.BackendTopic:
		return e.look(ctx, hint.Subject)
	case port.ResyncTopic:
		return e.lookAtAll(ctx)
	}
	return nil
}

// lookAtAll makes up for hints that were lost: of those that live and those that
// did.
func (e *eventLog) lookAtAll(ctx context.Context) error {
	there := map[string]bool{}
	err := e.eachLive(ctx, func(b port.Backend) error {
		there[b.ID] = true
		if e.live[b.ID] == b.State.Status {
			return nil
		}
		return e.look(ctx, b.ID)
	})
	if err != nil {
		return err
	}
	for id := range e.live {
		if !there[id] {
			if err := e.look(ctx, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// look prints what is new of one backend.
func (e *eventLog) look(ctx context.Context, id string) error {
	if _, over := e.ended.Get(id, e.clock.Now()); over {
		return nil
	}
	b, err := e.kept.Backend(ctx, id)
	if err == nil {
		var entries []port.HistoryEntry
		if entries, err = e.kept.History(ctx, id, e.live[id]); err == nil {
			return e.tell(b, entries)
		}
	}
	if errors.Is(err, port.ErrNotFound) { // it was cleaned up
		delete(e.live, id)
		return nil
	}
	return err
}

func (e *eventLog) tell(b port.Backend, entries []port.HistoryEntry) error {
	for _, h := range entries {
		e.live[b.ID] = h.State.Status
		if h.State.Status == backend.Terminated {
			delete(e.live, b.ID)
			e.ended.Put(b.ID, struct{}{}, e.clock.Now())
		}
		err := e.show(event{
			BackendID: b.ID, Cluster: b.Cluster, Drone: b.Drone, Key: b.Key,
			StatusEntry: protocol.NewStatusEntry(h.State, protocol.Millis{Time: h.Time}),
		})
		if err != nil {
			return printError{err}
		}
	}
	return nil
}

// eachLive calls do for each backend that lives, in all clusters.
func (e *eventLog) eachLive(ctx context.Context, do func(port.Backend) error) error {
	clusters, err := (&backendFilter{}).clusters(ctx, e.kept)
	if err != nil {
		return err
	}
	for _, cluster := range clusters {
		for after := ""; ; {
			some, err := e.kept.Backends(ctx, port.BackendQuery{Cluster: cluster, Live: true, Limit: page, After: after})
			if err != nil {
				return err
			}
			for _, b := range some {
				if err := do(b); err != nil {
					return err
				}
			}
			if len(some) < page {
				break
			}
			after = some[len(some)-1].ID
		}
	}
	return nil
}
