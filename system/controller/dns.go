package controller

import (
	"context"
	"log/slog"
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

// answerAll answers what was asked since the last call, and asks the store once:
// however many names a flood of questions thinks up, there is one statement under
// way for each receiver. What is no cluster's name has no values: it comes from the
// internet.
func (s *dnsSeat) answerAll(ctx context.Context, questions []protocol.TxtRecordRequest) error {
	var asked []protocol.TxtRecordRequest
	var clusters []string
	for _, q := range questions {
		canonical, err := name.ParseCluster(q.Cluster)
		if err != nil {
			s.answer(q, nil, nil)
			continue
		}
		asked, clusters = append(asked, q), append(clusters, canonical.String())
	}
	if len(asked) == 0 {
		return nil
	}
	limited, cancel := port.WithTimeout(ctx, s.c.clock, challengeCall)
	values, err := s.c.store.Challenges(limited, clusters)
	cancel()
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		s.log.Warn("cannot read challenges", "clusters", len(clusters), "error", err)
		values = make([][]string, len(clusters))
	}
	for i, q := range asked {
		s.answer(q, values[i], err)
	}
	return nil
}

// answer tells the values of one cluster. When the store cannot say, a receiver
// that could not tell this from an answer is told nothing.
func (s *dnsSeat) answer(q protocol.TxtRecordRequest, values []string, err error) {
	r := protocol.TxtRecordResponse{Cluster: q.Cluster, RequestID: q.RequestID, Failed: err != nil}
	if len(values) > 0 {
		r.TxtValue, r.TxtValues = &values[0], values
	}
	if err == nil || q.RequestID != 0 {
		s.out.Put(protocol.EncodeToDNS(r))
	}
}
