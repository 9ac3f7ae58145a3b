package fake

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"plane/sim/world"
	"plane/system/backend"
	"plane/system/port"
)

// disk is what a machine keeps through crashes: the drone's journal.
type disk struct {
	records map[string]port.Record
	events  []port.Event // in order of id
	lastID  int64
	// wanted is what the present agent wanted to be written, in vain or not.
	wanted map[string]port.Record
}

func newDisk() *disk {
	return &disk{records: map[string]port.Record{}, wanted: map[string]port.Record{}}
}

// Journal gives a node the journal on the machine's disk. Its writes happen in
// the calling process: what has not been written when that dies never is.
// Needs the lock.
func (m *Machine) Journal(node world.Node) port.Journal {
	m.disk.wanted = maps.Clone(m.disk.records)
	return journal{m, node}
}

type journal struct {
	m    *Machine
	node world.Node
}

// write waits for the disk, makes the change and may say that it failed.
func (j journal) write(ctx context.Context, what string, change func(d *disk)) error {
	if err := j.pause(ctx); err != nil {
		return err
	}
	j.m.env.Lock()
	w := j.m.env.Weather
	fails, lies := j.m.rnd.Chance(w.JournalFails), j.m.rnd.Chance(w.JournalLies)
	if !fails {
		change(j.m.disk)
	}
	j.m.env.Unlock()
	if err := j.pause(ctx); err != nil {
		return err
	}
	if fails || lies {
		return fmt.Errorf("journal: %s: %w (written: %v)", what, ErrInjected, !fails)
	}
	return nil
}

func (j journal) pause(ctx context.Context) error {
	j.node.Enter()
	j.m.env.Lock()
	d := j.m.rnd.Soon(50*time.Microsecond, 20*time.Millisecond)
	j.m.env.Unlock()
	return j.node.Sleep(ctx, d)
}

// Put implements port.Journal.
func (j journal) Put(ctx context.Context, rec port.Record, event *port.Event) (int64, error) {
	var id int64
	j.node.Enter()
	j.m.env.Lock()
	j.m.disk.wanted[rec.BackendID] = cloneRecord(rec)
	j.m.env.Unlock()
	err := j.write(ctx, "put", func(d *disk) {
		d.records[rec.BackendID] = cloneRecord(rec)
		if event != nil {
			d.lastID++
			id = d.lastID
			e := *event
			e.ID, e.State = id, cloneState(e.State)
			d.events = append(d.events, e)
		}
	})
	if err != nil {
		return 0, err
	}
	return id, nil
}

// Records implements port.Journal.
func (j journal) Records(ctx context.Context) ([]port.Record, error) {
	var records []port.Record
	err := j.write(ctx, "read records", func(d *disk) {
		for _, id := range slices.Sorted(maps.Keys(d.records)) {
			records = append(records, cloneRecord(d.records[id]))
		}
	})
	if err != nil {
		return nil, err
	}
	return records, nil
}

// Events implements port.Journal.
func (j journal) Events(ctx context.Context) ([]port.Event, error) {
	var events []port.Event
	err := j.write(ctx, "read events", func(d *disk) {
		for _, e := range d.events {
			e.State = cloneState(e.State)
			events = append(events, e)
		}
	})
	if err != nil {
		return nil, err
	}
	return events, nil
}

// Ack implements port.Journal.
func (j journal) Ack(ctx context.Context, eventID int64) (backendID string, forgotten bool, err error) {
	err = j.write(ctx, "acknowledge", func(d *disk) {
		i, found := slices.BinarySearchFunc(d.events, eventID, func(e port.Event, id int64) int { return cmp.Compare(e.ID, id) })
		if !found {
			return
		}
		backendID = d.events[i].BackendID
		d.events = slices.Delete(d.events, i, i+1)
		left := slices.ContainsFunc(d.events, func(e port.Event) bool { return e.BackendID == backendID })
		if !left && d.records[backendID].State.Status == backend.Terminated {
			delete(d.records, backendID)
			delete(d.wanted, backendID)
			forgotten = true
		}
	})
	if err != nil {
		return "", false, err
	}
	return backendID, forgotten, nil
}

func cloneRecord(r port.Record) port.Record {
	r.Spec.Executable = bytes.Clone(r.Spec.Executable)
	r.State = cloneState(r.State)
	return r
}

func cloneState(s backend.State) backend.State {
	if s.ExitCode != nil {
		code := *s.ExitCode
		s.ExitCode = &code
	}
	return s
}

// Guard gives a node the machine's lease guard, which outlives it.
func (m *Machine) Guard(node world.Node) port.Guard { return guard{m, node} }

type guard struct {
	m    *Machine
	node world.Node
}

// Set implements port.Guard.
func (g guard) Set(ctx context.Context, backendID string, deadline time.Time) error {
	err := g.do(ctx, "set", func() {
		e := g.m.guarded[backendID]
		if e == nil {
			e = &guardEntry{backendID: backendID}
			g.m.guarded[backendID] = e
		}
		e.deadline = deadline
		g.m.watch(e)
	})
	if err != nil {
		return err
	}
	g.m.env.Lock()
	defer g.m.env.Unlock()
	if e := g.m.guarded[backendID]; e != nil {
		e.confirmed = deadline
	}
	return nil
}

// Clear implements port.Guard.
func (g guard) Clear(ctx context.Context, backendID string) error {
	return g.do(ctx, "clear", func() {
		if e := g.m.guarded[backendID]; e != nil {
			if e.timer != nil {
				e.timer.Stop()
			}
			delete(g.m.guarded, backendID)
		}
	})
}

func (g guard) do(ctx context.Context, what string, change func()) error {
	j := journal(g)
	if err := j.pause(ctx); err != nil {
		return err
	}
	g.m.env.Lock()
	fails, lies := g.m.rnd.Chance(g.m.env.Weather.GuardFails), g.m.rnd.Chance(g.m.env.Weather.GuardFails)
	if !fails {
		change()
	}
	g.m.env.Unlock()
	if err := j.pause(ctx); err != nil {
		return err
	}
	if fails || lies {
		return fmt.Errorf("guard: %s: %w (done: %v)", what, ErrInjected, !fails)
	}
	return nil
}

// Boot tells a node which boot of the machine this is.
func (m *Machine) Boots(node world.Node) port.Boot { return boot{m, node} }

type boot struct {
	m    *Machine
	node world.Node
}

// BootID implements port.Boot.
func (b boot) BootID() string {
	b.node.Enter()
	b.m.env.Lock()
	defer b.m.env.Unlock()
	return fmt.Sprintf("boot-%d", b.m.boots)
}
