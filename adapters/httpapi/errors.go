package httpapi

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"plane/system/port"
	"plane/system/protocol"
)

// statusError is an error answer whose status code is not the one of its kind,
// or that has a cause that only the log may show.
type statusError struct {
	status int
	body   protocol.APIError
	cause  error
}

func (e *statusError) Error() string {
	if e.cause != nil {
		return e.body.Error() + ": " + e.cause.Error()
	}
	return e.body.Error()
}

func (e *statusError) Unwrap() error { return e.cause }

func notFound(message string) error {
	return &protocol.APIError{Kind: protocol.NotFound, Message: message}
}

func invalid(err error) error {
	return &protocol.APIError{Kind: protocol.InvalidRequest, Message: err.Error()}
}

// fail answers with an error and logs it under the id that the answer has. What
// is no APIError is shown in the log only.
func (s *server) fail(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		s.Log.Debug("request was given up by its client", "method", r.Method, "path", r.URL.Path, "error", err)
		return
	}
	id := strings.ToLower(rand.Text()[:14])
	status, body := explain(err, id)
	body.ID = id
	level := slog.LevelInfo
	switch {
	case body.Kind == protocol.NoDroneAvailable || body.Kind == protocol.KeyHeldUnhealthy || body.Kind == protocol.Unavailable:
		level = slog.LevelWarn
	case status >= 500:
		level = slog.LevelError
	}
	s.Log.Log(r.Context(), level, "request failed", "id", id, "method", r.Method, "path", r.URL.Path, "status", status, "error", err)
	out, encodeErr := json.Marshal(body)
	if encodeErr != nil { // an APIError is three strings
		panic(encodeErr)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(out) // fails only when the client is gone
}

func explain(err error, id string) (int, protocol.APIError) {
	var withStatus *statusError
	var api *protocol.APIError
	switch {
	case errors.As(err, &withStatus):
		return withStatus.status, withStatus.body
	case errors.As(err, &api):
		return api.Kind.HTTPStatus(), *api
	case errors.Is(err, port.ErrNotFound):
		return http.StatusNotFound, protocol.APIError{Kind: protocol.NotFound, Message: "there is no such thing"}
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusInternalServerError, protocol.APIError{Kind: protocol.Other, Message: "the controller could not finish in time; the controller's log says more under id " + id}
	}
	return http.StatusInternalServerError, protocol.APIError{Kind: protocol.Other, Message: "the controller could not do it; its log says why under id " + id}
}
