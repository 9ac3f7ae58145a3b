package httpapi_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"plane/adapters/httpapi"
	"plane/system/protocol"
)

func TestGate(t *testing.T) {
	var gate httpapi.Gate
	ask := func(method, path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		gate.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		return w
	}
	for path, status := range map[string]int{"/pub/health": 500, "/ctrl/connect": 503, "/ctrl/c/a.test/drone-socket": 503, "/": 503} {
		w := ask("GET", path)
		require.Equal(t, status, w.Code, path)
		e := apiError(t, w)
		require.Equal(t, protocol.DatabaseError, e.Kind)
		require.NotEmpty(t, e.ID)
		require.Contains(t, e.Message, "waits for its database")
	}
	gate.Open(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	require.Equal(t, http.StatusTeapot, ask("GET", "/pub/health").Code)
}
