package proxy

import (
	"context"
	"errors"
	"time"

	"plane/system/challenge"
	"plane/system/port"
	"plane/system/protocol"
)

var _ port.Challenges = (*Proxy)(nil)

// OneAtATime implements port.Challenges.
func (p *Proxy) OneAtATime(ctx context.Context) (bool, error) {
	for {
		seen := p.told.Read()
		if connected, one := p.desk.Controller(); connected {
			return one, nil
		}
		if err := p.told.Await(ctx, seen); err != nil {
			return false, err
		}
	}
}

// Present implements port.Challenges.
func (p *Proxy) Present(ctx context.Context, value string) error {
	p.desk.Want(value)
	p.work.Advance()
	for {
		seen := p.told.Read()
		if p.desk.Shown(value) {
			return nil
		}
		if err := p.told.Await(ctx, seen); err != nil {
			p.Withdraw(value)
			return err
		}
	}
}

// Withdraw implements port.Challenges.
func (p *Proxy) Withdraw(value string) {
	p.desk.Forget(value)
	p.work.Advance()
}

// errUnanswered ends a session whose controller does not answer about a
// challenge; the next one may.
var errUnanswered = errors.New("the controller does not answer a certificate request")

// feedChallenges sends what is to be sent about challenges, and returns when to
// look again at the latest.
func (p *Proxy) feedChallenges(now time.Time, put func(protocol.FromProxy)) (time.Time, error) {
	for {
		ask, again := p.desk.Next(now)
		switch ask.Kind {
		case challenge.Nothing:
			return again, nil
		case challenge.Lease:
			put(protocol.CertManagerRequest{CertLeaseRequest: true})
		case challenge.Set:
			put(protocol.CertManagerRequest{SetTxtRecord: &protocol.SetTxtRecord{TxtValue: ask.Value}})
		case challenge.Release:
			put(protocol.CertManagerRequest{ReleaseCertLease: true})
		case challenge.Leave:
			return again, errUnanswered
		}
	}
}

// takeAnswer takes a controller's answer about a challenge. After a no it is
// asked again in a few seconds: not all proxies that wait for a lease at once.
func (p *Proxy) takeAnswer(m protocol.CertManagerResponse) {
	pause := 3*time.Second + time.Duration(p.rnd.Float64()*float64(4*time.Second))
	now := p.clock.Now()
	if lease := m.CertLeaseResponse; lease != nil {
		p.desk.Answered(challenge.Lease, lease.Accepted, now, pause)
	}
	if set := m.SetTxtRecordResponse; set != nil {
		if !set.Accepted {
			p.log.Warn("the controller did not take a challenge; it is set again soon")
		}
		p.desk.Answered(challenge.Set, set.Accepted, now, pause)
	}
	p.told.Advance()
	p.work.Advance()
}
