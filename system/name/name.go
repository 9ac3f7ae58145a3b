// Package name holds the forms of the names that Plane gives and accepts:
// nodes, backends, clusters, subdomains. Pure rules; safe from anywhere.
package name

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Kind is the kind of thing a name belongs to; its text is the name's prefix.
type Kind string

// The kinds of names. A backend's name has no prefix.
const (
	Controller Kind = "co-"
	Drone      Kind = "dr-"
	Proxy      Kind = "px-"
	DNS        Kind = "ns-"
	Action     Kind = "ak-"
	Backend    Kind = ""
	Key        Kind = "lk-" // the prefix of made-up key names only; a key may be called anything
)

// MaxLen is the greatest length of a name, prefix included.
const MaxLen = 45

// madeUpLen is how many random characters a made-up name has: 36^14 of them.
const madeUpLen = 14

const alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"

// Uint64 is a source of random numbers.
type Uint64 interface{ Uint64() uint64 }

// perDraw is how many characters one random number gives. 36^7 is so much less
// than 2^64 that none of them is noticeably more frequent than another.
const perDraw = 7

// New makes a name up. A drawn number gives several characters, as a good source
// takes its time.
func New(kind Kind, rnd Uint64) string {
	b := make([]byte, 0, len(kind)+madeUpLen)
	b = append(b, kind...)
	var left uint64
	for i := range madeUpLen {
		if i%perDraw == 0 {
			left = rnd.Uint64()
		}
		b = append(b, alphabet[left%uint64(len(alphabet))])
		left /= uint64(len(alphabet))
	}
	return string(b)
}

// Validate refuses a name that is not of the kind's form.
func Validate(kind Kind, s string) error {
	rest, ok := strings.CutPrefix(s, string(kind))
	switch {
	case !ok:
		return fmt.Errorf("name %q does not begin with %q", s, string(kind))
	case rest == "":
		return fmt.Errorf("name %q is empty", s)
	case len(s) > MaxLen:
		return fmt.Errorf("name %q is longer than %d characters", s, MaxLen)
	}
	if i := strings.IndexFunc(s, func(r rune) bool { return !lowerAlnum(r) && r != '-' }); i >= 0 {
		return fmt.Errorf("name %q: only a-z, 0-9 and - are allowed, not %q", s, s[i:i+1])
	}
	return nil
}

func lowerAlnum(r rune) bool { return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' }

// StaticPrefix is how a token begins that belongs to a backend and not to one
// connection.
const StaticPrefix = "s."

// NewToken makes a bearer token of 32 random bytes.
func NewToken(rnd Uint64) string {
	var b [32]byte
	for i := 0; i < len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], rnd.Uint64())
	}
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// NewStaticToken makes a static token.
func NewStaticToken(rnd Uint64) string { return StaticPrefix + NewToken(rnd) }

// ValidToken reports whether s has the form of a bearer token, static or not.
// It says nothing of whether the token was ever given out.
func ValidToken(s string) bool {
	s = strings.TrimPrefix(s, StaticPrefix)
	if len(s) != base64.RawURLEncoding.EncodedLen(32) {
		return false
	}
	_, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return err == nil
}

// Cluster is the public name of a cluster: a host, and a port unless it is 443.
type Cluster struct {
	Host string
	Port int // 443 unless the name says otherwise
}

// ParseCluster accepts "host" and "host:port"; the host may be a DNS name, an
// IPv4 address or an IPv6 address in brackets. Upper case is folded.
func ParseCluster(s string) (Cluster, error) {
	c := Cluster{Host: strings.ToLower(s), Port: 443}
	if i := strings.LastIndexByte(c.Host, ':'); i >= 0 && !strings.HasSuffix(c.Host, "]") {
		port, err := strconv.ParseUint(c.Host[i+1:], 10, 16)
		if err != nil || port == 0 {
			return Cluster{}, fmt.Errorf("cluster %q: %q is no port", s, c.Host[i+1:])
		}
		c.Host, c.Port = c.Host[:i], int(port)
	}
	if err := validHost(c.Host); err != nil {
		return Cluster{}, fmt.Errorf("cluster %q: %w", s, err)
	}
	return c, nil
}

func validHost(h string) error {
	if inner, ok := strings.CutPrefix(h, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		if a, err := netip.ParseAddr(inner); !ok || err != nil || !a.Is6() {
			return fmt.Errorf("%q is no IPv6 address in brackets", h)
		}
		return nil
	}
	if h == "" || len(h) > 253 {
		return fmt.Errorf("a host has 1 to 253 characters")
	}
	for label := range strings.SplitSeq(h, ".") {
		if err := ValidateSubdomain(label); err != nil {
			return err
		}
	}
	return nil
}

// String is the cluster's name: without the port when that is 443.
func (c Cluster) String() string {
	if c.TLS() {
		return c.Host
	}
	return c.Host + ":" + strconv.Itoa(c.Port)
}

// TLS reports whether the cluster is served over HTTPS.
func (c Cluster) TLS() bool { return c.Port == 443 }

// URL is the address under which a client reaches a backend of this cluster.
func (c Cluster) URL(subdomain, token string) string {
	scheme := "http"
	if c.TLS() {
		scheme = "https"
	}
	if subdomain != "" {
		subdomain += "."
	}
	return scheme + "://" + subdomain + c.String() + "/" + token + "/"
}

// ValidateSubdomain accepts one DNS label: letters, digits and -, not first or
// last, at most 63.
func ValidateSubdomain(s string) error {
	if s == "" || len(s) > 63 {
		return fmt.Errorf("subdomain %q: a label has 1 to 63 characters", s)
	}
	if s[0] == '-' || s[len(s)-1] == '-' {
		return fmt.Errorf("subdomain %q begins or ends with -", s)
	}
	for _, r := range s {
		if !lowerAlnum(r) && r != '-' && (r < 'A' || r > 'Z') {
			return fmt.Errorf("subdomain %q: only letters, digits and - are allowed, not %q", s, r)
		}
	}
	return nil
}
