package dns_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/clock"
	"plane/system/dns"
	"plane/system/inquiry"
	"plane/system/port"
	"plane/system/protocol"
)

var _ port.ChallengeReader = (*dns.Receiver)(nil)

// world is a receiver in a bubble, with a controller that the test plays by hand.
type world struct {
	*dns.Receiver
	t          *testing.T
	ctx        context.Context
	clock      port.Clock
	controller *controller
}

// run runs the test in a bubble; configure may change the configuration.
func run(t *testing.T, configure func(*dns.Config), test func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		cfg := dns.DefaultConfig("ns-test", protocol.Version{Version: "1", GitHash: "a"})
		if configure != nil {
			configure(&cfg)
		}
		w := &world{t: t, clock: clock.New(), controller: &controller{}}
		ctx, cancel := context.WithCancel(t.Context())
		w.ctx = ctx
		tasks := clock.NewTasks(ctx)
		r, err := dns.New(cfg, w.clock, tasks, clock.Rand{}, w.controller, slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		w.Receiver = r
		tasks.Go("dns", func(ctx context.Context) { _ = r.Run(ctx) }) // it ends with the context, as told
		synctest.Wait()
		test(t, w)
		cancel()
		tasks.Stop()
	})
}

// sleep lets time pass and everything that it brings happen.
func (w *world) sleep(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // the time of the bubble
	synctest.Wait()
}

// question is a Challenges under way.
type question struct {
	ended  atomic.Bool
	values []string
	err    error
	took   time.Duration
}

func (w *world) ask(cluster string) *question {
	q, start := &question{}, w.clock.Now()
	go func() {
		q.values, q.err = w.Challenges(w.ctx, cluster)
		q.took = w.clock.Now().Sub(start)
		q.ended.Store(true)
	}()
	synctest.Wait()
	return q
}

// asked returns and forgets what the controller was asked since the last call.
func (w *world) asked() []protocol.TxtRecordRequest {
	synctest.Wait()
	return w.controller.link().take()
}

func (w *world) answer(q protocol.TxtRecordRequest, values ...string) {
	r := protocol.TxtRecordResponse{Cluster: q.Cluster, RequestID: q.RequestID, TxtValues: values}
	w.tell(r)
}

func (w *world) tell(r protocol.TxtRecordResponse) {
	w.controller.link().toDNS <- protocol.EncodeToDNS(r)
	synctest.Wait()
}

func (w *world) requireTold(q *question, values ...string) {
	w.t.Helper()
	require.True(w.t, q.ended.Load())
	require.NoError(w.t, q.err)
	require.Equal(w.t, values, q.values)
}

func TestAllValuesAreTold(t *testing.T) {
	run(t, nil, func(_ *testing.T, w *world) {
		q := w.ask("c1.test")
		w.answer(w.asked()[0], "base", "wildcard")
		w.requireTold(q, "base", "wildcard")
	})
}

func TestAControllerOf05TellsOneValueAndNoNumber(t *testing.T) {
	run(t, nil, func(t *testing.T, w *world) {
		q, one := w.ask("c1.test"), "one"
		w.tell(protocol.TxtRecordResponse{Cluster: "c1.test", TxtValue: &one})
		w.requireTold(q, "one")
		q = w.ask("c2.test")
		w.tell(protocol.TxtRecordResponse{Cluster: "c2.test"})
		require.True(t, q.ended.Load())
		require.NoError(t, q.err)
		require.Empty(t, q.values)
	})
}

func TestAFloodOfQuestionsIsNoneToTheController(t *testing.T) {
	run(t, func(c *dns.Config) { c.Inquiries.Calm = 0 }, func(t *testing.T, w *world) {
		first := w.ask("c1.test")
		second := w.ask("c1.test")
		asked := w.asked()
		require.Len(t, asked, 1)
		w.answer(asked[0], "x")
		w.requireTold(first, "x")
		w.requireTold(second, "x")
		for range 100 {
			w.requireTold(w.ask("c1.test"), "x")
			values, known := w.Remembered("c1.test")
			require.True(t, known)
			require.Equal(t, []string{"x"}, values)
		}
		_, known := w.Remembered("c2.test")
		require.False(t, known)
		require.Empty(t, w.asked())
		w.sleep(900 * time.Millisecond)
		_, known = w.Remembered("c1.test")
		require.False(t, known)
		w.ask("c1.test")
		require.Len(t, w.asked(), 1)
	})
}

func TestAFailureIsNotRemembered(t *testing.T) {
	run(t, func(c *dns.Config) { c.Inquiries.Calm = 0 }, func(t *testing.T, w *world) {
		w.ask("c1.test")
		q := w.asked()[0]
		w.tell(protocol.TxtRecordResponse{Cluster: q.Cluster, RequestID: q.RequestID, Failed: true})
		_, known := w.Remembered("c1.test")
		require.False(t, known)
	})
}

func TestNoAnswerHidesAValueThatIsSet(t *testing.T) {
	run(t, nil, func(t *testing.T, w *world) {
		early := w.ask("c1.test")
		asked := w.asked()
		late := w.ask("c1.test") // a value is set before this, and after the controller was asked
		w.answer(asked[0])
		require.True(t, early.ended.Load())
		require.False(t, late.ended.Load())
		w.answer(w.asked()[0], "set meanwhile")
		w.requireTold(late, "set meanwhile")
		last := w.ask("c1.test")
		w.answer(w.asked()[0], "set meanwhile", "and another")
		w.requireTold(last, "set meanwhile", "and another")
	})
}

func TestNobodyAnswers(t *testing.T) {
	run(t, nil, func(t *testing.T, w *world) {
		q := w.ask("c1.test")
		w.sleep(1500 * time.Millisecond)
		require.True(t, q.ended.Load())
		require.ErrorIs(t, q.err, port.ErrUnavailable)
		require.Equal(t, 1500*time.Millisecond, q.took)
	})
}

func TestTheStoreIsAway(t *testing.T) {
	run(t, nil, func(t *testing.T, w *world) {
		q := w.ask("c1.test")
		w.tell(protocol.TxtRecordResponse{Cluster: "c1.test", RequestID: w.asked()[0].RequestID, Failed: true})
		require.True(t, q.ended.Load())
		require.ErrorIs(t, q.err, port.ErrUnavailable)
	})
}

func TestWithoutAControllerQuestionsFailAtOnce(t *testing.T) {
	run(t, nil, func(t *testing.T, w *world) {
		w.controller.setDown(true)
		w.controller.link().Close("cut")
		synctest.Wait()
		require.False(t, w.Connected())
		q := w.ask("c1.test")
		w.sleep(time.Second)
		require.ErrorIs(t, q.err, port.ErrUnavailable)
		require.Equal(t, time.Second, q.took, "it may only be moving to another controller")
		q = w.ask("c1.test")
		require.True(t, q.ended.Load())
		require.Zero(t, q.took)
		require.ErrorContains(t, q.err, "no controller connected for 1s")
	})
}

func TestAQuestionOutlivesItsSession(t *testing.T) {
	run(t, func(c *dns.Config) { c.Reconnect.First = 10 * time.Millisecond }, func(t *testing.T, w *world) {
		q := w.ask("c1.test")
		require.Len(t, w.asked(), 1)
		w.controller.link().Close("cut")
		w.sleep(100 * time.Millisecond)
		require.True(t, w.Connected())
		asked := w.asked()
		require.Len(t, asked, 1, "asked again")
		w.answer(asked[0], "x")
		w.requireTold(q, "x")
	})
}

func TestGarbageFromTheControllerEndsNothing(t *testing.T) {
	run(t, nil, func(_ *testing.T, w *world) {
		q := w.ask("c1.test")
		for _, frame := range []string{"", "{", `{"Snooze":{}}`, `{"TxtRecordResponse":{}}`, `{"TxtRecordResponse":{"cluster":"other.test","txt_value":"x"}}`} {
			w.controller.link().toDNS <- []byte(frame)
		}
		w.answer(w.asked()[0], "x")
		w.requireTold(q, "x")
	})
}

func TestTooManyQuestions(t *testing.T) {
	run(t, func(c *dns.Config) { c.Inquiries.MaxAsked = 1 }, func(t *testing.T, w *world) {
		w.ask("c1.test")
		q := w.ask("c2.test")
		require.ErrorIs(t, q.err, port.ErrUnavailable)
		asked, _ := w.Size()
		require.Equal(t, 1, asked)
	})
}

func TestAFloodOfNamesDoesNotKeepOutWhatIsShown(t *testing.T) {
	run(t, func(c *dns.Config) { c.Inquiries.MaxSent, c.Inquiries.MaxAsked = 4, 16 }, func(t *testing.T, w *world) {
		w.ask("c1.test")
		w.answer(w.asked()[0], "x")
		var flood []*question
		for i := range 100 {
			flood = append(flood, w.ask(fmt.Sprintf("x%d.test", i)))
		}
		asked := w.asked()
		require.Len(t, asked, 4, "the controller is slow, and is asked no more")
		shown := w.ask("c1.test")
		flood = append(flood, w.ask("x100.test"))
		w.answer(asked[0])
		w.answer(w.asked()[0], "x")
		w.requireTold(shown, "x")
		w.requireTold(flood[0])
		require.True(t, flood[4].ended.Load())
		require.ErrorIs(t, flood[4].err, port.ErrUnavailable)
		require.ErrorIs(t, flood[4].err, inquiry.ErrTooMany)
		require.False(t, flood[100].ended.Load())
	})
}

func TestWhatNobodyWaitsForAnyMoreMakesRoom(t *testing.T) {
	run(t, func(c *dns.Config) { c.Inquiries.MaxSent = 1 }, func(t *testing.T, w *world) {
		w.ask("c1.test")
		require.Len(t, w.asked(), 1)
		w.sleep(time.Second)
		second := w.ask("c2.test")
		require.Empty(t, w.asked())
		w.sleep(500 * time.Millisecond)
		asked := w.asked()
		require.Len(t, asked, 1)
		w.answer(asked[0], "x")
		w.requireTold(second, "x")
	})
}

func TestConfigurationsThatAreRefused(t *testing.T) {
	for want, change := range map[string]func(*dns.Config){
		"ns-":            func(c *dns.Config) { c.Name = "px-1" },
		"Patience":       func(c *dns.Config) { c.Patience = 0 },
		"inquiry policy": func(c *dns.Config) { c.Inquiries.Keep = time.Minute },
	} {
		cfg := dns.DefaultConfig("ns-1", protocol.Version{})
		change(&cfg)
		require.ErrorContains(t, cfg.Validate(), want)
	}
}

// controller is the far end; it implements port.Dialer.
type controller struct {
	mu      sync.Mutex
	down    bool
	current *link
}

func (c *controller) setDown(down bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = down
}

func (c *controller) link() *link {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current
}

func (c *controller) Dial(context.Context) (port.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.down {
		return nil, errors.New("controller is down")
	}
	c.current = &link{toDNS: make(chan []byte, 100), closed: make(chan struct{})}
	c.current.toDNS <- protocol.EncodeHandshake(protocol.Handshake{Name: "co-test"})
	return c.current, nil
}

// link is one session, seen from the controller.
type link struct {
	toDNS   chan []byte
	closed  chan struct{}
	once    sync.Once
	mu      sync.Mutex
	greeted bool
	got     []protocol.TxtRecordRequest
}

func (l *link) take() []protocol.TxtRecordRequest {
	l.mu.Lock()
	defer l.mu.Unlock()
	got := l.got
	l.got = nil
	return got
}

func (l *link) Send(_ context.Context, frame []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.closed:
		return port.ErrClosed
	default:
	}
	if !l.greeted {
		l.greeted = true
		return nil
	}
	m, err := protocol.DecodeFromDNS(frame)
	if err != nil {
		return err
	}
	l.got = append(l.got, m.(protocol.TxtRecordRequest))
	return nil
}

func (l *link) Recv(ctx context.Context) ([]byte, error) {
	select {
	case frame := <-l.toDNS:
		return frame, nil
	case <-l.closed:
		return nil, port.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (l *link) Close(string) { l.once.Do(func() { close(l.closed) }) }
