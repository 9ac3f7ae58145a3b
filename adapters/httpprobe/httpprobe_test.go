package httpprobe_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"plane/adapters/httpprobe"
	"plane/system/port"
)

var _ port.Prober = (*httpprobe.Prober)(nil)

func TestAnyAnswerCounts(t *testing.T) {
	for _, status := range []int{200, 204, 302, 404, 405, 500} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodHead || r.URL.Path != "/" {
				t.Errorf("was asked for %s %s", r.Method, r.URL.Path)
			}
			w.Header().Set("Location", "http://127.0.0.1:1/")
			w.WriteHeader(status)
		}))
		require.NoError(t, httpprobe.New().Probe(t.Context(), strings.TrimPrefix(srv.URL, "http://")), status)
		srv.Close()
	}
}

func TestNoAnswer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	accepted := make(chan struct{}, 2)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- struct{}{}
			_ = c.Close() // as an engine does whose container does not listen yet
		}
	}()
	require.Error(t, httpprobe.New().Probe(t.Context(), l.Addr().String()), "a connection is no answer")
	<-accepted
	require.NoError(t, l.Close())
	require.Error(t, httpprobe.New().Probe(t.Context(), l.Addr().String()), "nobody listens")

	why := errors.New("no more time")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	require.ErrorIs(t, httpprobe.New().Probe(ctx, l.Addr().String()), why)
}
