package metrics_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"plane/adapters/metrics"
)

func TestAScrapeShowsTheGaugesAndTheProcess(t *testing.T) {
	h := metrics.New(metrics.Gauge{Name: "plane_things", Help: "Things.", Value: func() float64 { return 42 }},
		metrics.Gauge{Name: "plane_events_total", Help: "Events.", Counts: true, Value: func() float64 { return 7 }})
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	require.Equal(t, http.StatusOK, answer.Code)
	for _, want := range []string{"\nplane_things 42\n", "# HELP plane_things Things.", "# TYPE plane_events_total counter\nplane_events_total 7\n", "\ngo_goroutines ", "\nprocess_resident_memory_bytes "} {
		require.Contains(t, answer.Body.String(), want)
	}
	answer = httptest.NewRecorder()
	h.ServeHTTP(answer, httptest.NewRequest(http.MethodPost, "/metrics", nil))
	require.Equal(t, http.StatusMethodNotAllowed, answer.Code)
}
