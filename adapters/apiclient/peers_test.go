package apiclient_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/apiclient"
	"plane/system/port"
	"plane/system/protocol"
)

var query = port.MetricsQuery{BackendID: "b1", Caller: port.Caller{
	"Authorization": {"Bearer s3cret"}, "X-Api-Key": {"one", "two"}, "Content-Type": {"text/plain"}, "Last-Event-Id": {"5"}, "Accept-Encoding": {"br"},
}}

// peer serves as another controller does.
func peer(t *testing.T, h http.HandlerFunc) (url string) {
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

func usage(memory uint64) protocol.MetricsEntry {
	return protocol.MetricsEntry{BackendMetrics: protocol.BackendMetrics{BackendID: "b1", MemUsed: memory}, AgeMillis: 7}
}

func quiet() error { return nil }

func TestAPeerIsAskedInTheCallersName(t *testing.T) {
	var asked *http.Request
	url := peer(t, func(w http.ResponseWriter, r *http.Request) {
		asked = r
		fmt.Fprint(w, `{"backend_id":"b1","mem_used":3,"age_ms":7}`)
	})
	entry, err := apiclient.NewPeers("co-1", protocol.Version{}).Metrics(t.Context(), url, query)
	require.NoError(t, err)
	require.Equal(t, usage(3), entry)
	require.Equal(t, "/ctrl/b/b1/metrics", asked.URL.Path)
	require.Equal(t, "Bearer s3cret", asked.Header.Get("Authorization"))
	require.Equal(t, []string{"one", "two"}, asked.Header["X-Api-Key"])
	require.Equal(t, "co-1", asked.Header.Get(protocol.ForwardedHeader))
	require.Empty(t, asked.Header.Get("Content-Type"))
	require.Empty(t, asked.Header.Get("Last-Event-Id"))
	require.Equal(t, []string{"5"}, query.Caller["Last-Event-Id"], "what the caller said is not changed")

	_, err = apiclient.NewPeers("co-1", protocol.Version{}).Metrics(t.Context(), url, port.MetricsQuery{BackendID: "b1"})
	require.NoError(t, err)
}

func TestWhatAPeerRefusesIsPassedOn(t *testing.T) {
	url := peer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, `{"id":"x","kind":"Unavailable","message":"has moved"}`)
	})
	p := apiclient.NewPeers("co-1", protocol.Version{})
	var api *protocol.APIError
	_, err := p.Metrics(t.Context(), url, query)
	require.ErrorAs(t, err, &api)
	require.Equal(t, protocol.Unavailable, api.Kind)
	err = p.MetricsStream(t.Context(), url, query, nil, nil)
	require.ErrorAs(t, err, &api)
	require.NotErrorIs(t, err, port.ErrUnavailable)
}

func TestAPeerOutOfReachIsUnavailable(t *testing.T) {
	elsewhere := peer(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("got what is for the peer: %v", r.Header) })
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	hangs := make(chan struct{})
	defer close(hangs)
	for name, url := range map[string]string{
		"nobody there":   gone.URL,
		"a bad URL":      "ftp://host",
		"no answer":      peer(t, func(http.ResponseWriter, *http.Request) { <-hangs }),
		"no controller":  peer(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }),
		"sends me on":    peer(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere, http.StatusFound) }),
		"no such path":   peer(t, http.NotFound),
		"breaks in half": peer(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "data: {\n\n") }),
	} {
		t.Run(name, func(t *testing.T) {
			p := apiclient.HastyPeers("co-1", protocol.Version{}, 200*time.Millisecond, time.Minute)
			_, err := p.Metrics(t.Context(), url, query)
			require.ErrorIs(t, err, port.ErrUnavailable)
			require.NotContains(t, err.Error(), "s3cret")
			if name == "no controller" { // nothing of it is an event
				return
			}
			err = p.MetricsStream(t.Context(), url, query, func(protocol.MetricsEntry) error { return nil }, quiet)
			require.ErrorIs(t, err, port.ErrUnavailable)
		})
	}
}

func TestAPeersStream(t *testing.T) {
	url := peer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ctrl/b/b1/metrics-stream" || r.Header.Get("Authorization") != "Bearer s3cret" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, "data: {\"backend_id\":\"b1\",\"mem_used\":1,\"age_ms\":7}\n\n:\n\ndata: {\"backend_id\":\"b1\",\"mem_used\":2,\"age_ms\":7}\n\n")
	})
	p := apiclient.NewPeers("co-1", protocol.Version{})
	var told []protocol.MetricsEntry
	idle := 0
	send := func(e protocol.MetricsEntry) error {
		told = append(told, e)
		return nil
	}
	require.NoError(t, p.MetricsStream(t.Context(), url, query, send, func() error { idle++; return nil }))
	require.Equal(t, []protocol.MetricsEntry{usage(1), usage(2)}, told)
	require.Equal(t, 1, idle)

	full := errors.New("no more")
	require.ErrorIs(t, p.MetricsStream(t.Context(), url, query, func(protocol.MetricsEntry) error { return full }, quiet), full)
	require.ErrorIs(t, p.MetricsStream(t.Context(), url, query, send, func() error { return full }), full)
}

func TestASilentStreamIsGivenUp(t *testing.T) {
	hangs := make(chan struct{})
	defer close(hangs)
	url := peer(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, ":\n\n")
		_ = http.NewResponseController(w).Flush()
		<-hangs
	})
	p := apiclient.HastyPeers("co-1", protocol.Version{}, time.Minute, 100*time.Millisecond)
	err := p.MetricsStream(t.Context(), url, query, nil, quiet)
	require.ErrorIs(t, err, port.ErrUnavailable)
	require.ErrorContains(t, err, "silent")

	ctx, cancel := context.WithCancel(t.Context())
	err = apiclient.NewPeers("co-1", protocol.Version{}).MetricsStream(ctx, url, query, nil, func() error { cancel(); return nil })
	require.ErrorIs(t, err, context.Canceled)
}
