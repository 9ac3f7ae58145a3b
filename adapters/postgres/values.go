package postgres

import (
	"crypto/sha256"
	"encoding/json"
	"strings"
	"time"

	"plane/system/backend"
)

// PostgreSQL's text has no character 0, and keys may have any. It is written as
// two others, with what makes that unique.
var (
	toText   = strings.NewReplacer("\x00", "\x01\x02", "\x01", "\x01\x01")
	fromText = strings.NewReplacer("\x01\x02", "\x00", "\x01\x01", "\x01")
)

// text is s as it can be stored. What is not UTF-8 is replaced: nothing that
// has come as JSON is.
func text(s string) string { return toText.Replace(strings.ToValidUTF8(s, "\uFFFD")) }

// plain is the reverse of text.
func plain(s string) string { return fromText.Replace(s) }

// digest is what of a token is stored. It is all that is needed to find one, and
// whoever sees it can go nowhere with it.
func digest(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}

// optional is text, where there is one.
func optional(s *string) *string {
	if s == nil {
		return nil
	}
	t := text(*s)
	return &t
}

// raw is a JSON value as it came, where there is one.
func raw(j json.RawMessage) *string {
	if j == nil {
		return nil
	}
	s := string(j)
	return &s
}

// step is plane.step.
type step struct {
	Status      int16
	At          time.Time
	Address     string
	Last        int16
	Termination string
	Reason      string
	ExitCode    *int
	OOM         bool
	Message     string
}

// state is what the step says.
func (s step) state() backend.State {
	return backend.State{
		Status: backend.Status(s.Status), Address: s.Address, Last: backend.Status(s.Last),
		Termination: backend.Kind(s.Termination), Reason: backend.Reason(s.Reason),
		ExitCode: s.ExitCode, OOM: s.OOM, Message: plain(s.Message),
	}
}
