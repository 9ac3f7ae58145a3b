package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"plane/adapters/clock"
	"plane/system/backend"
	"plane/system/lease"
	"plane/system/name"
	"plane/system/port"
	"plane/system/protocol"
)

// ours is the adapter that Plane runs on, used through its port.
type ours struct {
	label string
	load  load
	url   string
	store port.Store
	hints port.Listener
	shut  func() // the store
	stop  context.CancelFunc
	tasks sync.WaitGroup

	nodes []port.NodeID // the drones

	mu   sync.Mutex
	live []port.Renewal // of the held backends
	made []port.StateReport
	errs []error // of what goes on in the background
}

// openOurs makes a database of that name, with the drones and the backends that
// hold the held keys.
func openOurs(ctx context.Context, s *server, l load, label, database string) (*ours, error) {
	url, err := s.create(ctx, database)
	if err != nil {
		return nil, err
	}
	o := &ours{label: label, load: l}
	if err := o.open(ctx, url); err != nil {
		return nil, err
	}
	if err := o.register(ctx); err != nil {
		return nil, err
	}
	if err := o.signsOfLife(ctx); err != nil {
		return nil, err
	}
	background, stop := context.WithCancel(ctx)
	o.stop = stop
	o.tasks.Go(func() { o.goOn(background) })
	o.tasks.Go(func() { o.listen(background) })
	return o, o.populate(ctx)
}

func (o *ours) name() string { return o.label }

func (o *ours) close() error {
	o.stop()
	o.tasks.Wait()
	o.shut()
	return errors.Join(o.errs...)
}

func connection(drone int) string { return fmt.Sprint("connection-", drone) }

func (o *ours) register(ctx context.Context) error {
	if err := o.store.ControllerHeartbeat(ctx, port.ControllerInfo{Name: "co-bench"}); err != nil {
		return err
	}
	for i := range drones {
		id, err := o.store.RegisterNode(ctx, port.NodeRegistration{
			Kind: port.DroneNode, Cluster: cluster, Name: fmt.Sprint("dr-", i+1), Controller: "co-bench", Connection: connection(i),
			Capacity: capacity,
		})
		if err != nil {
			return err
		}
		o.nodes = append(o.nodes, id)
	}
	return nil
}

func (o *ours) populate(ctx context.Context) error {
	made, err := fill(ctx, o.load.keys, func(ctx context.Context, i int) (port.Connected, error) {
		return o.connect(ctx, heldKey(i))
	})
	if err != nil {
		return err
	}
	if err := ready(ctx, o.store, made); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range made {
		o.live = append(o.live, port.Renewal{Drone: c.DroneID, BackendID: c.BackendID, Lease: lease.Default()})
	}
	return nil
}

// goOn does what goes on beside the connects: the controller and the drones give
// signs of life, and held keys stay held.
func (o *ours) goOn(ctx context.Context) {
	for {
		if err := o.signsOfLife(ctx); err != nil && ctx.Err() == nil {
			o.fail(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(signsOfLifeEvery):
		}
	}
}

func (o *ours) fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.errs = append(o.errs, err)
}

func (o *ours) signsOfLife(ctx context.Context) error {
	if err := o.store.ControllerHeartbeat(ctx, port.ControllerInfo{Name: "co-bench"}); err != nil {
		return fmt.Errorf("heartbeat of the controller: %w", err)
	}
	beats := make([]port.DroneHeartbeat, len(o.nodes))
	for i, id := range o.nodes {
		beats[i] = port.DroneHeartbeat{Drone: id, Connection: connection(i), LocalTime: time.Now()}
	}
	if err := o.store.Heartbeats(ctx, beats); err != nil {
		return fmt.Errorf("heartbeats: %w", err)
	}
	o.mu.Lock()
	renewals := o.live
	o.mu.Unlock()
	held, err := o.store.RenewKeys(ctx, renewals)
	if err != nil {
		return fmt.Errorf("renewals: %w", err)
	}
	for i, ok := range held {
		if !ok {
			return fmt.Errorf("renewals: backend %s does not hold its key any more", renewals[i].BackendID)
		}
	}
	return nil
}

// listen takes the store's hints, as a controller does, and reads what keeps its
// clock going.
func (o *ours) listen(ctx context.Context) {
	o.tasks.Go(func() {
		for ctx.Err() == nil {
			if _, _, err := o.store.Revocations(ctx, 30*time.Second); err != nil && ctx.Err() == nil {
				o.fail(fmt.Errorf("revocations: %w", err))
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(500 * time.Millisecond):
			}
		}
	})
	for ctx.Err() == nil {
		if _, err := o.hints.Next(ctx); err != nil && ctx.Err() == nil {
			o.fail(fmt.Errorf("listen: %w", err))
			return
		}
	}
}

func (o *ours) connect(ctx context.Context, key string) (port.Connected, error) {
	return o.store.Connect(ctx, port.ConnectParams{
		Key: protocol.Key{Name: key},
		Spawn: &port.SpawnParams{
			BackendID: name.New(name.Backend, clock.Rand{}), ActionID: name.New(name.Action, clock.Rand{}),
			Cluster: cluster, Executable: executable, Lifetime: lifetime, MaxIdle: maxIdle,
			BestOf: bestOf, Healthy: healthy, Lease: lease.Default(), Asks: asks,
		},
		Token: newToken(), SecretToken: newToken(), TokenLife: tokenLife, PlacementSeed: rand.Uint64(),
	})
}

func (o *ours) held(ctx context.Context, i int) error {
	c, err := o.connect(ctx, heldKey(i))
	if err == nil && c.Spawned {
		return fmt.Errorf("%s is held by nothing any more", heldKey(i))
	}
	return err
}

func (o *ours) fresh(ctx context.Context) error {
	c, err := o.connect(ctx, freshKey())
	if err != nil {
		return err
	}
	if !c.Spawned {
		return fmt.Errorf("backend %s held a key that is new", c.BackendID)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.made = append(o.made, port.StateReport{Drone: c.DroneID, BackendID: c.BackendID, State: backend.State{Status: backend.Terminated, Reason: backend.InternalError}, Time: time.Now()})
	return nil
}

func (o *ours) endFresh(ctx context.Context) error {
	o.mu.Lock()
	made := o.made
	o.made = nil
	o.mu.Unlock()
	if err := acknowledge(ctx, o.store, o.nodes); err != nil {
		return err
	}
	return record(ctx, o.store, made)
}
