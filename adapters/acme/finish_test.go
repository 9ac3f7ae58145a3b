package acme_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/acme/acmetest"
	"plane/system/port"
)

// breaks is how an authority fails to answer.
type breaks func(w http.ResponseWriter, answer func(http.ResponseWriter))

func unanswered(http.ResponseWriter, func(http.ResponseWriter)) { panic(http.ErrAbortHandler) }

// afterwards does as it was asked, and then does not say so.
func afterwards(_ http.ResponseWriter, answer func(http.ResponseWriter)) {
	answer(httptest.NewRecorder())
	panic(http.ErrAbortHandler)
}

func halfway(w http.ResponseWriter, answer func(http.ResponseWriter)) {
	whole := httptest.NewRecorder()
	answer(whole)
	w.Header().Set("Content-Length", "100000")
	_, _ = w.Write(whole.Body.Bytes()[:whole.Body.Len()/2])
	panic(http.ErrAbortHandler)
}

func overloaded(w http.ResponseWriter, _ func(http.ResponseWriter)) {
	w.WriteHeader(http.StatusInternalServerError)
}

func busy(w http.ResponseWriter, _ func(http.ResponseWriter)) {
	w.Header().Set("Retry-After", "1")
	w.WriteHeader(http.StatusServiceUnavailable)
}

// breakOnce makes the first requests to a path fail.
func (b *bench) breakOnce(path string, times int, how breaks) (requests func() [][]byte) {
	var mu sync.Mutex
	var bodies [][]byte
	b.intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, path) {
			return false
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return false
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		mu.Lock()
		bodies = append(bodies, body)
		n := len(bodies)
		mu.Unlock()
		if n > times {
			return false
		}
		how(w, func(w http.ResponseWriter) { b.Pass(w, r) })
		return true
	})
	return func() [][]byte {
		mu.Lock()
		defer mu.Unlock()
		return bodies
	}
}

// From the moment at which an order is under way a second one would count, and
// with the first its key would be lost.
func TestAnAuthorityThatIsAwayInTheMiddleOfAnOrderIsAskedAgain(t *testing.T) {
	for name, c := range map[string]struct {
		path  string
		how   breaks
		times int
		asked int // in all
	}{
		"an authorization cannot be read":       {"/authZ/", unanswered, 1, 0},
		"the order cannot be looked at":         {"/my-order/", overloaded, 2, 0},
		"the request to finalize is lost":       {"/finalize-order/", unanswered, 2, 3},
		"the request to finalize is refused":    {"/finalize-order/", overloaded, 1, 2},
		"the authority is busy":                 {"/finalize-order/", busy, 1, 2},
		"the answer to finalizing is lost":      {"/finalize-order/", afterwards, 1, 1},
		"the answer to finalizing breaks off":   {"/finalize-order/", halfway, 1, 1},
		"the certificate is not sent":           {"/certZ/", unanswered, 1, 2},
		"half of the certificate is sent":       {"/certZ/", halfway, 1, 2},
		"the certificate comes at the 3rd time": {"/certZ/", overloaded, 2, 3},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, acmetest.Options{})
			i, _ := b.issuer(nil)
			requests := b.breakOnce(c.path, c.times, c.how)
			b.good(b.order(i, 1, nil))
			require.Equal(t, int64(1), b.Orders.Load())
			require.Greater(t, len(requests()), min(c.times, c.asked-1), "it has failed")
			if c.asked > 0 {
				require.Len(t, requests(), c.asked)
			}
			if c.path == "/finalize-order/" {
				require.Len(t, signingRequests(t, requests()), 1, "the same again")
			}
			b.zone.empty(t)
		})
	}
}

// signingRequests are the different ones among requests to finalize.
func signingRequests(t *testing.T, requests [][]byte) map[string]bool {
	t.Helper()
	all := map[string]bool{}
	for _, r := range requests {
		var signed struct{ Payload string }
		require.NoError(t, json.Unmarshal(r, &signed))
		payload, err := base64.RawURLEncoding.DecodeString(signed.Payload)
		require.NoError(t, err)
		all[string(payload)] = true
	}
	return all
}

func TestAnAuthorityThatStaysAwayIsAskedUntilTheContextEnds(t *testing.T) {
	b := newBench(t, acmetest.Options{})
	i, _ := b.issuer(nil)
	requests := b.breakOnce("/certZ/", 1000, overloaded)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := i.Order(ctx, port.Order{Names: names}, b.zone.challenges(1))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorIs(t, err, port.ErrAuthorityAway)
	require.Greater(t, len(requests()), 2)
	require.Less(t, len(requests()), 10, "the waits grow")
}

func TestARefusalToFinalizeIsOne(t *testing.T) {
	b := newBench(t, acmetest.Options{})
	i, _ := b.issuer(nil)
	requests := b.breakOnce("/finalize-order/", 1000, func(w http.ResponseWriter, _ func(http.ResponseWriter)) {
		problem(w, http.StatusForbidden, "caa", "not by us")
	})
	_, err := i.Order(t.Context(), port.Order{Names: names}, b.zone.challenges(1))
	require.ErrorIs(t, err, port.ErrRefused)
	var said *port.ProblemError
	require.ErrorAs(t, err, &said)
	require.Equal(t, "caa", said.Kind)
	require.Contains(t, said.Words, "not by us")
	require.Len(t, requests(), 1)
}

// The kind is shown to everybody, so it has to be one.
func TestAKindOfProblemThatIsNoneIsLeftOut(t *testing.T) {
	b := newBench(t, acmetest.Options{})
	i, _ := b.issuer(nil)
	b.breakOnce("/order-plz", 1000, func(w http.ResponseWriter, _ func(http.ResponseWriter)) {
		problem(w, http.StatusForbidden, "see http://10.0.0.1/", "no")
	})
	_, err := i.Order(t.Context(), port.Order{Names: names}, b.zone.challenges(1))
	require.ErrorIs(t, err, port.ErrRefused)
	var said *port.ProblemError
	require.NotErrorAs(t, err, &said)
}

// There is no use in waiting for longer than the order may take; who orders next
// is told how long to leave the authority alone.
func TestAWaitBeyondTheEndOfTheOrderIsPassedOn(t *testing.T) {
	b := newBench(t, acmetest.Options{})
	i, _ := b.issuer(nil)
	requests := b.breakOnce("/authZ/", 1000, func(w http.ResponseWriter, _ func(http.ResponseWriter)) {
		w.Header().Set("Retry-After", "7200")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := i.Order(ctx, port.Order{Names: names}, b.zone.challenges(1))
	var limited *port.RateLimitError
	require.ErrorAs(t, err, &limited)
	require.Equal(t, 2*time.Hour, limited.RetryAfter)
	require.Len(t, requests(), 1)
}
