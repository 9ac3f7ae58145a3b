package port

import (
	"context"

	"plane/system/protocol"
)

// MetricsQuery asks a controller what a backend uses.
type MetricsQuery struct {
	BackendID string
	// Caller is what the request said of who asks. It goes along when another
	// controller is asked, which wants to be convinced as well.
	Caller Caller
	// Forwarded is set when another controller asks: then nobody else is.
	Forwarded bool
}

// Caller holds the header fields of a request, by which an authorisation
// service may judge it. They may be secrets: they are for Peers alone.
type Caller map[string][]string

// Peers asks other controllers what only they know. Its errors are
// *protocol.APIError where the other controller gave an error as its answer, and
// ErrUnavailable where none came in time. No method has an effect anywhere.
type Peers interface {
	// Metrics blocks for the answer.
	Metrics(ctx context.Context, peerURL string, q MetricsQuery) (protocol.MetricsEntry, error)
	// MetricsStream calls send for each entry, and idle for each sign that the
	// stream is alive. It blocks until the other side ends the stream (nil), one
	// of the two fails (its error), or the stream is cut or silent for too long
	// (ErrUnavailable).
	MetricsStream(ctx context.Context, peerURL string, q MetricsQuery, send func(protocol.MetricsEntry) error, idle func() error) error
}
