package acme

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	legoacme "github.com/go-acme/lego/v4/acme"
	"github.com/go-acme/lego/v4/acme/api"

	"plane/system/port"
)

// wire carries the requests of one call to the authority: they end with its
// context, and what an answer says besides its body is noted. One request at a
// time, as lego makes them.
type wire struct {
	ctx        context.Context // the library's requests have none of their own
	next       http.RoundTripper
	status     int           // of the last answer; 0: there was none, or not all of it
	retryAfter time.Duration // that the last answer asked for
}

// RoundTrip implements http.RoundTripper.
func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	w.status, w.retryAfter = 0, 0
	ctx, cancel := context.WithCancelCause(r.Context()) // it has the client's time limit
	stop := context.AfterFunc(w.ctx, func() { cancel(context.Cause(w.ctx)) })
	answer, err := w.next.RoundTrip(r.WithContext(ctx))
	if err != nil {
		stop()
		cancel(nil)
		return nil, err
	}
	w.status = answer.StatusCode
	if wait, err := api.ParseRetryAfter(answer.Header.Get("Retry-After")); err == nil {
		w.retryAfter = wait
	}
	answer.Body = limit(answer.Body, func(broken error) {
		if broken != nil {
			w.status = 0
		}
		stop()
		cancel(nil)
	})
	return answer, nil
}

// isRateLimit reports whether the last answer asks for a pause.
func (w *wire) isRateLimit(err error) bool {
	var problem *legoacme.ProblemDetails
	return errors.As(err, &problem) && problem.Type == legoacme.RateLimitedErr ||
		w.status == http.StatusTooManyRequests ||
		w.status == http.StatusServiceUnavailable && w.retryAfter > 0
}

// isAboutTheOrder reports whether another order may fare better at once: the
// authority has answered with a problem that is not one of how often or by whom.
func (w *wire) isAboutTheOrder(err error) bool {
	var problem *legoacme.ProblemDetails
	var nonce *legoacme.NonceError
	return errors.As(err, &problem) && !errors.As(err, &nonce) && !w.isRateLimit(err) && !isUnknownAccount(err)
}

// explain makes an error of the library one of port.Issuer's.
func (w *wire) explain(what string, err error) error {
	if w.ctx.Err() != nil {
		return fmt.Errorf("%s: %w", what, context.Cause(w.ctx))
	}
	var problem *legoacme.ProblemDetails
	isProblem := errors.As(err, &problem)
	var nonce *legoacme.NonceError
	switch {
	case w.isRateLimit(err):
		limited := &port.RateLimitError{RetryAfter: w.retryAfter}
		if isProblem {
			limited.Detail = problem.Detail
		}
		return fmt.Errorf("%s: %w", what, limited)
	case w.status == 0, w.status >= http.StatusInternalServerError, errors.As(err, &nonce):
		return fmt.Errorf("%s: %w: %w", what, port.ErrAuthorityAway, problemOf(err))
	case isProblem, w.status >= http.StatusBadRequest:
		return fmt.Errorf("%s: %w: %w", what, port.ErrRefused, problemOf(err))
	}
	return fmt.Errorf("%s: %w", what, problemOf(err))
}

// longestProblem is how much of an authority's words is passed on.
const longestProblem = 600

// problemOf is an error in the authority's own words, where it has some: as long
// as a log line can bear, and without what is only the library's.
func problemOf(err error) error {
	if err == nil {
		return errors.New("it does not say why")
	}
	text, kind := err.Error(), ""
	var problem *legoacme.ProblemDetails
	if errors.As(err, &problem) {
		kind, _ = strings.CutPrefix(problem.Type, "urn:ietf:params:acme:error:")
	}
	if problem != nil && problem.Detail != "" {
		text = problem.Detail + " (" + problem.Type + ")"
		for _, sub := range problem.SubProblems {
			text += "; " + sub.Identifier.Value + ": " + sub.Detail
		}
	}
	if len(text) > longestProblem {
		text = text[:longestProblem] + "…"
	}
	text = strings.ToValidUTF8(text, "�")
	if !isWord(kind) { // an authority may say anything
		return errors.New(text)
	}
	return &port.ProblemError{Kind: kind, Words: text}
}

// isWord reports whether a text is one, as the kinds of problems that are
// registered.
func isWord(s string) bool {
	letter := func(r rune) bool { return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' }
	return s != "" && len(s) <= 40 && strings.TrimFunc(s, letter) == ""
}

const unknownAccount = "urn:ietf:params:acme:error:accountDoesNotExist"

func isUnknownAccount(err error) bool {
	var problem *legoacme.ProblemDetails
	return errors.As(err, &problem) && problem.Type == unknownAccount
}

func listed(profiles map[string]string) string {
	if len(profiles) == 0 {
		return "none"
	}
	return strings.Join(slices.Sorted(maps.Keys(profiles)), ", ")
}
