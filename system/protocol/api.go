package protocol

import (
	"encoding/json"

	"plane/system/backend"
)

// ConnectRequest asks for the backend of a key.
type ConnectRequest struct {
	Key         *Key            `json:"key"`
	SpawnConfig *SpawnConfig    `json:"spawn_config"`
	User        *string         `json:"user"`
	Auth        json.RawMessage `json:"auth,omitempty"` // an object
}

// SpawnConfig says how to start a backend when none holds the key. The
// executable goes to the drone as it is.
type SpawnConfig struct {
	ID                   *string         `json:"id"`
	Cluster              *string         `json:"cluster"`
	Pool                 string          `json:"pool"`
	Executable           json.RawMessage `json:"executable"`
	LifetimeLimitSeconds *int64          `json:"lifetime_limit_seconds"`
	MaxIdleSeconds       *int64          `json:"max_idle_seconds"`
	UseStaticToken       bool            `json:"use_static_token"`
	Subdomain            *string         `json:"subdomain"`
}

// ConnectResponse says where the backend is.
type ConnectResponse struct {
	BackendID   string         `json:"backend_id"`
	Spawned     bool           `json:"spawned"`
	Status      backend.Status `json:"status"`
	Token       string         `json:"token"`
	URL         string         `json:"url"`
	Subdomain   *string        `json:"subdomain"`
	SecretToken *string        `json:"secret_token"`
	StatusURL   string         `json:"status_url"`
	Drone       *string        `json:"drone"`
}

// RevokeRequest names whose tokens for which backend become void.
type RevokeRequest struct {
	BackendID string `json:"backend_id"`
	User      string `json:"user"`
}

// StatusEntry is one entry of a backend's history. ExitCode, OOM and Message
// are ours.
type StatusEntry struct {
	Status            backend.Status `json:"status"`
	TerminationReason backend.Reason `json:"termination_reason,omitempty"`
	TerminationKind   backend.Kind   `json:"termination_kind,omitempty"`
	ExitError         *bool          `json:"exit_error,omitempty"`
	Time              Millis         `json:"time"`
	ExitCode          *int           `json:"exit_code,omitempty"`
	OOM               bool           `json:"oom,omitempty"`
	Message           string         `json:"message,omitempty"`
}

// NewStatusEntry shows a state as an entry of the history.
func NewStatusEntry(s backend.State, at Millis) StatusEntry {
	e := StatusEntry{Status: s.Status, TerminationReason: s.Reason, TerminationKind: s.Termination, Time: at}
	if s.Status == backend.Terminated {
		failed := s.ExitCode != nil && *s.ExitCode != 0
		e.ExitError, e.ExitCode, e.OOM, e.Message = &failed, s.ExitCode, s.OOM, s.Message
	}
	return e
}

// ForwardedHeader is set on a request that a controller passes to another, and
// holds the name of the one that does (ours). The other passes it to nobody.
const ForwardedHeader = "X-Plane-Forwarded-By"

// MetricsEntry is what a backend uses, as a controller tells it (ours).
type MetricsEntry struct {
	BackendMetrics
	AgeMillis int64 `json:"age_ms"` // since the controller was told
}

// ClusterState lists the nodes of a cluster.
type ClusterState struct {
	Drones  []DroneState `json:"drones"`
	Proxies []NodeState  `json:"proxies"`
}

// DroneState is a drone as the store knows it; ages are in seconds.
type DroneState struct {
	Ready            bool      `json:"ready"`
	Draining         bool      `json:"draining"`
	LastHeartbeatAge int64     `json:"last_heartbeat_age"`
	BackendCount     int64     `json:"backend_count"`
	Node             NodeState `json:"node"`

	// Ours: what the drone has for backends, and what of it those that are not
	// terminated were promised.
	Capacity Capacity  `json:"capacity"`
	Promised Resources `json:"promised"`
}

// NodeState is a connected node; the name is {"Drone":"dr-…"} or
// {"Proxy":"px-…"}.
type NodeState struct {
	Name                   NodeName `json:"name"`
	PlaneVersion           string   `json:"plane_version"`
	PlaneHash              string   `json:"plane_hash"`
	Controller             string   `json:"controller"`
	ControllerHeartbeatAge int64    `json:"controller_heartbeat_age"`
}

// NodeName has one of its fields set.
type NodeName struct {
	Drone string `json:"Drone,omitempty"`
	Proxy string `json:"Proxy,omitempty"`
}

// BackendsRequest (ours) asks for one page of a cluster's backends, in order of
// name. Filters that are left empty let all pass.
type BackendsRequest struct {
	Statuses  []backend.Status // any of these
	Live      bool             // only those that are not terminated
	Drone     string           // by name
	Key       string           // by its name
	Namespace *string
	After     string // the cursor of the page before; empty: from the first on
	Limit     int    // 1 to MostBackends
}

// The number of backends in a page.
const (
	SomeBackends = 100 // unless the request says another
	MostBackends = 1000
)

// BackendsPage answers a BackendsRequest. Next is the cursor of the next page,
// and null on the last one.
type BackendsPage struct {
	Backends []BackendEntry `json:"backends"`
	Next     *string        `json:"next"`
}

// BackendEntry is a backend with the latest entry of its history.
type BackendEntry struct {
	ID        string `json:"id"`
	Key       Key    `json:"key"`
	Drone     string `json:"drone"`
	CreatedAt Millis `json:"created_at"`
	Address   string `json:"address,omitempty"` // while it waits for its first answer, or is ready
	StatusEntry
}

// DrainResult answers a drain: false when the drone was draining already.
type DrainResult struct {
	Updated bool `json:"updated"`
}

// ErrorKind is the kind of an API error.
type ErrorKind string

// The kinds of API errors.
const (
	KeyUnheldNoSpawnConfig ErrorKind = "KeyUnheldNoSpawnConfig"
	KeyHeld                ErrorKind = "KeyHeld"
	KeyHeldUnhealthy       ErrorKind = "KeyHeldUnhealthy"
	FailedToRemoveKey      ErrorKind = "FailedToRemoveKey"
	FailedToAcquireKey     ErrorKind = "FailedToAcquireKey"
	NoDroneAvailable       ErrorKind = "NoDroneAvailable"
	NoClusterProvided      ErrorKind = "NoClusterProvided"
	InvalidClusterName     ErrorKind = "InvalidClusterName"
	NotFound               ErrorKind = "NotFound"
	DatabaseError          ErrorKind = "DatabaseError"
	Other                  ErrorKind = "Other"
	InvalidRequest         ErrorKind = "InvalidRequest" // ours
	Unavailable            ErrorKind = "Unavailable"    // ours: what is asked for cannot be told now
)

// HTTPStatus is the status code that goes with the kind.
func (k ErrorKind) HTTPStatus() int {
	switch k {
	case KeyUnheldNoSpawnConfig, KeyHeld, FailedToRemoveKey:
		return 409
	case NoClusterProvided, InvalidClusterName, InvalidRequest:
		return 400
	case NotFound:
		return 404
	case Unavailable:
		return 503
	default:
		return 500
	}
}

// APIError is the body of every error answer. Cause is for the log alone.
type APIError struct {
	ID      string    `json:"id"`
	Kind    ErrorKind `json:"kind"`
	Message string    `json:"message"`
	Cause   error     `json:"-"`
}

func (e *APIError) Error() string { return string(e.Kind) + ": " + e.Message }

func (e *APIError) Unwrap() error { return e.Cause }
