package acme

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	legoacme "github.com/go-acme/lego/v4/acme"
	"github.com/go-acme/lego/v4/challenge"

	"plane/system/port"
)

// solver meets the challenges of one order.
type solver struct {
	*client
	challenges port.Challenges
	oneAtATime bool
	settle     time.Duration
}

// authorization is one name's, with the challenge that will be met.
type authorization struct {
	url       string
	name      string
	challenge legoacme.Challenge
	value     string // of the TXT record
	asked     bool   // the authority looks at it, and will come to an end by itself
}

// solve meets all challenges: their values are shown, and then the authority is
// asked to look. Base name and wildcard have the same TXT name, so that both
// values have to be there at once, or one after the other's validation.
func (s *solver) solve(ctx context.Context, urls []string) error {
	pending, err := s.pending(ctx, urls)
	if err != nil {
		return err
	}
	batches := [][]authorization{pending}
	if s.oneAtATime {
		batches = nil
		for i := range pending {
			batches = append(batches, pending[i:i+1])
		}
	}
	for _, batch := range batches {
		if err := s.meet(ctx, batch); err != nil {
			s.giveUp(ctx, pending)
			return err
		}
	}
	return nil
}

// pending reads the authorizations of an order and returns those that are not
// valid yet.
func (s *solver) pending(ctx context.Context, urls []string) ([]authorization, error) {
	var all []authorization
	for _, url := range urls {
		got, err := s.read(ctx, "read an authorization", url)
		if err != nil {
			return nil, err
		}
		if got.Status == legoacme.StatusValid {
			continue
		}
		name := challenge.GetTargetedDomain(got)
		chosen, err := challenge.FindChallenge(challenge.DNS01, got)
		if err != nil {
			return nil, fmt.Errorf("%w: it offers no dns-01 challenge for %s", port.ErrRefused, name)
		}
		keyAuthorization, err := s.GetKeyAuthorization(chosen.Token)
		if err != nil {
			return nil, fmt.Errorf("authorize the challenge for %s: %w", name, err)
		}
		all = append(all, authorization{url: url, name: name, challenge: chosen, value: recordValue(keyAuthorization)})
	}
	return all, nil
}

func (s *solver) read(ctx context.Context, what, url string) (got legoacme.Authorization, err error) {
	err = s.persist(ctx, what, func() (err error) {
		got, err = s.Authorizations.Get(url)
		return err
	})
	return got, err
}

// meet shows the values of some challenges, has the authority look at each, and
// withdraws them.
func (s *solver) meet(ctx context.Context, batch []authorization) error {
	for _, a := range batch {
		defer s.challenges.Withdraw(a.value)
		if err := s.challenges.Present(ctx, a.value); err != nil {
			return fmt.Errorf("present the challenge for %s: %w", a.name, err)
		}
	}
	if err := wait(ctx, s.settle); err != nil {
		return err
	}
	for i, a := range batch {
		batch[i].asked = true // also if the answer is lost
		if _, err := s.Challenges.New(a.challenge.URL); err != nil {
			return s.wire.explain("have the challenge for "+a.name+" looked at", err)
		}
	}
	for _, a := range batch {
		if err := s.awaitValid(ctx, a); err != nil {
			return err
		}
	}
	return nil
}

func (s *solver) awaitValid(ctx context.Context, a authorization) error {
	for pause := firstPoll; ; pause = nextPoll(pause) {
		if err := s.pause(ctx, pause); err != nil {
			return err
		}
		got, err := s.read(ctx, "look at the authorization of "+a.name, a.url)
		if err != nil {
			return err
		}
		switch got.Status {
		case legoacme.StatusValid:
			return nil
		case legoacme.StatusPending, legoacme.StatusProcessing:
		default:
			return fmt.Errorf("%w: the challenge for %s was not met: %w", port.ErrRefused, a.name, problemIn(got))
		}
	}
}

// giveUp tells the authority that nobody will have these looked at any more: open
// ones count against a limit. It does not matter if that fails. What is being
// looked at comes to an end by itself; to give that up at the same time is a race
// that not every authority survives (Pebble hangs).
func (s *solver) giveUp(ctx context.Context, pending []authorization) {
	for _, a := range pending {
		if ctx.Err() != nil {
			return
		}
		if a.asked {
			continue
		}
		_ = s.Authorizations.Deactivate(a.url)
	}
}

// problemIn is why an authorization has failed, in the authority's words.
func problemIn(a legoacme.Authorization) error {
	for _, c := range a.Challenges {
		if c.Error != nil {
			return problemOf(c.Error)
		}
	}
	return errors.New("its status is " + a.Status)
}

// recordValue is the TXT value that goes with a key authorization (RFC 8555, 8.4).
func recordValue(keyAuthorization string) string {
	sum := sha256.Sum256([]byte(keyAuthorization))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
