package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"plane/system/backend"
	"plane/system/port"
)

// fill makes n backends, several at a time.
func fill(ctx context.Context, n int, connect func(ctx context.Context, i int) (port.Connected, error)) ([]port.Connected, error) {
	made := make([]port.Connected, n)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(64)
	for i := range n {
		g.Go(func() (err error) {
			made[i], err = connect(ctx, i)
			return err
		})
	}
	return made, g.Wait()
}

// ready does what drones do until their backends are ready: they take over the
// spawns and report each state.
func ready(ctx context.Context, store port.Store, made []port.Connected) error {
	byDrone := map[port.NodeID]bool{}
	for _, c := range made {
		byDrone[c.DroneID] = true
	}
	if err := acknowledge(ctx, store, slices.Collect(maps.Keys(byDrone))); err != nil {
		return err
	}
	const address = "10.0.0.5:49153"
	for _, state := range []backend.State{
		{Status: backend.Loading}, {Status: backend.Starting},
		{Status: backend.Waiting, Address: address}, {Status: backend.Ready, Address: address},
	} {
		reports := make([]port.StateReport, len(made))
		for i, c := range made {
			reports[i] = port.StateReport{Drone: c.DroneID, BackendID: c.BackendID, State: state, Time: time.Now()}
		}
		if err := record(ctx, store, reports); err != nil {
			return err
		}
	}
	return nil
}

// acknowledge has drones take over what they are to do.
func acknowledge(ctx context.Context, store port.Store, drones []port.NodeID) error {
	for _, drone := range drones {
		pending, err := store.PendingActions(ctx, drone)
		if err != nil {
			return err
		}
		ids := make([]string, len(pending))
		for i, p := range pending {
			ids[i] = p.Action.ActionID
		}
		for some := range slices.Chunk(ids, 500) {
			if err := store.AckActions(ctx, drone, some); err != nil {
				return err
			}
		}
	}
	return nil
}

// record reports states, as many at a time as a busy drone may have.
func record(ctx context.Context, store port.Store, reports []port.StateReport) error {
	for some := range slices.Chunk(reports, 500) {
		outcomes, err := store.RecordStates(ctx, some)
		if err != nil {
			return err
		}
		for i, outcome := range outcomes {
			if outcome != port.Recorded {
				return fmt.Errorf("backend %s, %v: not recorded (outcome %d)", some[i].BackendID, some[i].State.Status, outcome)
			}
		}
	}
	return nil
}
