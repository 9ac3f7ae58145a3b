package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"

	"plane/system/port"
	"plane/system/protocol"
)

func (s *server) metrics(w http.ResponseWriter, r *http.Request) error {
	q, err := metricsQuery(r)
	if err != nil {
		return err
	}
	entry, err := s.api.Metrics(r.Context(), q)
	if err != nil {
		return err
	}
	return answer(w, entry)
}

// metricsStream serves server-sent events without ids: what a backend used while
// nobody looked is not told again.
func (s *server) metricsStream(w http.ResponseWriter, r *http.Request) error {
	q, err := metricsQuery(r)
	if err != nil {
		return err
	}
	head := func() error {
		_, err := s.api.Metrics(r.Context(), q)
		return err
	}
	return s.stream(w, r, head, func(to *eventStream) error {
		ctx, cancel := s.session(r)
		defer cancel()
		return s.api.MetricsStream(ctx, q, to.metrics, to.idle)
	})
}

func metricsQuery(r *http.Request) (port.MetricsQuery, error) {
	id, err := backendOf(r)
	if err != nil {
		return port.MetricsQuery{}, err
	}
	return port.MetricsQuery{BackendID: id, Caller: port.Caller(endToEnd(r.Header)), Forwarded: r.Header.Get(protocol.ForwardedHeader) != ""}, nil
}

func (e *eventStream) metrics(entry protocol.MetricsEntry) error {
	data, err := json.Marshal(entry)
	if err != nil {
		return fmt.Errorf("encode statistics: %w", err)
	}
	return e.write(fmt.Sprintf("data: %s\n\n", data))
}
