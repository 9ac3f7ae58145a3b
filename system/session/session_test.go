package session_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/clock"
	"plane/system/port"
	"plane/system/session"
)

// pipe is one end of a connection in memory. Nothing is buffered: Send blocks
// for as long as nobody reads.
type pipe struct {
	in, out chan []byte
	closed  chan struct{}
}

func newPipe() (a, b *pipe) {
	x, y, closed := make(chan []byte), make(chan []byte), make(chan struct{})
	return &pipe{x, y, closed}, &pipe{y, x, closed}
}

func (p *pipe) Send(ctx context.Context, msg []byte) error {
	select {
	case p.out <- msg:
		return nil
	case <-p.closed:
		return port.ErrClosed
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (p *pipe) Recv(ctx context.Context) ([]byte, error) {
	select {
	case msg := <-p.in:
		return msg, nil
	case <-p.closed:
		return nil, port.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (p *pipe) Close(string) {
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestMessagesGoBothWaysInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tasks, c := clock.NewTasks(t.Context()), clock.New()
		near, far := newPipe()
		out := session.NewOutbox(tasks)
		for _, m := range []string{"1", "2", "3"} {
			out.Put([]byte(m))
		}
		var got []string
		done := errors.New("done")
		ended := make(chan error, 1)
		go func() {
			ended <- session.Run(t.Context(), c, tasks, near, out, func(_ context.Context, frame []byte) error {
				if got = append(got, string(frame)); len(got) == 2 {
					return done
				}
				return nil
			})
		}()
		for _, want := range []string{"1", "2", "3"} {
			msg, err := far.Recv(t.Context())
			require.NoError(t, err)
			require.Equal(t, want, string(msg))
		}
		require.NoError(t, far.Send(t.Context(), []byte("a")))
		require.NoError(t, far.Send(t.Context(), []byte("b")))
		require.ErrorIs(t, <-ended, done)
		require.Equal(t, []string{"a", "b"}, got)
		require.ErrorIs(t, far.Send(t.Context(), nil), port.ErrClosed, "the session has closed the connection")
	})
}

// Shortfall 15: one who reads slowly is not cut off at the first full buffer,
// and does not stop the reader; one who does not read at all is.
func TestASlowPeerDoesNotStopTheReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tasks, c := clock.NewTasks(t.Context()), clock.New()
		near, far := newPipe()
		out := session.NewOutbox(tasks)
		for range 10_000 {
			out.Put([]byte("x"))
		}
		heard := 0
		ended := make(chan error, 1)
		go func() {
			ended <- session.Run(t.Context(), c, tasks, near, out, func(context.Context, []byte) error { heard++; return nil })
		}()
		require.NoError(t, far.Send(t.Context(), []byte("still heard")))
		synctest.Wait()
		require.Equal(t, 1, heard)

		time.Sleep(session.SendTimeout - time.Second) //nolint:forbidigo // the time of the bubble
		_, err := far.Recv(t.Context())
		require.NoError(t, err, "a peer that reads in time keeps its session")
		require.ErrorIs(t, <-ended, context.DeadlineExceeded, "a peer that does not is cut off")
	})
}

type dialer func() (port.Conn, error)

func (d dialer) Dial(context.Context) (port.Conn, error) { return d() }

func TestKeepWaitsLongerEachTimeAndStartsAgainAfterALongSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tasks, c := clock.NewTasks(t.Context()), clock.New()
		ctx, cancel := context.WithCancel(t.Context())
		start := c.Now()
		var dials []time.Duration
		d := dialer(func() (port.Conn, error) {
			dials = append(dials, c.Now().Sub(start))
			if len(dials) != 60 {
				return nil, errors.New("refused")
			}
			near, _ := newPipe()
			return near, nil
		})
		r := session.DefaultReconnect()
		session.Keep(ctx, r, c, tasks, fair{}, d, quiet(), func(ctx context.Context, _ port.Conn) error {
			if err := c.Sleep(ctx, 2*r.Most); err != nil {
				return err
			}
			time.AfterFunc(10*time.Second, cancel)
			return errors.New("cut")
		})
		require.Equal(t, time.Second, dials[1]-dials[0])
		require.InDelta(t, float64(1100*time.Millisecond), float64(dials[2]-dials[1]), 1)
		require.Equal(t, time.Minute, dials[59]-dials[58], "the wait stops growing")
		require.Equal(t, 2*r.Most+time.Second, dials[60]-dials[59], "a session that lasted resets the wait")
	})
}

func TestKeepMovesOnAfterAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tasks, c := clock.NewTasks(t.Context()), clock.New()
		ctx, cancel := context.WithCancel(t.Context())
		start := c.Now()
		var dials []time.Duration
		d := dialer(func() (port.Conn, error) {
			if dials = append(dials, c.Now().Sub(start)); len(dials) == 3 {
				cancel()
			}
			near, _ := newPipe()
			return near, nil
		})
		session.Keep(ctx, session.DefaultReconnect(), c, tasks, fair{}, d, quiet(), func(ctx context.Context, _ port.Conn) error {
			<-ctx.Done()
			return context.Cause(ctx)
		})
		require.Equal(t, []time.Duration{0, time.Hour, 2 * time.Hour}, dials)
	})
}

// fair always draws the middle.
type fair struct{}

func (fair) Uint64() uint64   { return 0 }
func (fair) IntN(n int) int   { return n / 2 }
func (fair) Float64() float64 { return 0.5 }
