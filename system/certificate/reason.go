package certificate

import (
	"context"
	"errors"

	"plane/system/port"
)

// words is an error that everybody may read.
type words string

// Error implements error.
func (w words) Error() string { return string(w) }

// toldError is an error whose text everybody may read. What it wraps is for the
// log.
type toldError struct {
	text string
	err  error
}

// Error implements error.
func (e *toldError) Error() string { return e.text }

// Unwrap is for errors.Is and errors.As.
func (e *toldError) Unwrap() error { return e.err }

// reason says why an order has failed. Whoever can reach the proxy can read it: so
// it has no address, no file and none of the authority's own words, which are in
// the log.
func reason(err error) string {
	var own words
	var limited *port.RateLimitError
	var problem *port.ProblemError
	switch {
	case errors.As(err, &own):
		return own.Error()
	case errors.As(err, &limited):
		return "the certificate authority limits how often it is asked"
	case errors.Is(err, port.ErrAuthorityAway):
		return "the certificate authority does not answer; the log says more"
	case errors.As(err, &problem):
		return "the certificate authority refuses, its reason is " + problem.Kind + "; the log says more"
	case errors.Is(err, port.ErrRefused):
		return "the certificate authority refuses; the log says why"
	case errors.Is(err, context.DeadlineExceeded):
		return "an order took too long; the log says more"
	}
	return "an order has failed; the log says why"
}
