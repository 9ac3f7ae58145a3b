// Package httpprobe asks backends over HTTP whether they serve. It keeps
// nothing, not even a connection, and may be used by any number of goroutines
// at once.
package httpprobe

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Timeout is how long one probe may take.
const Timeout = 5 * time.Second

// Prober implements port.Prober.
type Prober struct{ client *http.Client }

// New makes a prober.
func New() *Prober {
	return &Prober{client: &http.Client{
		Transport: &http.Transport{
			DialContext:            (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
			DisableKeepAlives:      true, // the next probe must reach what serves then
			MaxResponseHeaderBytes: 1 << 20,
		},
		// Where it leads is no business of ours: any answer is an answer.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Probe implements port.Prober. That a port accepts connections says nothing:
// engines accept them before the program listens.
func (p *Prober) Probe(ctx context.Context, address string) error {
	limited, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(limited, http.MethodHead, "http://"+address+"/", nil)
	if err != nil {
		return fmt.Errorf("probe %s: %w", address, err)
	}
	req.Header.Set("User-Agent", "plane-probe")
	resp, err := p.client.Do(req)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("probe %s: %w", address, err)
	}
	return resp.Body.Close()
}
