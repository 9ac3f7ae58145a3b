package httpapi

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"
	"time"

	"plane/system/protocol"
)

// ForwardAuthTimeout is how long the auth service may take to answer.
const ForwardAuthTimeout = 5 * time.Second

// originalPath is the header that tells the auth service what is asked for.
const originalPath = "X-Original-Path"

// forwardAuth asks another service whether a request may pass.
type forwardAuth struct {
	url    *url.URL
	client *http.Client
}

func newForwardAuth(u *url.URL) *forwardAuth {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.Proxy = nil // the service is a neighbour
	transport.MaxIdleConnsPerHost = 32
	return &forwardAuth{url: u, client: &http.Client{
		Transport: transport,
		// A redirect is an answer other than 2xx.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// check returns nil when the request may pass, and else the error to answer
// with.
func (a *forwardAuth) check(r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), ForwardAuthTimeout)
	defer cancel()
	ask, err := http.NewRequestWithContext(ctx, r.Method, a.url.String(), nil)
	if err != nil {
		return fmt.Errorf("ask the auth service: %w", err)
	}
	ask.Header = endToEnd(r.Header)
	// The path that the route was chosen by, spelled in the one simplest way:
	// an escaped letter must not get past a rule of the service.
	asked := url.URL{Path: strings.TrimPrefix(r.URL.Path, "/ctrl")}
	ask.Header.Set(originalPath, asked.EscapedPath())
	resp, err := a.client.Do(ask)
	if err != nil {
		return &statusError{status: http.StatusBadGateway, cause: err,
			body: protocol.APIError{Kind: protocol.Other, Message: "the forward-auth service does not answer"}}
	}
	defer resp.Body.Close() //nolint:errcheck // only read from
	// Reading what is short keeps the connection for the next request.
	_, _ = io.CopyN(io.Discard, resp.Body, 4096)
	if resp.StatusCode/100 != 2 {
		return &statusError{status: http.StatusUnauthorized,
			body: protocol.APIError{Kind: protocol.Other, Message: "not authorised by the forward-auth service"}}
	}
	return nil
}

// hopByHop are the headers that belong to one connection, and those that
// describe the body, which is not sent along.
var hopByHop = []string{
	"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Content-Length", "Expect",
}

// endToEnd copies the headers that are not about this connection.
func endToEnd(h http.Header) http.Header {
	out := h.Clone()
	for _, list := range h["Connection"] {
		for named := range strings.SplitSeq(list, ",") {
			out.Del(textproto.TrimString(named))
		}
	}
	for _, named := range hopByHop {
		out.Del(named)
	}
	return out
}
