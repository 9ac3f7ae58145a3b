package controller

import (
	"context"
	"time"

	"plane/system/port"
	"plane/system/protocol"
)

// allowance bounds how many requests a peer may make: a burst, and then one for
// each certificateEvery. It belongs to one task.
type allowance struct {
	left  int
	since time.Time // up to when it was refilled
}

// What a proxy may ask about certificates: an order takes about five requests,
// and waiting for the lease one now and then.
const (
	certificateBurst = 30
	certificateEvery = 2 * time.Second
)

func newAllowance(now time.Time) allowance { return allowance{certificateBurst, now} }

// take uses one request up; false when there is none left.
func (a *allowance) take(now time.Time) bool {
	if age := now.Sub(a.since); age >= certificateEvery {
		a.left = min(a.left+int(age/certificateEvery), certificateBurst)
		a.since = now.Add(-(age % certificateEvery))
	}
	if a.left == 0 {
		return false
	}
	a.left--
	return true
}

// takeCertificateRequest queues a request about challenges, or refuses one that
// is too many.
func (s *proxySeat) takeCertificateRequest(m protocol.CertManagerRequest) {
	if s.allowance.take(s.c.clock.Now()) {
		s.certificates.put(m)
		return
	}
	s.log.Warn("refused a certificate request: the proxy makes too many", "burst", certificateBurst, "then_every", certificateEvery)
	s.answerCertificate(m, false)
}

func (s *proxySeat) answerCertificate(m protocol.CertManagerRequest, yes bool) {
	answer := &protocol.Accepted{Accepted: yes}
	switch {
	case m.CertLeaseRequest:
		s.out.Put(protocol.EncodeToProxy(protocol.CertManagerResponse{CertLeaseResponse: answer}))
	case m.SetTxtRecord != nil:
		s.out.Put(protocol.EncodeToProxy(protocol.CertManagerResponse{SetTxtRecordResponse: answer}))
	}
}

// serveCertificates answers the proxy's requests about challenges, in order. A
// proxy of 0.5.x takes the lease for an order and then does not renew it,
// however long the authority takes; so that is done here, until the proxy
// releases it, has been silent about it for ChallengeLife, or is gone. Should it
// have set a value, the lease lasts as long as that, connected or not.
func (s *proxySeat) serveCertificates(ctx context.Context) error {
	renew := s.c.cfg.Timing.CertificateLease / 3
	var leasedUntil time.Time // the end of the proxy's silence; zero: it has no lease
	for {
		seen := s.certificates.arrived.Read()
		batch := s.certificates.messages.TakeAll()
		for _, m := range batch {
			yes, err := s.serveCertificate(ctx, m)
			if err != nil {
				return err
			}
			switch now := s.c.clock.Now(); {
			case m.ReleaseCertLease:
				leasedUntil = time.Time{}
			case m.CertLeaseRequest && yes, m.SetTxtRecord != nil && now.Before(leasedUntil):
				leasedUntil = now.Add(s.c.cfg.Timing.ChallengeLife)
			}
		}
		if len(batch) > 0 {
			continue
		}
		if err := s.c.await(ctx, s.certificates.arrived, seen, renew); err != nil {
			return err
		}
		if s.certificates.arrived.Read() == seen && s.c.clock.Now().Before(leasedUntil) {
			if err := s.keepLease(ctx); err != nil {
				return err
			}
		}
	}
}

// serveCertificate does what one request asks for and answers it. When the store
// fails for long the answer is no: the proxy has to know, and tries again. The
// error is the end of the session.
func (s *proxySeat) serveCertificate(ctx context.Context, m protocol.CertManagerRequest) (bool, error) {
	t := s.c.cfg.Timing
	yes := true
	limited, cancel := port.WithTimeout(ctx, s.c.clock, t.CertificateCall)
	defer cancel()
	err := s.insist(limited, "a certificate request", func(ctx context.Context) (err error) {
		switch store := s.c.store; {
		case m.CertLeaseRequest:
			yes, err = store.LeaseCertificate(ctx, s.cluster, s.id, t.CertificateLease)
		case m.SetTxtRecord != nil:
			err = store.AddChallenge(ctx, s.cluster, s.id, m.SetTxtRecord.TxtValue, t.ChallengeLife)
		case m.ReleaseCertLease:
			err = store.ReleaseCertificate(ctx, s.cluster, s.id)
		}
		return err
	})
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	if err != nil {
		s.log.Warn("a certificate request was not served in time", "limit", t.CertificateCall)
		yes = false
	} else if m.SetTxtRecord != nil {
		s.log.Info("a challenge of the proxy is set")
	}
	s.answerCertificate(m, yes)
	return yes, nil
}

// keepLease extends the lease in the store for another while. One that has
// passed to another proxy meanwhile is of no harm: values are a set.
func (s *proxySeat) keepLease(ctx context.Context) error {
	return s.attempt(ctx, "extending a certificate lease", func(ctx context.Context) error {
		_, err := s.c.store.LeaseCertificate(ctx, s.cluster, s.id, s.c.cfg.Timing.CertificateLease)
		return err
	})
}
