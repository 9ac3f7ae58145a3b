package port

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"
)

// WallClock is what a machine believes the time of day to be. It may be wrong by
// any amount and be stepped either way at any moment, and is for nothing but
// what others date on their own wall clocks, such as a certificate's life.
type WallClock interface {
	// Wall does not block.
	Wall() time.Time
}

// Secret is bytes that no log line and no error shows.
type Secret []byte

const hidden = "[secret]"

// Format implements fmt.Formatter.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, hidden) }

// LogValue implements slog.LogValuer.
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalJSON implements json.Marshaler.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + hidden + `"`), nil }

// Certificate is a certificate with its private key. Neither is changed once it
// is made.
type Certificate struct {
	Chain []byte // PEM, the leaf first
	Key   Secret // PEM
	Life
	Names []string // that the leaf is for
	Terms Terms    // zero: not known
}

// Terms are what a certificate was ordered by. All of them change with the
// configuration only.
type Terms struct {
	Directory string // URL of the authority
	KeyType   string
	Profile   string // empty: the authority's default
}

// Life is from when to when a certificate is valid, by its authority's clock.
type Life struct {
	NotBefore, NotAfter time.Time
}

// Span is how long the life is.
func (l Life) Span() time.Duration { return l.NotAfter.Sub(l.NotBefore) }

// Order is what an authority is asked for: one certificate for all Names. It
// Replaces another one, or none.
type Order struct {
	Names    []string
	Replaces *Certificate
}

// Suggestion is when an authority wants a certificate to be renewed: at some
// time in the window, drawn at random so that not all come at once.
type Suggestion struct {
	Start, End time.Time
	// AskAgain is how long the suggestion is good for.
	AskAgain time.Duration
}

// Errors of Issuer, which may be wrapped. RateLimitError is another.
var (
	// ErrAuthorityAway: the authority cannot be reached, or fails by itself. It
	// is worth trying again soon.
	ErrAuthorityAway = errors.New("the certificate authority is away")
	// ErrRefused: the authority has answered no, such as when it did not find the
	// challenge. Trying again at once mostly brings the same, and counts. There is
	// a ProblemError with it where the authority has said why.
	ErrRefused = errors.New("the certificate authority refuses")
	// ErrNoSuggestion: the authority gives none, for this certificate or ever.
	ErrNoSuggestion = errors.New("the certificate authority suggests no renewal")
)

// RateLimitError is the error of an authority that was asked too often. It is to be
// left alone for RetryAfter (0: it did not say how long).
type RateLimitError struct {
	RetryAfter time.Duration
	Detail     string
}

// Error implements error.
func (r *RateLimitError) Error() string {
	text := "the certificate authority limits how often it is asked"
	if r.RetryAfter > 0 {
		text += fmt.Sprintf(": again in %v", r.RetryAfter.Round(time.Second))
	}
	if r.Detail != "" {
		text += ": " + r.Detail
	}
	return text
}

// ProblemError is what an authority has said against something. Its words may
// tell what is nobody else's affair, such as addresses; its kind is a word of the
// protocol's, such as dns, caa or rejectedIdentifier.
type ProblemError struct {
	Kind, Words string
}

// Error implements error.
func (p *ProblemError) Error() string { return p.Words }

// Issuer orders certificates from an authority by ACME with DNS-01 challenges.
// One call at a time.
type Issuer interface {
	// Order makes a private key, which is in nothing but the answer, and blocks
	// until the authority has given a certificate for it, minutes maybe. It shows
	// what the authority wants to see by way of the challenges, and withdraws it
	// before it returns. An account is made where none is kept. Every call that
	// gets through counts with the authority, also one whose answer was lost.
	// Errors: RateLimitError, ErrRefused, ErrAuthorityAway, others.
	Order(ctx context.Context, o Order, challenges Challenges) (Certificate, error)
	// Suggest asks when a certificate is to be renewed; blocks for a round trip
	// or two. Harmless twice. ErrNoSuggestion; RateLimitError, ErrAuthorityAway,
	// others.
	Suggest(ctx context.Context, c Certificate) (Suggestion, error)
}

// Challenges is how a proxy shows TXT values for its cluster to whoever asks the
// DNS. Values belong to the proxy; those of others are not touched. The methods
// may be called from any number of tasks.
type Challenges interface {
	// OneAtATime reports whether a value takes the place of the one before, so
	// that each has to be withdrawn before the next is presented. It blocks until
	// there is a controller, which is what it depends on.
	OneAtATime(ctx context.Context) (bool, error)
	// Present adds a value, and blocks until it can be seen: for as long as there
	// is no controller, or it has not accepted it. From then on the value stays
	// until Withdraw, also when another controller takes over. When it returns an
	// error the value is withdrawn. Harmless twice.
	Present(ctx context.Context, value string) error
	// Withdraw takes a value back, sooner or later; does not block. Harmless
	// twice, and for one that never was.
	Withdraw(value string)
}

// ErrBroken: what is kept cannot be used. The wrapping error says why.
var ErrBroken = errors.New("broken")

// Pause is for how long an authority is to be left alone, as it has asked for; by
// the machine's wall clock, which may be another one when it is read again.
type Pause struct {
	Directory    string // of the authority
	Since, Until time.Time
}

// CertStore is where a proxy keeps its certificate with its key, its account with
// the authority, and for how long to leave that alone. Its methods are atomic, block for a write to disk, and are
// readable by nobody else; one task at a time.
type CertStore interface {
	// Load returns what was saved last. ErrNotFound when there is nothing,
	// ErrBroken when it is of no use.
	Load(ctx context.Context) (Certificate, error)
	// Save replaces what is kept; it is durable once it returns nil. Harmless
	// twice.
	Save(ctx context.Context, c Certificate) error
	// Account and SaveAccount are the same for the account, whose form is the
	// Issuer's affair.
	Account(ctx context.Context) (Secret, error)
	SaveAccount(ctx context.Context, account Secret) error
	// Pause and SavePause are the same for the pause.
	Pause(ctx context.Context) (Pause, error)
	SavePause(ctx context.Context, p Pause) error
}
