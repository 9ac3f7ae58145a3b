package ledger

import (
	"slices"
	"strconv"
	"time"

	"plane/system/backend"
	"plane/system/port"
	"plane/system/protocol"
)

// Terminate implements port.Store.
func (l *Ledger) Terminate(now time.Time, p port.TerminateParams) error {
	b, err := l.backend(p.BackendID)
	if err != nil {
		return err
	}
	before := len(b.actions)
	l.terminate(now, b, p.ActionID, p.Kind, p.Reason)
	if len(b.actions) == before && b.hasPending() {
		l.hintActions(b.drone)
	}
	return nil
}

// hasPending reports whether the drone has yet to acknowledge an action of the
// backend.
func (b *backendRow) hasPending() bool {
	return slices.ContainsFunc(b.actions, func(id string) bool { return b.drone.inPending[id] != nil })
}

// terminate adds an action unless it would change nothing. A hard one follows a
// soft one; acknowledged ones count too, since an action takes effect once it
// is acknowledged or the backend ends.
func (l *Ledger) terminate(now time.Time, b *backendRow, actionID string, kind backend.Kind, reason backend.Reason) {
	switch {
	case b.terminated() || !b.hardAt.IsZero():
		return
	case kind == backend.Hard:
		b.hardAt = now
	case !b.softAt.IsZero():
		return
	default:
		b.softAt = now
	}
	l.act(b, actionID, protocol.ActionBody{Terminate: &protocol.Terminate{Kind: kind, Reason: reason}})
}

// act hands an action to the backend's drone.
func (l *Ledger) act(b *backendRow, id string, body protocol.ActionBody) {
	d := b.drone
	d.inPending[id] = d.pending.PushBack(protocol.Action{ActionID: id, BackendID: b.id, DroneID: int64(d.id), Action: body})
	b.actions = append(b.actions, id)
	l.hintActions(d)
}

func (l *Ledger) hintActions(d *node) {
	l.hint(port.ActionTopic, strconv.FormatInt(int64(d.id), 10))
}

// settle takes an action off the drone's list, if it is there.
func (d *node) settle(id string) {
	if e, ok := d.inPending[id]; ok {
		delete(d.inPending, id)
		d.pending.Remove(e)
	}
}

// PendingActions implements port.Store.
func (l *Ledger) PendingActions(drone port.NodeID) []port.PendingAction {
	d, ok := l.node(drone)
	if !ok {
		return nil
	}
	actions := make([]port.PendingAction, 0, d.pending.Len())
	for e := d.pending.Front(); e != nil; e = e.Next() {
		actions = append(actions, port.PendingAction{Action: e.Value.(protocol.Action)})
	}
	return actions
}

// AckActions implements port.Store.
func (l *Ledger) AckActions(drone port.NodeID, actionIDs []string) {
	d, ok := l.node(drone)
	if !ok {
		return
	}
	for _, id := range actionIDs {
		d.settle(id)
	}
}
