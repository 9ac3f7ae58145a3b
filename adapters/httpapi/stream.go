package httpapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"plane/system/backend"
	"plane/system/protocol"
)

// streamWrite is how long a client may take to accept one event.
const streamWrite = 30 * time.Second

// statusStream serves server-sent events: an entry's id is its status, and
// comments keep the connection open in between. The answer begins with the
// first event, so that until then an error can still be told as one.
func (s *server) statusStream(w http.ResponseWriter, r *http.Request) error {
	id, err := backendOf(r)
	if err != nil {
		return err
	}
	var after backend.Status
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		if after, err = backend.ParseStatus(last); err != nil {
			return invalid(fmt.Errorf("Last-Event-ID: %w", err))
		}
	}
	head := func() error {
		_, err := s.api.Status(r.Context(), id)
		return err
	}
	return s.stream(w, r, head, func(to *eventStream) error {
		ctx, cancel := s.session(r)
		defer cancel()
		return s.api.StatusStream(ctx, id, after, to.entry, to.idle)
	})
}

// stream answers with what feed writes. A request for the headers alone gets the
// error of head, or none.
func (s *server) stream(w http.ResponseWriter, r *http.Request, head func() error, feed func(to *eventStream) error) error {
	stream := &eventStream{w: w, control: http.NewResponseController(w)}
	defer stream.end()
	if r.Method == http.MethodHead {
		if err := head(); err != nil {
			return err
		}
		return stream.write("")
	}
	err := feed(stream)
	switch {
	case s.Sessions.Err() != nil && !stream.begun:
		return &statusError{status: http.StatusServiceUnavailable, cause: err,
			body: protocol.APIError{Kind: protocol.Other, Message: "the controller is shutting down"}}
	case err != nil && !stream.begun:
		return err
	case err != nil:
		s.Log.Debug("stream ended early", "path", r.URL.Path, "error", err)
	case !stream.begun:
		// There was nothing to tell (after Last-Event-ID) and never will be. This
		// is what makes an EventSource stop coming back.
		w.WriteHeader(http.StatusNoContent)
	}
	return nil
}

type eventStream struct {
	w       http.ResponseWriter
	control *http.ResponseController
	begun   bool
}

// end lifts the limit, which is not for the connection's next request.
func (e *eventStream) end() {
	if e.begun {
		_ = e.control.SetWriteDeadline(time.Time{}) // fails only when the connection is gone
	}
}

func (e *eventStream) entry(entry protocol.StatusEntry) error {
	data, err := json.Marshal(entry)
	if err != nil {
		return fmt.Errorf("encode a status entry: %w", err)
	}
	return e.write(fmt.Sprintf("data: %s\nid: %s\n\n", data, entry.Status))
}

// idle keeps the connection open.
func (e *eventStream) idle() error { return e.write(":\n\n") }

func (e *eventStream) write(event string) error {
	if !e.begun {
		h := e.w.Header()
		h.Set("Content-Type", "text/event-stream")
		h.Set("Cache-Control", "no-cache")
		h.Set("X-Accel-Buffering", "no")
		e.begun = true
	}
	if err := e.control.SetWriteDeadline(time.Now().Add(streamWrite)); err != nil {
		return fmt.Errorf("limit the time of a write: %w", err)
	}
	if _, err := e.w.Write([]byte(event)); err != nil {
		return fmt.Errorf("write an event: %w", err)
	}
	if err := e.control.Flush(); err != nil {
		return fmt.Errorf("flush an event: %w", err)
	}
	return nil
}
