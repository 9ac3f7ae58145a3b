package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
	"unicode/utf8"

	"plane/system/protocol"
)

// MaxBody is the greatest size of a request's body, in bytes.
const MaxBody = 4 << 20

// bodyTime is how long a body may take to arrive.
const bodyTime = 30 * time.Second

// maxSeconds is a hundred years: no duration that anybody means is longer, and
// none that is shorter overflows.
const maxSeconds = 100 * 365 * 24 * 3600

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	control := http.NewResponseController(w)
	// A recorder in a test has no connection and so no deadline.
	if err := control.SetReadDeadline(time.Now().Add(bodyTime)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, fmt.Errorf("limit the time of a body: %w", err)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &tooLong):
		return nil, invalid(fmt.Errorf("body: longer than %d bytes", MaxBody))
	case err != nil:
		return nil, invalid(errors.New("body: did not arrive whole"))
	}
	// Else the server would take the request for given up when the time is over.
	if err := control.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return nil, fmt.Errorf("lift the limit of a body's time: %w", err)
	}
	return body, nil
}

// decodeConnect reads a connect request. Fields that it does not know are
// skipped. No error shows the value of a field that may hold a secret.
func decodeConnect(body []byte) (protocol.ConnectRequest, error) {
	var req protocol.ConnectRequest
	o, err := decodeBody(body)
	if err != nil {
		return req, err
	}
	if key := o.object("key"); key != nil {
		req.Key = &protocol.Key{
			Name: key.required("name"), Namespace: key.text("namespace"), Tag: key.text("tag"),
		}
		o.take(key)
	}
	if spawn := o.object("spawn_config"); spawn != nil {
		req.SpawnConfig = decodeSpawn(spawn)
		o.take(spawn)
	}
	req.User = o.optional("user")
	req.Auth = o.rawObject("auth")
	return req, o.err
}

func decodeSpawn(o *object) *protocol.SpawnConfig {
	s := &protocol.SpawnConfig{
		ID:                   o.optional("id"),
		Cluster:              o.optional("cluster"),
		Pool:                 o.text("pool"),
		Executable:           o.rawObject("executable"),
		LifetimeLimitSeconds: o.seconds("lifetime_limit_seconds"),
		MaxIdleSeconds:       o.seconds("max_idle_seconds"),
		UseStaticToken:       o.boolean("use_static_token"),
		Subdomain:            o.optional("subdomain"),
	}
	if s.Executable == nil {
		o.refuse("executable", "is missing")
	}
	return s
}

func decodeRevoke(body []byte) (protocol.RevokeRequest, error) {
	o, err := decodeBody(body)
	if err != nil {
		return protocol.RevokeRequest{}, err
	}
	req := protocol.RevokeRequest{BackendID: o.required("backend_id"), User: o.required("user")}
	return req, o.err
}

// object reads the fields of a JSON object, by their exact names, and keeps the
// first thing that is wrong. A null is a field that is left out.
type object struct {
	path   string // with the dot
	fields map[string]json.RawMessage
	err    error
}

// decodeBody reads one JSON object and nothing after it.
func decodeBody(body []byte) (*object, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, errors.New("body: is empty, want a JSON object")
	}
	if !utf8.Valid(body) {
		return nil, errors.New("body: is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	var whole json.RawMessage
	if err := dec.Decode(&whole); err != nil {
		return nil, fmt.Errorf("body: is not JSON: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("body: there is something after the JSON object, at byte %d", dec.InputOffset())
	}
	if kind(whole) != "an object" {
		return nil, fmt.Errorf("body: want an object, not %s", kind(whole))
	}
	o := &object{}
	if err := json.Unmarshal(whole, &o.fields); err != nil {
		return nil, fmt.Errorf("body: %w", err)
	}
	return o, nil
}

func (o *object) refuse(field, problem string) {
	if o.err == nil {
		o.err = fmt.Errorf("%s%s: %s", o.path, field, problem)
	}
}

// take keeps the error of an inner object.
func (o *object) take(inner *object) {
	if o.err == nil {
		o.err = inner.err
	}
}

// field returns a field, or nil when it is missing or null.
func (o *object) field(name string) json.RawMessage {
	if raw := o.fields[name]; string(raw) != "null" {
		return raw
	}
	return nil
}

// of returns a field that is of the JSON kind, and nil when it is missing.
func (o *object) of(want, name string) json.RawMessage {
	raw := o.field(name)
	if raw != nil && kind(raw) != want {
		o.refuse(name, "want "+want+", not "+kind(raw))
		return nil
	}
	return raw
}

func (o *object) rawObject(name string) json.RawMessage { return o.of("an object", name) }

func (o *object) object(name string) *object {
	raw := o.rawObject(name)
	if raw == nil {
		return nil
	}
	inner := &object{path: o.path + name + "."}
	if err := json.Unmarshal(raw, &inner.fields); err != nil {
		o.refuse(name, "is not JSON")
		return nil
	}
	return inner
}

func (o *object) optional(name string) *string {
	raw := o.of("a string", name)
	if raw == nil {
		return nil
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		o.refuse(name, "is no proper string")
		return nil
	}
	return &s
}

func (o *object) text(name string) string {
	if s := o.optional(name); s != nil {
		return *s
	}
	return ""
}

func (o *object) required(name string) string {
	if o.field(name) == nil {
		o.refuse(name, "is missing")
	}
	return o.text(name)
}

func (o *object) boolean(name string) bool {
	raw := o.field(name)
	switch string(raw) {
	case "", "false":
	case "true":
		return true
	default:
		o.refuse(name, "want true or false, not "+clip(raw))
	}
	return false
}

func (o *object) seconds(name string) *int64 {
	raw := o.field(name)
	if raw == nil {
		return nil
	}
	var n int64
	if err := json.Unmarshal(raw, &n); err != nil {
		o.refuse(name, "want a whole number, not "+clip(raw))
		return nil
	}
	if n < 0 || n > maxSeconds {
		o.refuse(name, fmt.Sprintf("want seconds from 0 to %d, not %d", maxSeconds, n))
		return nil
	}
	return &n
}

// kind names what a JSON value is, without showing it.
func kind(raw json.RawMessage) string {
	switch raw[0] {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		return "a string"
	case 't', 'f':
		return "true or false"
	case 'n':
		return "null"
	}
	return "a number"
}

// clip shows the beginning of a value.
func clip(raw json.RawMessage) string {
	const most = 40
	runes := []rune(string(raw))
	if len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return string(raw)
}
