package port

import (
	"context"
	"errors"
	"time"

	"plane/system/backend"
	"plane/system/protocol"
)

// ControllerAPI is what a controller offers to its HTTP surface. Errors are
// *protocol.APIError where the caller has to be told a kind.
type ControllerAPI interface {
	// Health returns nil when the store answers.
	Health(ctx context.Context) error
	Connect(ctx context.Context, req protocol.ConnectRequest) (protocol.ConnectResponse, error)
	Terminate(ctx context.Context, backendID string, kind backend.Kind) error
	Revoke(ctx context.Context, req protocol.RevokeRequest) error
	Drain(ctx context.Context, cluster, drone string) (protocol.DrainResult, error)
	ClusterState(ctx context.Context, cluster string) (protocol.ClusterState, error)
	// Backends lists one page of a cluster's backends.
	Backends(ctx context.Context, cluster string, req protocol.BackendsRequest) (protocol.BackendsPage, error)
	Status(ctx context.Context, backendID string) (protocol.StatusEntry, error)
	// StatusStream calls send for each entry after the status after (0: all), in
	// order, and then for each new one as it happens. It blocks until the
	// backend has terminated (nil), send fails, or the context ends. idle is
	// called now and then while there is nothing to send.
	StatusStream(ctx context.Context, backendID string, after backend.Status, send func(protocol.StatusEntry) error, idle func() error) error
	// Metrics returns what a backend said last that it uses.
	Metrics(ctx context.Context, q MetricsQuery) (protocol.MetricsEntry, error)
	// MetricsStream calls send for the latest entry, if there is one, and then
	// for each new one as it comes. It blocks until the backend has terminated
	// (nil), send fails, the statistics are out of reach, or the context ends.
	// idle is called now and then while there is nothing to send.
	MetricsStream(ctx context.Context, q MetricsQuery, send func(protocol.MetricsEntry) error, idle func() error) error
	// ServeDrone and ServeProxy run one session; they block until it is over,
	// and close the Conn.
	ServeDrone(ctx context.Context, cluster, pool string, conn Conn) error
	ServeProxy(ctx context.Context, cluster string, conn Conn) error
	// ServeDNS runs one session of a DNS receiver, likewise.
	ServeDNS(ctx context.Context, conn Conn) error
}

// ChallengeReader is what a DNS receiver's role offers to its DNS server.
type ChallengeReader interface {
	// Challenges returns the values of the cluster's ACME challenges; none, and
	// no error, where there are none or no such cluster. It blocks while a
	// controller is asked, for a second or two at most; ErrUnavailable: none could
	// say.
	Challenges(ctx context.Context, cluster string) ([]string, error)
	// Remembered returns what Challenges would without asking a controller; false
	// when it would ask one, or fail. It does not block.
	Remembered(cluster string) ([]string, bool)
}

// Router is what a proxy offers to its HTTP server.
type Router interface {
	// Ready reports whether a controller is connected. Does not block.
	Ready() bool
	// Route returns where the token leads. It blocks while the backend starts,
	// and asks a controller where it has to. ErrNotFound: the token leads
	// nowhere. ErrUnavailable: no controller could be asked in time.
	// context.DeadlineExceeded: the backend was not ready in time.
	Route(ctx context.Context, token string) (protocol.RouteInfo, error)
	// Open notes a use of the backend until done is called: upgraded is true
	// for a connection that keeps the backend alive as long as it is open. ctx
	// ends when the use has to (the token was revoked). ErrNotFound when the
	// route has become void since it was given. Neither blocks.
	Open(ctx context.Context, token string, route protocol.RouteInfo, upgraded bool) (use context.Context, done func(), err error)
}

// ErrUnavailable: whoever would have to answer cannot be reached in time.
var ErrUnavailable = errors.New("unavailable")

// Times of a node's life that both ends have to agree on.
const (
	HeartbeatEvery = 7 * time.Second
)
