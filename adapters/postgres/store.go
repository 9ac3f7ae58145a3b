package postgres

import (
	"time"

	"plane/system/port"
)

var _ port.Store = (*Store)(nil)

// How many batches of a kind may be under way, and how large they are at most.
const (
	connectWorkers = 2
	otherWorkers   = 1
	connectBatch   = 100
	otherBatch     = 2000
)

// gatherRenewals is how far apart the batches of renewals (and of heartbeats)
// begin in the long run: a batch costs the server as much as some seventy of the
// renewals in it. Nobody waits for these: drones ask 18 s before it is due, and
// ask again after a second, which this has to stay well below.
const gatherRenewals = 500 * time.Millisecond

// combiners gather what many tasks ask for at the same time.
type combiners struct {
	joins    combiner[port.ConnectParams, joined]
	connects combiner[port.ConnectParams, connectAnswer]
	states   combiner[port.StateReport, port.RecordOutcome]
	renewals combiner[port.Renewal, bool]
	acks     combiner[acknowledgement, struct{}]
	beats    combiner[port.DroneHeartbeat, struct{}]
}

func (s *Store) combine() {
	s.joins.run, s.joins.workers, s.joins.most = s.joinAll, connectWorkers, connectBatch
	s.connects.run, s.connects.workers, s.connects.most = s.connectAll, connectWorkers, connectBatch
	s.states.run, s.states.workers, s.states.most = s.recordAll, otherWorkers, otherBatch
	s.renewals.run, s.renewals.workers, s.renewals.most = s.renewAll, otherWorkers, otherBatch
	s.acks.run, s.acks.workers, s.acks.most = s.ackAll, otherWorkers, otherBatch
	s.beats.run, s.beats.workers, s.beats.most = s.beatAll, otherWorkers, otherBatch
	s.renewals.gather, s.beats.gather = gatherRenewals, gatherRenewals
}
