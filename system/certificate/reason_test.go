package certificate

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/port"
)

// What the proxy tells everybody names nothing that is inside.
func TestReasons(t *testing.T) {
	const inside = "dial tcp 10.0.0.1:443: /etc/plane/cert.json https://ca.internal/dir"
	for want, err := range map[string]error{
		"it is being ordered": words("it is being ordered"),
		"the certificate authority does not answer; the log says more":            fmt.Errorf("order: %w: %s", port.ErrAuthorityAway, inside),
		"the certificate authority limits how often it is asked":                  fmt.Errorf("order: %w", &port.RateLimitError{RetryAfter: time.Hour, Detail: inside}),
		"the certificate authority refuses, its reason is caa; the log says more": fmt.Errorf("%w: %w", port.ErrRefused, &port.ProblemError{Kind: "caa", Words: inside}),
		"the certificate authority refuses; the log says why":                     fmt.Errorf("%w: %s", port.ErrRefused, inside),
		"an order took too long; the log says more":                               fmt.Errorf("%s: %w", inside, context.DeadlineExceeded),
		"an order has failed; the log says why":                                   errors.New(inside),
	} {
		require.Equal(t, want, reason(err))
	}
}

func TestTheNextTryIsTold(t *testing.T) {
	with(t, 6*day, func(t *testing.T, a *authority) {
		a.fail = fmt.Errorf("order: %w", &port.RateLimitError{RetryAfter: 10 * time.Hour})
		k, stop := a.start()
		defer stop()
		pass(5 * time.Hour)
		_, err := k.Current()
		require.Regexp(t, `^no certificate yet: the certificate authority limits how often it is asked; the next try is in 5h|6h`, err.Error())
	})
}
