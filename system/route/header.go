package route

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf16"
)

// Header is a header in canonical form, as net/http has it.
type Header = map[string][]string

// Identity is what a backend is told of a request, beyond what the client sent.
type Identity struct {
	Backend  string
	Secret   string
	User     *string
	UserData json.RawMessage // an object, or null
	Path     string          // as the client sent it, token included
	Client   string          // address, without a port
	Proto    string          // http or https
}

// SetIdentity replaces in h all that a backend believes: every x-verified-*
// header and the x-forwarded-* ones that Plane speaks for. What the client sent
// under such names is gone, also in spellings that a backend could take for
// them (some servers turn both - and _ into _, and fold case).
//
// A user name that no header can carry (one with control characters) is left
// out, as for a request without a user.
func SetIdentity(h Header, id Identity) {
	StripIdentity(h)
	set := func(key, value string) { h[key] = []string{value} }
	if id.User != nil && headerSafe(*id.User) {
		set("X-Verified-Username", *id.User)
	}
	if data := headerJSON(id.UserData); data != "" {
		set("X-Verified-User-Data", data)
	}
	set("X-Verified-Path", id.Path)
	set("X-Verified-Backend", id.Backend)
	set("X-Verified-Secret", id.Secret)
	set("X-Forwarded-For", id.Client)
	set("X-Forwarded-Proto", id.Proto)
}

// StripIdentity removes what only Plane may say, as SetIdentity does.
func StripIdentity(h Header) {
	for key := range h {
		switch k := foldKey(key); {
		case strings.HasPrefix(k, "x-verified-"), k == "x-forwarded-for", k == "x-forwarded-proto":
			delete(h, key)
		}
	}
}

// foldKey maps the spellings that a server may take for one header to one.
func foldKey(key string) string { return strings.ReplaceAll(strings.ToLower(key), "_", "-") }

func headerSafe(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) < 0
}

// headerJSON writes JSON on one line and in ASCII; nothing for null.
func headerJSON(raw json.RawMessage) string {
	var line bytes.Buffer
	if len(raw) == 0 || json.Compact(&line, raw) != nil || line.String() == "null" {
		return ""
	}
	var out strings.Builder
	for _, r := range line.String() {
		switch {
		case r < 0x80:
			out.WriteRune(r)
		case r < 0x10000:
			fmt.Fprintf(&out, `\u%04x`, r)
		default:
			hi, lo := utf16.EncodeRune(r)
			fmt.Fprintf(&out, `\u%04x\u%04x`, hi, lo)
		}
	}
	return out.String()
}

// SetAnswer marks an answer to the client: which backend gave it (empty: none),
// which software passed it on, and that any page may read it, unless the
// backend has a say of its own on that.
func SetAnswer(h Header, backend, server string) {
	if backend != "" {
		h["X-Plane-Backend-Id"] = []string{backend}
	}
	h["Server"] = []string{server}
	const origin, methods, headers = "Access-Control-Allow-Origin", "Access-Control-Allow-Methods", "Access-Control-Allow-Headers"
	if len(h[origin])+len(h[methods])+len(h[headers]) == 0 {
		h[origin] = []string{"*"}
		h[methods] = []string{"*"}
		h[headers] = []string{"*, Authorization"}
	}
}
