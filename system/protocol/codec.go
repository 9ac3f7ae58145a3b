package protocol

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"

	"plane/system/backend"
	"plane/system/name"
)

// MaxFrame is the greatest size of one socket message, in bytes. It leaves
// room for a spawn with a very long environment.
const MaxFrame = 8 << 20

// ErrUnknownMessage is a message of a kind that this version does not know. It
// is to be skipped.
var ErrUnknownMessage = errors.New("unknown kind of message")

// EncodeHandshake returns the frame.
func EncodeHandshake(h Handshake) []byte { return mustJSON(h) }

// DecodeHandshake reads a handshake and checks that the name is of the kind.
func DecodeHandshake(frame []byte, kind name.Kind) (Handshake, error) {
	var h Handshake
	if err := strictJSON(frame, &h); err != nil {
		return h, fmt.Errorf("handshake: %w", err)
	}
	if err := name.Validate(kind, h.Name); err != nil {
		return h, fmt.Errorf("handshake: %w", err)
	}
	return h, nil
}

// EncodeFromDrone returns the frame.
func EncodeFromDrone(m FromDrone) []byte {
	switch m := m.(type) {
	case Heartbeat:
		return tagged("Heartbeat", m)
	case BackendEvent:
		return tagged("BackendEvent", m)
	case BackendMetrics:
		return tagged("BackendMetrics", m)
	case AckAction:
		return tagged("AckAction", m)
	case RenewKey:
		return tagged("RenewKey", m)
	}
	panic(fmt.Sprintf("protocol: no encoding for %T", m))
}

// DecodeFromDrone reads a drone's message.
func DecodeFromDrone(frame []byte) (FromDrone, error) {
	tag, body, err := untag(frame)
	if err != nil {
		return nil, err
	}
	switch tag {
	case "Heartbeat":
		return decode(tag, body, func(m Heartbeat) error { return hasTime("local_time", m.LocalTime) })
	case "BackendEvent":
		return decode(tag, body, func(m BackendEvent) error {
			if m.State.Status == 0 {
				return errors.New("state is missing")
			}
			return errors.Join(backendName("backend_id", m.BackendID), hasTime("timestamp", m.Timestamp))
		})
	case "BackendMetrics":
		return decode(tag, body, func(m BackendMetrics) error { return backendName("backend_id", m.BackendID) })
	case "AckAction":
		return decode(tag, body, func(m AckAction) error { return name.Validate(name.Action, m.ActionID) })
	case "RenewKey":
		return decode(tag, body, func(m RenewKey) error {
			return errors.Join(backendName("backend", m.Backend), hasTime("local_time", m.LocalTime))
		})
	}
	return nil, unknown(tag)
}

// EncodeToDrone returns the frame.
func EncodeToDrone(m ToDrone) []byte {
	switch m := m.(type) {
	case Action:
		return tagged("Action", m)
	case AckEvent:
		return tagged("AckEvent", m)
	case RenewKeyResponse:
		return tagged("RenewKeyResponse", m)
	}
	panic(fmt.Sprintf("protocol: no encoding for %T", m))
}

// DecodeToDrone reads a message for a drone.
func DecodeToDrone(frame []byte) (ToDrone, error) {
	tag, body, err := untag(frame)
	if err != nil {
		return nil, err
	}
	switch tag {
	case "Action":
		return decode(tag, body, validateAction)
	case "AckEvent":
		return decode(tag, body, func(AckEvent) error { return nil })
	case "RenewKeyResponse":
		return decode(tag, body, func(m RenewKeyResponse) error { return backendName("backend", m.Backend) })
	}
	return nil, unknown(tag)
}

func validateAction(m Action) error {
	if err := errors.Join(name.Validate(name.Action, m.ActionID), backendName("backend_id", m.BackendID)); err != nil {
		return err
	}
	switch spawn, end := m.Action.Spawn, m.Action.Terminate; {
	case spawn != nil && end == nil:
		if len(spawn.Executable) == 0 {
			return errors.New("action: Spawn: executable is missing")
		}
		if spawn.Key.Deadlines.HardTerminateAt.IsZero() {
			return errors.New("action: Spawn: key: deadlines are missing")
		}
		return nil
	case end != nil && spawn == nil:
		return validateTerminate(*end)
	}
	return ErrUnknownMessage
}

func validateTerminate(t Terminate) error {
	if t.Kind != backend.Soft && t.Kind != backend.Hard {
		return fmt.Errorf("action: Terminate: kind must be soft or hard, not %q", t.Kind)
	}
	if !t.Reason.Valid() {
		return fmt.Errorf("action: Terminate: no such reason: %q", t.Reason)
	}
	return nil
}

// EncodeFromProxy returns the frame.
func EncodeFromProxy(m FromProxy) []byte {
	switch m := m.(type) {
	case Heartbeat:
		return tagged("Heartbeat", m)
	case RouteInfoRequest:
		return tagged("RouteInfoRequest", m)
	case KeepAlive:
		return tagged("KeepAlive", m.Backend)
	case CertManagerRequest:
		switch {
		case m.CertLeaseRequest:
			return tagged("CertManagerRequest", "CertLeaseRequest")
		case m.ReleaseCertLease:
			return tagged("CertManagerRequest", "ReleaseCertLease")
		case m.SetTxtRecord != nil:
			return tagged("CertManagerRequest", map[string]any{"SetTxtRecord": m.SetTxtRecord})
		}
	}
	panic(fmt.Sprintf("protocol: no encoding for %T", m))
}

// DecodeFromProxy reads a proxy's message.
func DecodeFromProxy(frame []byte) (FromProxy, error) {
	tag, body, err := untag(frame)
	if err != nil {
		return nil, err
	}
	switch tag {
	case "Heartbeat":
		return decode(tag, body, func(m Heartbeat) error { return hasTime("local_time", m.LocalTime) })
	case "RouteInfoRequest":
		return decode(tag, body, func(m RouteInfoRequest) error {
			if m.Token == "" {
				return errors.New("token is missing")
			}
			return nil
		})
	case "KeepAlive":
		var m KeepAlive
		if err := json.Unmarshal(body, &m.Backend); err != nil {
			return nil, fmt.Errorf("%s: %w", tag, err)
		}
		if err := backendName("backend", m.Backend); err != nil {
			return nil, fmt.Errorf("%s: %w", tag, err)
		}
		return m, nil
	case "CertManagerRequest":
		return decodeCertManagerRequest(body)
	}
	return nil, unknown(tag)
}

func decodeCertManagerRequest(body []byte) (FromProxy, error) {
	tag, inner, err := untag(body)
	if err != nil {
		return nil, fmt.Errorf("CertManagerRequest: %w", err)
	}
	switch tag {
	case "CertLeaseRequest":
		return CertManagerRequest{CertLeaseRequest: true}, nil
	case "ReleaseCertLease":
		return CertManagerRequest{ReleaseCertLease: true}, nil
	case "SetTxtRecord":
		var m SetTxtRecord
		if err := strictJSON(inner, &m); err != nil {
			return nil, fmt.Errorf("CertManagerRequest: SetTxtRecord: %w", err)
		}
		if err := validateTxtValue(m.TxtValue); err != nil {
			return nil, fmt.Errorf("CertManagerRequest: SetTxtRecord: txt_value: %w", err)
		}
		return CertManagerRequest{SetTxtRecord: &m}, nil
	}
	return nil, unknown(tag)
}

// maxTxtValue is how long a string of a TXT record may be. ACME's have 43
// characters.
const maxTxtValue = 255

// validateTxtValue lets through what can stand in a TXT record as it is.
func validateTxtValue(v string) error {
	if v == "" {
		return errors.New("is missing")
	}
	if len(v) > maxTxtValue {
		return fmt.Errorf("has %d bytes, at most %d fit into a TXT record", len(v), maxTxtValue)
	}
	if i := strings.IndexFunc(v, func(r rune) bool { return r < ' ' || r > '~' }); i >= 0 {
		return fmt.Errorf("has a character that is not printable ASCII, at byte %d", i)
	}
	return nil
}

// EncodeToProxy returns the frame.
func EncodeToProxy(m ToProxy) []byte {
	switch m := m.(type) {
	case RouteInfoResponse:
		return tagged("RouteInfoResponse", m)
	case CertManagerResponse:
		return tagged("CertManagerResponse", m)
	case BackendRemoved:
		return tagged("BackendRemoved", m)
	case TokenRevoked:
		return tagged("TokenRevoked", m)
	}
	panic(fmt.Sprintf("protocol: no encoding for %T", m))
}

// DecodeToProxy reads a message for a proxy.
func DecodeToProxy(frame []byte) (ToProxy, error) {
	tag, body, err := untag(frame)
	if err != nil {
		return nil, err
	}
	switch tag {
	case "RouteInfoResponse":
		return decode(tag, body, validateRoute)
	case "CertManagerResponse":
		return decode(tag, body, func(CertManagerResponse) error { return nil })
	case "BackendRemoved":
		return decode(tag, body, func(m BackendRemoved) error { return backendName("backend", m.Backend) })
	case "TokenRevoked":
		return decode(tag, body, func(m TokenRevoked) error { return backendName("backend", m.Backend) })
	}
	return nil, unknown(tag)
}

func validateRoute(m RouteInfoResponse) error {
	if m.Token == "" {
		return errors.New("token is missing")
	}
	if m.RouteInfo == nil {
		return nil
	}
	if _, err := netip.ParseAddrPort(m.RouteInfo.Address); err != nil {
		return fmt.Errorf("route_info: address: %w", err)
	}
	return backendName("route_info: backend_id", m.RouteInfo.BackendID)
}

// tagged writes {"tag":body}.
func tagged(tag string, body any) []byte {
	inner := mustJSON(body)
	out := make([]byte, 0, len(tag)+len(inner)+5)
	out = append(out, `{"`...)
	out = append(out, tag...)
	out = append(out, `":`...)
	out = append(out, inner...)
	return append(out, '}')
}

// untag splits {"tag":body}, or a bare "tag", into its parts.
func untag(frame []byte) (tag string, body json.RawMessage, err error) {
	if err := wellFormed(frame); err != nil {
		return "", nil, err
	}
	if trimmed := bytes.TrimLeft(frame, " \t\r\n"); len(trimmed) > 0 && trimmed[0] == '"' {
		return tag, nil, json.Unmarshal(frame, &tag)
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(frame, &m); err != nil {
		return "", nil, fmt.Errorf("want an object with one key: %w", err)
	}
	if len(m) != 1 {
		return "", nil, fmt.Errorf("want an object with one key, have %d", len(m))
	}
	for tag, body = range m {
	}
	return tag, body, nil
}

func decode[M any](tag string, body []byte, validate func(M) error) (M, error) {
	var m M
	if err := strictJSON(body, &m); err != nil {
		return m, fmt.Errorf("%s: %w", tag, err)
	}
	if err := validate(m); err != nil {
		return m, fmt.Errorf("%s: %w", tag, err)
	}
	return m, nil
}

// strictJSON decodes one JSON object, and nothing but one.
func strictJSON(b []byte, v any) error {
	if err := wellFormed(b); err != nil {
		return err
	}
	if trimmed := bytes.TrimLeft(b, " \t\r\n"); len(trimmed) == 0 || trimmed[0] != '{' {
		return errors.New("want a JSON object")
	}
	return json.Unmarshal(b, v)
}

func wellFormed(b []byte) error {
	if len(b) > MaxFrame {
		return fmt.Errorf("message of %d bytes is over the limit of %d", len(b), MaxFrame)
	}
	if !utf8.Valid(b) {
		return errors.New("message is not UTF-8")
	}
	return nil
}

func backendName(field, s string) error {
	if err := name.Validate(name.Backend, s); err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	return nil
}

func hasTime(field string, m Millis) error {
	if m.IsZero() {
		return fmt.Errorf("%s is missing", field)
	}
	return nil
}

func unknown(tag string) error { return fmt.Errorf("%w: %q", ErrUnknownMessage, clip(tag, 40)) }

// mustJSON encodes what this package defined, which cannot fail.
func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("protocol: encode %T: %v", v, err))
	}
	return b
}
