package executor

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"plane/system/name"
	"plane/system/protocol"
)

// The greatest sizes of lines, in bytes. Requests hold executables; what an
// executor has to say is short.
const (
	maxRequest = protocol.MaxFrame
	maxAnswer  = 1 << 20
)

// maxText bounds what is shown of an executor's own words.
const maxText = 500

// errUnknownKind is a message that this version does not know. It is skipped.
var errUnknownKind = errors.New("unknown kind of message")

// message is a line from the executor: exactly one part is set.
type message struct {
	id         string // of the request that it answers; empty: unasked
	prepared   *result[struct{}]
	spawned    *result[spawned]
	terminated *result[bool]
	waited     *result[struct{}]
	metrics    *protocol.BackendMetrics
	ended      *ended
}

// result is Rust's: ok, or the executor's words.
type result[T any] struct {
	ok      T
	refused bool
	text    string
}

type spawned struct {
	ContainerID string `json:"container_id"`
	Port        int    `json:"port"`
}

type ended struct {
	BackendID string `json:"backend_id"`
	ExitCode  *int   `json:"exit_code"`
}

// encode writes one line.
func encode(id, kind string, body any) ([]byte, error) {
	line, err := json.Marshal(map[string]any{"id": id, "message": map[string]any{kind: body}})
	if err != nil {
		return nil, fmt.Errorf("%s cannot be encoded", kind) // without what it holds
	}
	if len(line) >= maxRequest {
		return nil, fmt.Errorf("%s of %d bytes is over the limit of %d", kind, len(line), maxRequest)
	}
	return append(line, '\n'), nil
}

// decode reads one line. Its errors show no values: they may be secrets.
func decode(line []byte) (message, error) {
	var m message
	if !utf8.Valid(line) {
		return m, errors.New("is not UTF-8")
	}
	var envelope struct {
		ID      *string         `json:"id"`
		Message json.RawMessage `json:"message"`
	}
	if err := parse(line, &envelope); err != nil {
		return m, err
	}
	if envelope.ID != nil {
		m.id = *envelope.ID
	}
	kind, body, err := variant(envelope.Message)
	if err != nil {
		return m, fmt.Errorf("message: %w", err)
	}
	switch kind {
	case "PrepareResult":
		m.prepared, err = parseResult(body, parseNothing, parseText)
	case "SpawnResult":
		m.spawned, err = parseResult(body, parseSpawned, parseText)
	case "TerminateResult":
		m.terminated, err = parseResult(body, parseBool, parseText)
	case "WaitForBackendResult":
		m.waited, err = parseResult(body, parseNothing, parseWaitError)
	case "MetricsMessage":
		m.metrics, err = parseMetrics(body)
	case "TerminateEvent":
		m.ended, err = parseEnded(body)
	default:
		return m, errUnknownKind
	}
	if err != nil {
		return message{}, fmt.Errorf("%s: %w", kind, err)
	}
	if m.id == "" && m.metrics == nil && m.ended == nil {
		return message{}, fmt.Errorf("%s: id is missing: it answers nothing", kind)
	}
	return m, nil
}

// parse decodes one JSON object.
func parse(b []byte, v any) error {
	if !bytes.HasPrefix(bytes.TrimLeft(b, " \t\r\n"), []byte("{")) {
		return errors.New("want a JSON object")
	}
	err := json.Unmarshal(b, v)
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("not well-formed JSON at byte %d", syntax.Offset)
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("%s: want %s", wrong.Field, wrong.Type.Kind())
	}
	if err != nil {
		return errors.New("not a JSON object of the right shape")
	}
	return nil
}

// variant splits {"kind":body}, or a bare "kind".
func variant(b json.RawMessage) (kind string, body json.RawMessage, err error) {
	if bytes.HasPrefix(b, []byte(`"`)) {
		return kind, nil, json.Unmarshal(b, &kind)
	}
	var one map[string]json.RawMessage
	if err := parse(b, &one); err != nil {
		return "", nil, err
	}
	if len(one) != 1 {
		return "", nil, fmt.Errorf("want an object with one key, have %d", len(one))
	}
	for kind, body = range one {
	}
	return kind, body, nil
}

func parseResult[T any](body json.RawMessage, ok func(json.RawMessage) (T, error), refusal func(json.RawMessage) (string, error)) (*result[T], error) {
	kind, inner, err := variant(body)
	if err != nil {
		return nil, err
	}
	var r result[T]
	switch kind {
	case "Ok":
		r.ok, err = ok(inner)
	case "Err":
		r.refused = true
		r.text, err = refusal(inner)
	default:
		return nil, errors.New("want Ok or Err")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kind, err)
	}
	return &r, nil
}

func parseNothing(json.RawMessage) (struct{}, error) { return struct{}{}, nil }

func parseText(b json.RawMessage) (string, error) {
	var s *string
	if json.Unmarshal(b, &s) != nil || s == nil {
		return "", errors.New("want a string")
	}
	return *s, nil
}

func parseBool(b json.RawMessage) (bool, error) {
	var v *bool
	if json.Unmarshal(b, &v) != nil || v == nil {
		return false, errors.New("want true or false")
	}
	return *v, nil
}

func parseSpawned(b json.RawMessage) (spawned, error) {
	var s spawned
	if err := parse(b, &s); err != nil {
		return s, err
	}
	switch {
	case s.ContainerID == "":
		return s, errors.New("container_id is missing")
	case len(s.ContainerID) > maxText:
		return s, fmt.Errorf("container_id is longer than %d bytes", maxText)
	case s.Port < 1 || s.Port > 65535:
		return s, errors.New("port: want 1 to 65535")
	}
	return s, nil
}

// parseWaitError reads "StartupTimeout" or {"Other":text}.
func parseWaitError(b json.RawMessage) (string, error) {
	kind, inner, err := variant(b)
	if err != nil {
		return "", err
	}
	switch kind {
	case "StartupTimeout":
		return "it did not answer HTTP in the executor's time", nil
	case "Other":
		return parseText(inner)
	}
	return "", errors.New("want StartupTimeout or Other")
}

func parseMetrics(b json.RawMessage) (*protocol.BackendMetrics, error) {
	var m protocol.BackendMetrics
	if err := parse(b, &m); err != nil {
		return nil, err
	}
	return &m, backendName(m.BackendID)
}

func parseEnded(b json.RawMessage) (*ended, error) {
	var e ended
	if err := parse(b, &e); err != nil {
		return nil, err
	}
	return &e, backendName(e.BackendID)
}

func backendName(s string) error {
	if name.Validate(name.Backend, s) != nil {
		return errors.New("backend_id: is no backend's name")
	}
	return nil
}
