package protocol

import (
	"encoding/json"
	"strconv"
	"strings"

	"plane/system/backend"
)

// Handshake is the first frame each way on every socket, client first.
type Handshake struct {
	Version  Version   `json:"version"`
	Name     string    `json:"name"`
	Capacity *Capacity `json:"capacity,omitempty"` // ours, of a drone; nil: no limits
}

// Version is what a process was built from.
type Version struct {
	Version string `json:"version"`
	GitHash string `json:"git_hash"`
}

// Before06 reports whether the peer is Plane 0.5.x or older, which knows one
// certificate challenge at a time.
func (v Version) Before06() bool {
	major, rest, _ := strings.Cut(v.Version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	n, err := strconv.Atoi(minor)
	return major == "0" && err == nil && n <= 5
}

// Key is what a backend is asked for by.
type Key struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
	Tag       string `json:"tag"`
}

// FromDrone is a message that a drone sends: Heartbeat, BackendEvent,
// BackendMetrics, AckAction or RenewKey.
type FromDrone interface{ fromDrone() }

// ToDrone is a message that a drone receives: Action, AckEvent or
// RenewKeyResponse.
type ToDrone interface{ toDrone() }

// FromProxy is a message that a proxy sends: RouteInfoRequest, KeepAlive,
// CertManagerRequest, or (ours) Heartbeat.
type FromProxy interface{ fromProxy() }

// ToProxy is a message that a proxy receives: RouteInfoResponse,
// CertManagerResponse, BackendRemoved or TokenRevoked.
type ToProxy interface{ toProxy() }

// Heartbeat says that a drone lives, and what its clock shows. A proxy of ours
// sends one every 7 s too, right after a KeepAlive for each backend in use: a
// controller that has received it knows that the proxy uses no others.
type Heartbeat struct {
	LocalTime Millis `json:"local_time"`
}

// BackendEvent tells a state change; the drone keeps and repeats it until an
// AckEvent with its EventID comes. EventIDs grow.
type BackendEvent struct {
	EventID   int64  `json:"event_id"`
	BackendID string `json:"backend_id"`
	State     State  `json:"state"`
	Timestamp Millis `json:"timestamp"`
}

// BackendMetrics is what a backend uses: bytes, and nanoseconds since the last
// such message.
type BackendMetrics struct {
	BackendID      string `json:"backend_id"`
	MemUsed        uint64 `json:"mem_used"`
	MemTotal       uint64 `json:"mem_total"`
	MemActive      uint64 `json:"mem_active"`
	MemInactive    uint64 `json:"mem_inactive"`
	MemUnevictable uint64 `json:"mem_unevictable"`
	MemLimit       uint64 `json:"mem_limit"`
	CPUUsed        uint64 `json:"cpu_used"`
	SysCPU         uint64 `json:"sys_cpu"`
}

// AckAction says that an action was taken over and need not come again.
type AckAction struct {
	ActionID string `json:"action_id"`
}

// RenewKey asks for another term of a backend's lease. LocalTime is the drone's
// clock just before sending.
type RenewKey struct {
	Backend   string `json:"backend"`
	LocalTime Millis `json:"local_time"`
}

func (Heartbeat) fromDrone()      {}
func (BackendEvent) fromDrone()   {}
func (BackendMetrics) fromDrone() {}
func (AckAction) fromDrone()      {}
func (RenewKey) fromDrone()       {}

// Action is something for a drone to do; exactly one of Spawn and Terminate is
// set. It is sent again until acknowledged.
type Action struct {
	ActionID  string     `json:"action_id"`
	BackendID string     `json:"backend_id"`
	DroneID   int64      `json:"drone_id"`
	Action    ActionBody `json:"action"`
}

// ActionBody holds one of its fields.
type ActionBody struct {
	Spawn     *Spawn     `json:"Spawn,omitempty"`
	Terminate *Terminate `json:"Terminate,omitempty"`
}

// Spawn asks a drone to start a backend. Executable is what the drone's
// runtime understands; nobody in between looks into it.
type Spawn struct {
	Executable  json.RawMessage `json:"executable"`
	Key         AcquiredKey     `json:"key"`
	StaticToken *string         `json:"static_token"`
}

// AcquiredKey is a key with its lease. Token is the fencing token.
type AcquiredKey struct {
	Key       Key       `json:"key"`
	Deadlines Deadlines `json:"deadlines"`
	Token     int64     `json:"token"`
}

// Terminate asks a drone to end a backend.
type Terminate struct {
	Kind   backend.Kind   `json:"kind"`
	Reason backend.Reason `json:"reason"`
}

// AckEvent says that a BackendEvent is recorded.
type AckEvent struct {
	EventID int64 `json:"event_id"`
}

// RenewKeyResponse answers RenewKey; without Deadlines the key could not be
// renewed and the backend has to go.
type RenewKeyResponse struct {
	Backend   string     `json:"backend"`
	Deadlines *Deadlines `json:"deadlines"`
}

func (Action) toDrone()           {}
func (AckEvent) toDrone()         {}
func (RenewKeyResponse) toDrone() {}

// RouteInfoRequest asks where a token leads.
type RouteInfoRequest struct {
	Token string `json:"token"`
}

// KeepAlive says that a backend is in use.
type KeepAlive struct{ Backend string }

// CertManagerRequest asks for the certificate lease or its TXT record; exactly
// one of its parts is set.
type CertManagerRequest struct {
	CertLeaseRequest bool
	SetTxtRecord     *SetTxtRecord
	ReleaseCertLease bool
}

// SetTxtRecord names the value that an ACME challenge wants to see.
type SetTxtRecord struct {
	TxtValue string `json:"txt_value"`
}

func (Heartbeat) fromProxy()          {} // ours: after the KeepAlives of all backends in use
func (RouteInfoRequest) fromProxy()   {}
func (KeepAlive) fromProxy()          {}
func (CertManagerRequest) fromProxy() {}

// RouteInfoResponse answers RouteInfoRequest; without RouteInfo the token leads
// nowhere.
type RouteInfoResponse struct {
	Token     string     `json:"token"`
	RouteInfo *RouteInfo `json:"route_info"`
}

// RouteInfo is where a token leads, and for whom.
type RouteInfo struct {
	BackendID   string          `json:"backend_id"`
	Address     string          `json:"address"`
	SecretToken string          `json:"secret_token"`
	Cluster     string          `json:"cluster"`
	User        *string         `json:"user"`
	UserData    json.RawMessage `json:"user_data"` // an object, or null
	Subdomain   *string         `json:"subdomain"`
	// ExpiresIn, ours, is how many milliseconds the token may still open new
	// connections, counted from this message. Nil: as long as the backend lives.
	ExpiresIn *int64 `json:"expires_in_ms,omitempty"`
}

// CertManagerResponse answers CertManagerRequest; exactly one part is set.
type CertManagerResponse struct {
	CertLeaseResponse    *Accepted `json:"CertLeaseResponse,omitempty"`
	SetTxtRecordResponse *Accepted `json:"SetTxtRecordResponse,omitempty"`
}

// Accepted is a yes or a no.
type Accepted struct {
	Accepted bool `json:"accepted"`
}

// BackendRemoved says that no route leads to the backend any more.
type BackendRemoved struct {
	Backend string `json:"backend"`
}

// TokenRevoked, ours, says that a user's tokens for a backend are void: routes
// go and open connections are closed.
type TokenRevoked struct {
	Backend string `json:"backend"`
	User    string `json:"user"`
}

func (RouteInfoResponse) toProxy()   {}
func (CertManagerResponse) toProxy() {}
func (BackendRemoved) toProxy()      {}
func (TokenRevoked) toProxy()        {}
