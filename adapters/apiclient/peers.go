package apiclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"plane/system/port"
	"plane/system/protocol"
)

// How long another controller may take.
const (
	// PeerAnswer is until its answer begins; connecting is part of that.
	PeerAnswer = 5 * time.Second
	// PeerSilence is between two signs of life of a stream, which come about
	// every 10 s.
	PeerSilence = 35 * time.Second
)

// Peers implements port.Peers: it asks other controllers over HTTP. It keeps
// idle connections and may be used by any number of goroutines at once. It
// follows no redirects, as what it was given of a caller is for the controller
// alone, and takes no detour over a proxy.
type Peers struct {
	name    string
	version protocol.Version
	http    *http.Client
	answer  time.Duration // PeerAnswer
	silence time.Duration // PeerSilence
}

var _ port.Peers = (*Peers)(nil)

// NewPeers makes the way from the controller of that name to others.
func NewPeers(name string, version protocol.Version) *Peers {
	return newPeers(name, version, PeerAnswer, PeerSilence)
}

func newPeers(name string, version protocol.Version, answer, silence time.Duration) *Peers {
	return &Peers{name: name, version: version, answer: answer, silence: silence, http: &http.Client{
		Transport: &http.Transport{
			DialContext:           (&net.Dialer{Timeout: answer}).DialContext,
			TLSHandshakeTimeout:   answer,
			ResponseHeaderTimeout: answer,
			IdleConnTimeout:       time.Minute,
			MaxIdleConnsPerHost:   8,
			ForceAttemptHTTP2:     true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Metrics implements port.Peers.
func (p *Peers) Metrics(ctx context.Context, peerURL string, q port.MetricsQuery) (protocol.MetricsEntry, error) {
	c, err := p.client(peerURL, q)
	if err != nil {
		return protocol.MetricsEntry{}, err
	}
	asked, cancel := context.WithTimeout(ctx, p.answer)
	defer cancel()
	entry, err := c.Metrics(asked, q.BackendID)
	return entry, unavailable(ctx, err)
}

// MetricsStream implements port.Peers.
func (p *Peers) MetricsStream(ctx context.Context, peerURL string, q port.MetricsQuery, send func(protocol.MetricsEntry) error, idle func() error) error {
	c, err := p.client(peerURL, q)
	if err != nil {
		return err
	}
	alive, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(p.silence, func() { cancel(errSilent) })
	defer silence.Stop()
	var refused error
	err = stream(alive, c, []string{"ctrl", "b", q.BackendID, "metrics-stream"}, nil,
		func(e protocol.MetricsEntry) error {
			silence.Reset(p.silence)
			refused = send(e)
			return refused
		},
		func() error {
			silence.Reset(p.silence)
			refused = idle()
			return refused
		})
	switch {
	case refused != nil:
		return refused
	case errors.Is(context.Cause(alive), errSilent):
		err = errSilent
	}
	return unavailable(ctx, err)
}

var errSilent = errors.New("the stream has been silent for too long")

// client is a Client of one peer, in the name of a query's caller.
func (p *Peers) client(peerURL string, q port.MetricsQuery) (*Client, error) {
	c, err := New(peerURL, p.version)
	if err != nil {
		return nil, fmt.Errorf("another controller's --peer-url: %w: %w", port.ErrUnavailable, err)
	}
	c.http, c.header = p.http, http.Header(q.Caller).Clone()
	if c.header == nil {
		c.header = http.Header{}
	}
	for _, own := range []string{"Accept-Encoding", "Content-Type", "Last-Event-Id"} {
		c.header.Del(own)
	}
	c.header.Set(protocol.ForwardedHeader, p.name)
	return c, nil
}

// unavailable says that a controller did not answer, unless it did, or nobody
// waits for the answer any more.
func unavailable(ctx context.Context, err error) error {
	var api *protocol.APIError
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err == nil || errors.As(err, &api):
		return err
	}
	return fmt.Errorf("%w: %w", port.ErrUnavailable, err)
}
