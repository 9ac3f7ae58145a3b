// Package apiclient calls a controller's HTTP surface, as the command line
// does. A Client keeps nothing but idle connections and may be used by any
// number of goroutines at once.
//
// An answer that says what is wrong comes back as a *protocol.APIError; any
// other error means that the controller could not be reached, or answered with
// something else. No error shows the bearer token.
package apiclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"plane/system/backend"
	"plane/system/protocol"
)

// maxAnswer is how much of an answer is read.
const maxAnswer = 64 << 20

// Client calls one controller.
type Client struct {
	base   *url.URL
	header http.Header
	http   *http.Client
}

// ServerStatus is what a controller says of itself.
type ServerStatus struct {
	Status  string `json:"status"`
	Version string `json:"version"`
	Hash    string `json:"hash"`
}

// New makes a client of the controller at an http or https URL. A user name in
// it is sent as a bearer token.
func New(controller string, version protocol.Version) (*Client, error) {
	u, err := url.Parse(controller)
	if err != nil {
		return nil, errors.New("controller URL is malformed; want http://host:port or https://host, with a bearer token before an @ if one is needed")
	}
	c := &Client{base: u, header: http.Header{"User-Agent": {"plane/" + version.Version}}, http: &http.Client{}}
	if u.User != nil {
		c.header.Set("Authorization", "Bearer "+u.User.Username())
		u.User = nil
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("controller URL %q: want http://host:port or https://host", u)
	}
	return c, nil
}

// Health returns nil when the controller and its store answer.
func (c *Client) Health(ctx context.Context) error {
	return c.call(ctx, http.MethodGet, []string{"pub", "health"}, nil, nil)
}

// ServerStatus asks which version runs.
func (c *Client) ServerStatus(ctx context.Context) (ServerStatus, error) {
	var s ServerStatus
	return s, c.call(ctx, http.MethodGet, []string{"ctrl", "status"}, nil, &s)
}

// Connect asks for the backend of a key.
func (c *Client) Connect(ctx context.Context, req protocol.ConnectRequest) (protocol.ConnectResponse, error) {
	var resp protocol.ConnectResponse
	return resp, c.call(ctx, http.MethodPost, []string{"ctrl", "connect"}, req, &resp)
}

// Terminate ends a backend.
func (c *Client) Terminate(ctx context.Context, backendID string, kind backend.Kind) error {
	return c.call(ctx, http.MethodPost, []string{"ctrl", "b", backendID, string(kind) + "-terminate"}, nil, nil)
}

// Revoke voids a user's tokens for a backend.
func (c *Client) Revoke(ctx context.Context, req protocol.RevokeRequest) error {
	return c.call(ctx, http.MethodPost, []string{"ctrl", "revoke"}, req, nil)
}

// Drain keeps new backends from a drone.
func (c *Client) Drain(ctx context.Context, cluster, drone string) (protocol.DrainResult, error) {
	var result protocol.DrainResult
	return result, c.call(ctx, http.MethodPost, []string{"ctrl", "c", cluster, "d", drone, "drain"}, nil, &result)
}

// ClusterState lists a cluster's drones and proxies.
func (c *Client) ClusterState(ctx context.Context, cluster string) (protocol.ClusterState, error) {
	var state protocol.ClusterState
	return state, c.call(ctx, http.MethodGet, []string{"ctrl", "c", cluster, "state"}, nil, &state)
}

// Backends lists one page of a cluster's backends; a Limit of 0 leaves it to the
// controller.
func (c *Client) Backends(ctx context.Context, cluster string, asked protocol.BackendsRequest) (protocol.BackendsPage, error) {
	var page protocol.BackendsPage
	req, err := c.request(ctx, http.MethodGet, []string{"ctrl", "c", cluster, "backends"}, nil)
	if err != nil {
		return page, err
	}
	req.URL.RawQuery = parameters(asked).Encode()
	return page, c.exchange(req, &page)
}

func parameters(asked protocol.BackendsRequest) url.Values {
	q := url.Values{}
	for _, s := range asked.Statuses {
		q.Add("status", s.String())
	}
	for name, value := range map[string]string{"drone": asked.Drone, "key": asked.Key, "after": asked.After} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if asked.Live {
		q.Set("live", "true")
	}
	if asked.Namespace != nil {
		q.Set("namespace", *asked.Namespace)
	}
	if asked.Limit != 0 {
		q.Set("limit", strconv.Itoa(asked.Limit))
	}
	return q
}

// Status returns the last entry of a backend's history.
func (c *Client) Status(ctx context.Context, backendID string) (protocol.StatusEntry, error) {
	var entry protocol.StatusEntry
	return entry, c.call(ctx, http.MethodGet, []string{"pub", "b", backendID, "status"}, nil, &entry)
}

// StatusStream calls each for the entries of a backend's history after the
// status after (0: all), the past ones first. It returns nil when the stream has
// ended in good order, and the error of each when that stops it.
func (c *Client) StatusStream(ctx context.Context, backendID string, after backend.Status, each func(protocol.StatusEntry) error) error {
	var header http.Header
	if after != 0 {
		header = http.Header{"Last-Event-Id": {after.String()}}
	}
	return stream(ctx, c, []string{"pub", "b", backendID, "status-stream"}, header, each, nil)
}

// Metrics asks what a backend said last that it uses.
func (c *Client) Metrics(ctx context.Context, backendID string) (protocol.MetricsEntry, error) {
	var entry protocol.MetricsEntry
	return entry, c.call(ctx, http.MethodGet, []string{"ctrl", "b", backendID, "metrics"}, nil, &entry)
}

// MetricsStream calls each for what a backend uses, as it tells it. It returns
// nil when the stream has ended in good order, and the error of each when that
// stops it.
func (c *Client) MetricsStream(ctx context.Context, backendID string, each func(protocol.MetricsEntry) error) error {
	return stream(ctx, c, []string{"ctrl", "b", backendID, "metrics-stream"}, nil, each, nil)
}

// stream reads server-sent events: each is called for every one, and idle, if
// there is one, for every comment.
func stream[E any](ctx context.Context, c *Client, path []string, header http.Header, each func(E) error, idle func() error) error {
	req, err := c.request(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	maps.Copy(req.Header, header)
	req.Header.Set("Accept", "text/event-stream")
	resp, err := c.do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // only read from
	return events(resp.Body, func(data []byte) error {
		var entry E
		if err := json.Unmarshal(data, &entry); err != nil {
			return fmt.Errorf("%s: an event is not a controller's: %w", req.URL.Path, err)
		}
		return each(entry)
	}, idle)
}

func (c *Client) call(ctx context.Context, method string, path []string, body, answer any) error {
	req, err := c.request(ctx, method, path, body)
	if err != nil {
		return err
	}
	return c.exchange(req, answer)
}

// exchange sends a request and reads its answer, unless that is nil.
func (c *Client) exchange(req *http.Request, answer any) error {
	resp, err := c.do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // only read from
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%s %s: read the answer: %w", req.Method, req.URL.Path, err)
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(b, answer); err != nil {
		return fmt.Errorf("%s %s: the answer is not a controller's: %w", req.Method, req.URL.Path, err)
	}
	return nil
}

func (c *Client) request(ctx context.Context, method string, path []string, body any) (*http.Request, error) {
	escaped := make([]string, len(path))
	for i, part := range path {
		if part == "" || part == "." || part == ".." {
			return nil, fmt.Errorf("%q is not the name of anything", part)
		}
		escaped[i] = url.PathEscape(part)
	}
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode the request: %w", err)
		}
		content = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base.JoinPath(escaped...).String(), content)
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	req.Header = c.header.Clone()
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, nil
}

// do sends a request; an answer other than 2xx is an error.
func (c *Client) do(req *http.Request) (*http.Response, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("no answer from the controller at %s: %w", c.base, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close() //nolint:errcheck // only read from
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return nil, fmt.Errorf("%s %s: answered %s", req.Method, req.URL.Path, resp.Status)
	}
	var api protocol.APIError
	if err := json.Unmarshal(b, &api); err == nil && api.Kind != "" {
		return nil, &api
	}
	return nil, fmt.Errorf("%s %s: answered %s: %s", req.Method, req.URL.Path, resp.Status, clip(strings.TrimSpace(string(b))))
}

func clip(s string) string {
	if runes := []rune(s); len(runes) > 300 {
		return string(runes[:300]) + "…"
	}
	return s
}
