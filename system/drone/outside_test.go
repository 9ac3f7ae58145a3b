package drone_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/backend"
	"plane/system/lease"
	"plane/system/name"
	"plane/system/port"
	"plane/system/protocol"
)

// The engine.

type engine struct{ *rig }

func (e engine) Validate(port.ContainerSpec) error { return e.reject }

func (e engine) Pull(ctx context.Context, spec port.ContainerSpec, progress func(string)) error {
	if err := e.clock.Sleep(ctx, e.slowPull); err != nil {
		return err
	}
	progress("done")
	return e.call(ctx, "pull", spec.BackendID, func() error { return nil })
}

func (e engine) Start(ctx context.Context, spec port.ContainerSpec) (c port.Container, err error) {
	err = e.call(ctx, "start", spec.BackendID, func() error {
		if there, ok := e.containers[spec.BackendID]; ok {
			c = there.Container
			return nil
		}
		e.starts[spec.BackendID]++
		c = port.Container{BackendID: spec.BackendID, Address: fmt.Sprintf("10.0.0.1:%d", spec.Port), Running: true, Started: true}
		e.containers[spec.BackendID] = &container{c, spec}
		return nil
	})
	return c, err
}

// finish ends a running container; the rig is locked.
func (r *rig) finish(id string, code int, oom bool) error {
	c, ok := r.containers[id]
	if !ok {
		return port.ErrNoContainer
	}
	if c.Running {
		c.Running, c.ExitCode, c.OOM = false, &code, oom
		if !r.mute {
			r.exits <- id
		}
	}
	return nil
}

func (r *rig) exit(id string, code int, oom bool) {
	r.mu.Lock()
	err := r.finish(id, code, oom)
	r.mu.Unlock()
	require.NoError(r.t, err)
	synctest.Wait()
}

func (e engine) Stop(ctx context.Context, id string) error {
	return e.call(ctx, "stop", id, func() error {
		if e.stubborn {
			return nil
		}
		return e.finish(id, 143, false)
	})
}

func (e engine) Kill(ctx context.Context, id string) error {
	return e.call(ctx, "kill", id, func() error { return e.finish(id, 137, false) })
}

func (e engine) Remove(ctx context.Context, id string) error {
	return e.call(ctx, "remove", id, func() error {
		err := e.finish(id, 137, false)
		delete(e.containers, id)
		if errors.Is(err, port.ErrNoContainer) {
			return nil
		}
		return err
	})
}

func (e engine) Inspect(ctx context.Context, id string) (c port.Container, err error) {
	err = e.call(ctx, "inspect", id, func() error {
		there, ok := e.containers[id]
		if !ok {
			return port.ErrNoContainer
		}
		c = there.Container
		return nil
	})
	return c, err
}

func (e engine) List(ctx context.Context) (all []port.Container, err error) {
	err = e.call(ctx, "list", "", func() error {
		for _, id := range slices.Sorted(maps.Keys(e.containers)) {
			all = append(all, e.containers[id].Container)
		}
		return nil
	})
	return all, err
}

func (e engine) Exits(ctx context.Context) (string, error) {
	select {
	case id := <-e.exits:
		return id, nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

func (e engine) Stats(ctx context.Context, id string) (s port.Stats, err error) {
	err = e.call(ctx, "stats", id, func() error { s = e.stats; return nil })
	return s, err
}

func (e engine) Prune(context.Context) error { return nil }

func (e engine) Probe(ctx context.Context, address string) error {
	return e.call(ctx, "probe", address, func() error {
		if e.deaf {
			return errors.New("connection refused")
		}
		return nil
	})
}

// The disk.

type journal struct{ *rig }

func (j journal) Put(ctx context.Context, rec port.Record, event *port.Event) (id int64, err error) {
	name := "put"
	if event != nil {
		name = "put " + event.State.Status.String()
	}
	err = j.call(ctx, name, rec.BackendID, func() error {
		j.records[rec.BackendID] = rec
		if event != nil {
			j.lastID++
			id = j.lastID
			e := *event
			e.ID = id
			j.events = append(j.events, e)
		}
		return nil
	})
	return id, err
}

func (j journal) Records(ctx context.Context) (all []port.Record, err error) {
	err = j.call(ctx, "records", "", func() error {
		for _, id := range slices.Sorted(maps.Keys(j.records)) {
			all = append(all, j.records[id])
		}
		return nil
	})
	return all, err
}

func (j journal) Events(ctx context.Context) (all []port.Event, err error) {
	err = j.call(ctx, "events", "", func() error { all = slices.Clone(j.events); return nil })
	return all, err
}

func (j journal) Ack(ctx context.Context, id int64) (backendID string, forgotten bool, err error) {
	err = j.call(ctx, "ack", fmt.Sprint(id), func() error {
		i := slices.IndexFunc(j.events, func(e port.Event) bool { return e.ID == id })
		if i < 0 {
			return nil
		}
		backendID = j.events[i].BackendID
		j.events = slices.Delete(j.events, i, i+1)
		left := slices.ContainsFunc(j.events, func(e port.Event) bool { return e.BackendID == backendID })
		if !left && j.records[backendID].State.Status == backend.Terminated {
			delete(j.records, backendID)
			forgotten = true
		}
		return nil
	})
	return backendID, forgotten, err
}

type guard struct{ *rig }

func (g guard) Set(ctx context.Context, id string, deadline time.Time) error {
	return g.call(ctx, "guard", id, func() error { g.guards[id] = deadline; return nil })
}

func (g guard) Clear(ctx context.Context, id string) error {
	return g.call(ctx, "unguard", id, func() error { delete(g.guards, id); return nil })
}

type ports struct{ *rig }

func (p ports) Acquire(ctx context.Context, id string) (n int, err error) {
	err = p.call(ctx, "acquire", id, func() error {
		if p.ports[id] == 0 {
			p.lastPort++
			p.ports[id] = p.lastPort
		}
		n = p.ports[id]
		return nil
	})
	return n, err
}

func (p ports) Replace(ctx context.Context, id string) (n int, err error) {
	err = p.call(ctx, "replace", id, func() error {
		p.lastPort++
		p.ports[id] = p.lastPort
		n = p.lastPort
		return nil
	})
	return n, err
}

func (p ports) Release(ctx context.Context, id string, quarantine time.Duration) error {
	return p.call(ctx, "release", id, func() error {
		if quarantine < 31*time.Second {
			return fmt.Errorf("quarantine of %v is too short", quarantine)
		}
		delete(p.ports, id)
		return nil
	})
}

// The controller.

type conn struct {
	*rig
	hello  protocol.Handshake
	in     chan []byte
	closed chan struct{}
	once   sync.Once
}

func (r *rig) Dial(ctx context.Context) (port.Conn, error) {
	c := &conn{rig: r, in: make(chan []byte, 10_000), closed: make(chan struct{})}
	err := r.call(ctx, "dial", "", func() error {
		if r.unplugged {
			return errors.New("network is unreachable")
		}
		r.conn = c
		return nil
	})
	c.in <- protocol.EncodeHandshake(protocol.Handshake{Name: "co-test"})
	return c, err
}

func (c *conn) Close(string) { c.once.Do(func() { close(c.closed) }) }

func (c *conn) Recv(ctx context.Context) ([]byte, error) {
	select {
	case frame := <-c.in:
		return frame, nil
	case <-c.closed:
		return nil, port.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (c *conn) Send(ctx context.Context, frame []byte) error {
	select {
	case <-c.closed:
		return port.ErrClosed
	default:
	}
	m, err := protocol.DecodeFromDrone(frame)
	if err != nil {
		hello, err := protocol.DecodeHandshake(frame, name.Drone)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.hello = hello
		return err
	}
	return c.call(ctx, "send", fmt.Sprintf("%T", m), func() error {
		c.heard = append(c.heard, heard{c.clock.Now(), m})
		switch m := m.(type) {
		case protocol.BackendEvent:
			if !c.hoarding {
				c.in <- protocol.EncodeToDrone(protocol.AckEvent{EventID: m.EventID})
			}
		case protocol.RenewKey:
			a := protocol.RenewKeyResponse{Backend: m.Backend}
			if !c.null {
				d := c.answer(m)
				a.Deadlines = &d
			}
			if !c.silent {
				c.in <- protocol.EncodeToDrone(a)
			}
		}
		return nil
	})
}

func (r *rig) send(m protocol.ToDrone) {
	r.mu.Lock()
	c := r.conn
	r.mu.Unlock()
	c.in <- protocol.EncodeToDrone(m)
	synctest.Wait()
}

// cut breaks the session, for as long as down.
func (r *rig) cut(down time.Duration) {
	r.set(func() { r.unplugged = true })
	r.conn.Close("cut")
	r.pass(down)
	r.set(func() { r.unplugged = false })
}

func (r *rig) set(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

// deadlines are what a controller gives that has heard the drone just now.
func (r *rig) deadlines() protocol.Deadlines {
	return protocol.Deadlines(lease.Default().Deadlines(r.clock.Now()))
}

func spawnAction(id string, d protocol.Deadlines) protocol.Action {
	return protocol.Action{ActionID: "ak-spawn-" + id, BackendID: id, Action: protocol.ActionBody{Spawn: &protocol.Spawn{
		Executable: json.RawMessage(`{"image":"demo","credentials":{"username":"u","password":"hush"}}`),
		Key:        protocol.AcquiredKey{Key: protocol.Key{Name: "k"}, Deadlines: d, Token: 7},
	}}}
}

func (r *rig) spawn(id string) { r.send(spawnAction(id, r.deadlines())) }

func (r *rig) terminate(id string, kind backend.Kind) {
	r.send(protocol.Action{ActionID: "ak-" + string(kind) + "-" + id, BackendID: id, Action: protocol.ActionBody{
		Terminate: &protocol.Terminate{Kind: kind, Reason: backend.External},
	}})
}

// ready starts a drone with one backend that serves.
func (r *rig) ready(id string) {
	r.start()
	r.spawn(id)
	r.pass(time.Second)
	require.Equal(r.t, "ready", r.last(id).Status.String())
}
