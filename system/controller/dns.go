package controller

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"plane/system/name"
	"plane/system/port"
	"plane/system/protocol"
	"plane/system/session"
)

const (
	// challengeCall is the longest that reading the challenges of one batch of
	// questions may take: the resolvers behind them have to be told something, and
	// the next batch waits.
	challengeCall = time.Second
	// challengeReaders is how many questions of one receiver the store is asked
	// at once.
	challengeReaders = 8
	// maxQuestions is how many questions of one receiver may wait. Those of ours
	// have fewer under way; what is beyond gets no answer.
	maxQuestions = 1 << 12
)

// dnsSeat is one DNS receiver's session.
type dnsSeat struct {
	c         *Controller
	out       *session.Outbox
	log       *slog.Logger
	questions *inbox[protocol.TxtRecordRequest]
}

// ServeDNS implements port.ControllerAPI. A receiver belongs to no cluster and
// holds nothing, so the store does not know of it.
func (c *Controller) ServeDNS(ctx context.Context, conn port.Conn) error {
	defer conn.Close("session over")
	hello, err := c.welcome(ctx, name.DNS, conn)
	if err != nil {
		return err
	}
	log := c.cfg.Log.With("dns", hello.Name)
	c.compare(hello.Version, log)
	log.Info("connected")
	s := &dnsSeat{c: c, out: session.NewOutbox(c.tasks), log: log, questions: newInbox[protocol.TxtRecordRequest](c.tasks)}
	g := c.tasks.Group(ctx)
	g.Go("dns session", func(ctx context.Context) error {
		return session.Run(ctx, c.clock, c.tasks, conn, s.out, s.receive)
	})
	g.Go("dns answers", s.questions.serve(s.answerAll))
	err = g.Wait()
	log.Info("disconnected", "reason", err)
	return err
}

func (s *dnsSeat) receive(_ context.Context, frame []byte) error {
	m, err := protocol.DecodeFromDNS(frame)
	if err != nil {
		skip(s.log, err)
		return nil
	}
	if m, ok := m.(protocol.TxtRecordRequest); ok && s.questions.messages.Len() < maxQuestions {
		s.questions.put(m)
	}
	return nil
}

// answerAll answers what was asked since the last call, some of it at a time.
func (s *dnsSeat) answerAll(ctx context.Context, questions []protocol.TxtRecordRequest) error {
	limited, cancel := port.WithTimeout(ctx, s.c.clock, challengeCall)
	defer cancel()
	g, failed := s.c.tasks.Group(limited), make([]error, min(challengeReaders, len(questions)))
	for first := range failed {
		g.Go("dns answer", func(ctx context.Context) error {
			for i := first; i < len(questions); i += challengeReaders {
				if err := s.answer(ctx, questions[i]); err != nil {
					failed[first] = err // the others go on
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if i := slices.IndexFunc(failed, func(err error) bool { return err != nil }); i >= 0 && ctx.Err() == nil {
		s.log.Warn("cannot read the challenges of a cluster", "error", failed[i])
	}
	return context.Cause(ctx)
}

// answer tells the values of one cluster. When the store cannot say, a receiver
// that could not tell this from an answer is told nothing.
func (s *dnsSeat) answer(ctx context.Context, q protocol.TxtRecordRequest) error {
	r := protocol.TxtRecordResponse{Cluster: q.Cluster, RequestID: q.RequestID}
	values, err := s.c.challenges(ctx, q.Cluster)
	if len(values) > 0 {
		r.TxtValue, r.TxtValues = &values[0], values
	}
	r.Failed = err != nil
	if err == nil || q.RequestID != 0 {
		s.out.Put(protocol.EncodeToDNS(r))
	}
	return err
}

// challenges reads a cluster's values. What is no cluster's name has none: it
// comes from the internet.
func (c *Controller) challenges(ctx context.Context, cluster string) ([]string, error) {
	canonical, err := name.ParseCluster(cluster)
	if err != nil {
		return nil, nil //nolint:nilerr // an answer as any other
	}
	values, err := c.store.Challenges(ctx, canonical.String())
	if err != nil {
		return nil, fmt.Errorf("read challenges: %w", err)
	}
	return values, nil
}
