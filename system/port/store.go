package port

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"plane/system/backend"
	"plane/system/lease"
	"plane/system/placement"
	"plane/system/protocol"
)

// Sentinels of Store. Every other error is unclear: the operation may have
// been committed.
var (
	ErrNotFound     = errors.New("not found")
	ErrKeyUnheld    = errors.New("nothing holds the key")
	ErrKeyHeld      = errors.New("the key is held with another tag")
	ErrKeyUnhealthy = errors.New("the key is held by a backend that is ending")
	// ErrNoDrone: Store.Connect wraps it in a NoDroneError, which says what was
	// missing.
	ErrNoDrone = errors.New("no drone can take the backend")
	// ErrBackendExists: the wished-for backend name is or was in use, and not
	// by the backend that holds the key.
	ErrBackendExists = errors.New("the backend name is taken")
)

// NoDroneError is ErrNoDrone with its explanation: no drone at all, none that is
// connected and not draining, or none with the room asked for.
type NoDroneError struct {
	Explanation string // a sentence for people, by placement.Explain
}

// NoDrone makes a NoDroneError: why a backend found no drone. Drones are those of
// its cluster and pool that ClusterState lists.
func NoDrone(s *SpawnParams, drones []placement.Refused) error {
	wish := placement.Wish{Cluster: s.Cluster, Pool: s.Pool, Asks: s.Asks, Healthy: s.Healthy}
	return &NoDroneError{Explanation: placement.Explain(wish, drones)}
}

func (e *NoDroneError) Error() string { return e.Explanation }

func (e *NoDroneError) Unwrap() error { return ErrNoDrone }

// Store is Plane's persistent state, shared by all controllers. Every method is
// atomic and linearizable, blocks for about one round trip, and may be called
// from any number of tasks. Its clock (the database's) is the only clock in it:
// no time that a caller took is compared with it. Methods that take slices
// answer item by item, in order, and an item that cannot be applied does not
// hinder the others.
//
// A call that failed unclearly may be repeated: each method says what that
// does.
type Store interface {
	ChallengeStore

	// Health returns nil when the store answers.
	Health(ctx context.Context) error

	// Connect finds the backend that holds p.Key, or gives the key to a new
	// backend on the drone that placement chooses, with its spawn action and the
	// first entry of its history. In either case, unless the backend has a
	// static token, p.Token is recorded for it; but a token that was revoked stays
	// void: the call may be a late try of an earlier one.
	//
	// A key whose lease has expired counts as free, and is taken over. Errors:
	// ErrKeyUnheld (no p.Spawn), ErrKeyHeld, ErrKeyUnhealthy, ErrNoDrone,
	// ErrBackendExists; with ErrKeyUnhealthy the answer names the BackendID that
	// is ending. Repeated with the same parameters after an unclear
	// failure it finds what the first call made, and Spawned is true again as
	// long as p.Spawn.BackendID is what holds the key.
	Connect(ctx context.Context, p ConnectParams) (Connected, error)

	// RouteToken returns where a bearer or static token leads, or ErrNotFound
	// when it is unknown, revoked or expired, or its backend has begun to end.
	RouteToken(ctx context.Context, token string) (Route, error)

	// Revoke deletes every token of the user for the backend, and hints
	// RevokedTopic. ErrNotFound when there is no such backend; harmless twice.
	Revoke(ctx context.Context, backendID, user string) error

	// Revocations returns the revocations of the last within (on the store's
	// clock), in order of ID, and what that clock shows.
	Revocations(ctx context.Context, within time.Duration) (recent []Revocation, now time.Time, err error)

	// Terminate adds a terminate action for a backend, unless it is terminated
	// or an action at least as hard is under way; harmless twice. ErrNotFound
	// when there is no such backend. While an action for it is pending, each call
	// hints ActionTopic: it may be the repetition of one that nobody heard of.
	Terminate(ctx context.Context, p TerminateParams) error

	// RecordStates adds state changes that drones report. An item is applied
	// when the backend is known, runs on that drone and the state is later than
	// its present one; else it has no effect. The reason is in the answer; in
	// each case the drone may forget the event. Waiting and Ready set the
	// address; Terminated frees the key and voids actions and tokens. Each
	// applied change hints BackendTopic, and so does a Stale one: it may be the
	// repetition of a change that nobody heard of. Harmless twice.
	RecordStates(ctx context.Context, reports []StateReport) ([]RecordOutcome, error)

	// RenewKeys extends leases by lease.Timing.Expiry from the commit. An item
	// is true when the backend, on that drone, still holds its key, the lease
	// has not expired, and no operator prevents it. A terminating backend may renew. Harmless twice.
	RenewKeys(ctx context.Context, renewals []Renewal) ([]bool, error)

	// KeepAlive notes which backends a proxy uses; see ProxyUse. Unknown
	// backends are skipped; harmless twice.
	KeepAlive(ctx context.Context, u ProxyUse) error

	// PendingActions returns what the drone has not acknowledged, oldest first.
	PendingActions(ctx context.Context, drone NodeID) ([]PendingAction, error)
	// AckActions marks actions of the drone as taken over. Unknown ones are
	// skipped; harmless twice.
	AckActions(ctx context.Context, drone NodeID, actionIDs []string) error

	// RegisterNode notes that a node is connected to a controller, and gives
	// its number, the same for the same kind, cluster and name ever after. It
	// makes a drone a candidate for placement only from its next heartbeat on.
	// Connection tells this connection from an earlier or parallel one of the
	// same node. Harmless twice.
	RegisterNode(ctx context.Context, n NodeRegistration) (NodeID, error)
	// DisconnectNode notes that the connection is over; without effect when the
	// node has connected anew since. Harmless twice.
	DisconnectNode(ctx context.Context, node NodeID, connection string) error
	// Heartbeats notes that drones live, and what their clocks showed.
	// Late ones (with an older LocalTime) do not move LocalTime back. Harmless
	// twice. One on another connection than the drone's present one is a sign of
	// life and no more; but where the present one is over, or had none for three
	// times HeartbeatEvery, the other becomes the present one.
	Heartbeats(ctx context.Context, beats []DroneHeartbeat) error
	// ControllerHeartbeat notes that a controller lives. Harmless twice.
	ControllerHeartbeat(ctx context.Context, c ControllerInfo) error

	// Drain keeps new backends from a drone for good. False when it was
	// draining already; ErrNotFound when there is no such drone.
	Drain(ctx context.Context, cluster, drone string) (bool, error)

	// Sweep ends what has to end: it adds terminate actions for backends past
	// their idle or lifetime limit (soft, and hard once the soft one had
	// SweepParams.HardAfter to work), and declares terminated (reason lost, or
	// keyexpired) those whose drone is lost or whose lease ran out long ago or
	// before they were ever started. Handles at most p.Limit backends; returns how
	// many, and whether there may be more to do at once: then it is to be called
	// again. Without more, whatever else was due is being handled by another
	// sweep. Any number of controllers may sweep at once, and need not all look:
	// see SweepParams.Every. Who has the turn may fail before it has done
	// anything; then the next to come after Every does it.
	//
	// A backend is idle when it has been ready for its limit, no proxy has used
	// it for as long, and each proxy of its cluster has said since, within the
	// last few seconds, that it does not use it. Only a proxy that has been silent
	// for SweepParams.ProxyGone is not waited for: until then it may be cut off
	// from all controllers and hold connections that it cannot tell of.
	//
	// A drone is lost when it has been silent for SweepParams.DroneLost, and
	// even then a backend is only declared terminated once its lease has expired.
	Sweep(ctx context.Context, p SweepParams) (handled int, more bool, err error)

	// Cleanup deletes terminated backends older than minAge (0: none), with all
	// that belongs to them, and expired tokens; at most limit; returns how many.
	// Where tokens are very many one call looks at a part of them, and the next
	// ones at others.
	Cleanup(ctx context.Context, minAge time.Duration, limit int) (int, error)

	// Statuses returns the present status of each backend. One that is not known
	// (any more) counts as terminated.
	Statuses(ctx context.Context, backendIDs []string) ([]backend.Status, error)
	// Backend returns one backend's present state, or ErrNotFound.
	Backend(ctx context.Context, backendID string) (Backend, error)
	// History returns the entries of a backend's history after the status
	// after (0: all), in order, or ErrNotFound.
	History(ctx context.Context, backendID string, after backend.Status) ([]HistoryEntry, error)
	// ClusterState lists the nodes of a cluster, in order of name, that were
	// heard from in the last two minutes or are connected to a controller that
	// was.
	ClusterState(ctx context.Context, cluster string) (protocol.ClusterState, error)
	// Backends lists a cluster's backends in order of name; see BackendQuery.
	Backends(ctx context.Context, q BackendQuery) ([]Backend, error)
}

// NodeID is the number of a node in the store.
type NodeID int64

// ConnectParams asks for a backend. All names and tokens are made up by the
// caller, so that the operation itself has nothing to draw but the placement,
// which comes from PlacementSeed.
type ConnectParams struct {
	Key           protocol.Key
	Spawn         *SpawnParams // nil: only find
	Token         string       // recorded unless the backend's token is static
	SecretToken   string
	User          *string
	UserData      json.RawMessage // an object, or nil
	TokenLife     time.Duration   // for new connections
	PlacementSeed uint64
	// RefuseStatic makes the call fail with ErrStaticUser when the backend that
	// holds the key has a static token: user and auth have no meaning there.
	RefuseStatic bool
}

// ErrStaticUser: user or auth came together with a static token.
var ErrStaticUser = errors.New("user and auth cannot go with a static token")

// SpawnParams describes the backend to make.
type SpawnParams struct {
	BackendID   string
	ActionID    string
	Cluster     string
	Pool        string
	Executable  json.RawMessage
	Lifetime    time.Duration // 0: no limit
	MaxIdle     time.Duration // 0: no limit
	StaticToken string        // empty: each connection has its own token
	Subdomain   string        // may be empty
	BestOf      int           // how many candidates placement looks at
	// Healthy: a drone silent for longer is no candidate. Of the others, those
	// that are between two connections are candidates only if none that is
	// connected has room.
	Healthy time.Duration
	Lease   lease.Timing
	// Asks is what the backend is promised on its drone, until it is terminated. A
	// drone takes a backend only if it has room (placement.Load.HasRoom) on top of
	// what its live backends were promised; that holds whatever is placed at the
	// same time. Of those with room, one is drawn as placement.Choose says.
	Asks placement.Resources
}

// Connected is what Connect found or made.
type Connected struct {
	BackendID string
	Spawned   bool
	// Status is one that the backend had during the call, and so may be older
	// than what others are told at the same time; History has the rest.
	Status      backend.Status
	Cluster     string
	Subdomain   string
	StaticToken string // empty unless the backend has one
	// Drone and DroneID say where it runs, when it was spawned.
	Drone   string
	DroneID NodeID
}

// Route is where a token leads.
type Route struct {
	Info   protocol.RouteInfo
	Status backend.Status // an address is there from Waiting on
}

// Revocation says that a user's tokens for a backend are void.
type Revocation struct {
	ID        int64 // unique; later ones are mostly, not always, greater
	BackendID string
	User      string
}

// ProxyUse is a proxy's word on what it uses. With Complete the list is all that
// it uses, and its sign of life: what it used before and is not in the list is
// in use by it no longer. Without, the backends are added to what it uses.
type ProxyUse struct {
	Proxy    NodeID
	Backends []string
	Complete bool
	// AsOf is a time of the store's clock, read from Revocations before the
	// proxy's word came in. A complete list counts as said then, however late it
	// is committed, and not at all when a later one was committed already.
	AsOf time.Time
}

// TerminateParams asks for an end.
type TerminateParams struct {
	BackendID string
	ActionID  string
	Kind      backend.Kind
	Reason    backend.Reason
}

// StateReport is a drone's word on a backend.
type StateReport struct {
	Drone     NodeID
	BackendID string
	State     backend.State
	Time      time.Time // the drone's clock; only shown to people
}

// RecordOutcome says what became of a StateReport.
type RecordOutcome int

// The outcomes. None of them needs the report again.
const (
	Recorded   RecordOutcome = iota
	Stale                    // the backend was that far already
	NotOfDrone               // there is no such backend on that drone
)

// Renewal asks for another term.
type Renewal struct {
	Drone     NodeID
	BackendID string
	Lease     lease.Timing
}

// PendingAction is an unacknowledged action.
type PendingAction struct {
	Action protocol.Action
}

// NodeRegistration is a node's connection to a controller.
type NodeRegistration struct {
	Kind       NodeKind
	Cluster    string
	Name       string
	Pool       string // of a drone
	Controller string
	Connection string
	Version    protocol.Version
	// Capacity is what a drone has for backends, from now on. It may be less than
	// what its backends were promised: they stay, and it takes no more of that
	// before it fits.
	Capacity placement.Capacity
}

// NodeKind is drone or proxy.
type NodeKind string

// The kinds of nodes that are registered.
const (
	DroneNode NodeKind = "drone"
	ProxyNode NodeKind = "proxy"
)

// DroneHeartbeat is a drone's sign of life.
type DroneHeartbeat struct {
	Drone      NodeID
	Connection string
	LocalTime  time.Time // the drone's clock
}

// ControllerInfo is a controller's sign of life.
type ControllerInfo struct {
	Name    string
	Version protocol.Version
	PeerURL string // where other controllers reach its API; empty: nowhere
}

// SweepParams are the limits that Sweep goes by; ages are on the store's clock.
type SweepParams struct {
	Limit      int
	DroneLost  time.Duration // silence after which a drone is lost
	ProxyGone  time.Duration // silence after which a proxy holds no connections
	HardAfter  time.Duration // from a soft sweep to a hard one
	LeaseGrace time.Duration // from a lease's expiry to keyexpired
	// SkipIdle leaves idle backends alone: the store was out of reach until just
	// now, and what proxies use may not have been told to it yet.
	SkipIdle bool
	// Every says that a look at all backends which anybody's sweep with an Every
	// began less than so long ago is enough: then this sweep does nothing and
	// says that there is no more. 0 looks in any case, and is no such look for
	// others; so whoever was told of more goes on with it. A sweep with SkipIdle
	// is none either, as it leaves out what a complete one has to find in time.
	// TerminationCandidates goes by none of this.
	Every time.Duration
	// NewActionID makes up the names of actions.
	NewActionID func() string
}

// Backend is a backend as the store knows it.
type Backend struct {
	ID        string
	Key       protocol.Key
	Cluster   string
	Drone     string
	State     backend.State
	StateTime time.Time // as the drone, or for its own changes the store, told it
	CreatedAt time.Time // the store's clock
	// Controller is where its drone is connected, and PeerURL that controller's;
	// both are empty while it is connected nowhere.
	Controller, PeerURL string
}

// BackendQuery asks for one page of a cluster's backends: those after the
// cursor After (the name of the last one of the page before) that pass every
// filter that is set, at most Limit. A page costs about as much as what it looks
// at: with Live, nothing that has ended.
type BackendQuery struct {
	Cluster   string
	After     string
	Limit     int
	Live      bool             // only those that are not terminated
	Statuses  []backend.Status // any of these
	Drone     string           // by name
	Key       string           // by its name
	Namespace *string
}

// HistoryEntry is one step of a backend's life.
type HistoryEntry struct {
	State backend.State
	Time  time.Time
}

// Topic says what a hint is about.
type Topic string

// The topics.
const (
	BackendTopic Topic = "backend" // a backend's state changed; Subject is its name
	ActionTopic  Topic = "action"  // a drone has new actions; Subject is its NodeID in decimal
	RevokedTopic Topic = "revoked" // tokens were revoked: read Revocations; no Subject
	ResyncTopic  Topic = "resync"  // hints may have been lost: look at everything again
)

// Hint says that something may have changed. Hints may be lost, doubled, late
// and out of order; after a loss that it can notice the Listener gives a
// ResyncTopic. Whoever is woken reads from the store.
type Hint struct {
	Topic   Topic
	Subject string
}

// Listener is a controller's one subscription to the store's hints.
type Listener interface {
	// Next blocks for the next hint. An error means that the subscription was
	// cut, or could not be made; call again, and a ResyncTopic comes first. One
	// task at a time.
	Next(ctx context.Context) (Hint, error)
}
