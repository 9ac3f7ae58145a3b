package postgres

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/stretchr/testify/require"
)

// server is what a combiner's batches go to. It doubles numbers.
type server struct {
	mu      sync.Mutex
	batches [][]int
	answer  func(items []int) error // before all else, unless nil
}

func (s *server) run(ctx context.Context, items []int) ([]int, error) {
	s.mu.Lock()
	s.batches = append(s.batches, slices.Clone(items))
	answer := s.answer
	s.mu.Unlock()
	if answer != nil {
		if err := answer(items); err != nil {
			return nil, err
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	out := make([]int, len(items))
	for i, n := range items {
		out[i] = 2 * n
	}
	return out, nil
}

func (s *server) seen() [][]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.batches)
}

func newCombiner(s *server, workers, most int) *combiner[int, int] {
	return &combiner[int, int]{run: s.run, workers: workers, most: most}
}

func TestCombinerAnswersEachCallerItsOwn(t *testing.T) {
	s := &server{}
	c := newCombiner(s, 3, 7)
	var callers sync.WaitGroup
	for i := range 500 {
		callers.Go(func() {
			out, err := c.do(t.Context(), []int{i, -i})
			require.NoError(t, err)
			require.Equal(t, []int{2 * i, -2 * i}, out)
		})
	}
	callers.Wait()
	total := 0
	for _, b := range s.seen() {
		total += len(b)
		require.LessOrEqual(t, len(b), 7)
	}
	require.Equal(t, 1000, total, "each item went once")
}

func TestCombinerGathersWhatComesWhileABatchIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		s := &server{answer: func(items []int) error {
			if items[0] == 0 {
				<-hold
			}
			return nil
		}}
		c := newCombiner(s, 1, 3)
		var callers sync.WaitGroup
		for i := range 6 {
			callers.Go(func() {
				_, err := c.do(t.Context(), []int{i})
				require.NoError(t, err)
			})
			synctest.Wait()
		}
		close(hold)
		callers.Wait()
		require.Equal(t, [][]int{{0}, {1, 2, 3}, {4, 5}}, s.seen())
		out, err := c.do(t.Context(), []int{1, 2, 3, 4, 5})
		require.NoError(t, err)
		require.Len(t, out, 5, "what is more than a batch may have goes alone")
	})
}

func TestCombinerBatchesThatAreInNoHurryAreFarApart(t *testing.T) {
	const gather = 400 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		c := newCombiner(&server{}, 1, 100)
		c.gather = gather
		waits := func(want time.Duration) {
			t.Helper()
			begin := time.Now()
			_, err := c.do(t.Context(), []int{1})
			require.NoError(t, err)
			require.Equal(t, want, time.Since(begin))
		}
		for range atOnce {
			waits(0)
		}
		for range 3 {
			waits(gather)
		}
		time.Sleep(gather / 4) //nolint:forbidigo // the time of the bubble
		waits(gather * 3 / 4)
		time.Sleep(2 * gather) //nolint:forbidigo // the time of the bubble
		waits(0)
		waits(0)
		waits(gather)
		time.Sleep(time.Hour) //nolint:forbidigo // the time of the bubble
		for range atOnce {
			waits(0)
		}
		waits(gather)
	})
}

func TestCombinerGathersWhatComesInBetween(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{}
		c := newCombiner(s, 1, 100)
		c.gather = 400 * time.Millisecond
		var callers sync.WaitGroup
		for i := range atOnce + 3 {
			callers.Go(func() {
				_, err := c.do(t.Context(), []int{i})
				require.NoError(t, err)
			})
			synctest.Wait()
		}
		callers.Wait()
		require.Equal(t, [][]int{{0}, {1}, {2}, {3}, {4, 5, 6}}, s.seen())
	})
}

func TestCombinerOneItemThatTheServerRefusesHurtsNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		s := &server{answer: func(items []int) error {
			if items[0] == 0 {
				<-hold
			}
			if slices.Contains(items, 13) {
				return &pgconn.PgError{Code: "22021", Message: "invalid byte sequence"}
			}
			return nil
		}}
		c := newCombiner(s, 1, 100)
		var callers sync.WaitGroup
		for _, n := range []int{0, 12, 13, 14} {
			callers.Go(func() {
				out, err := c.do(t.Context(), []int{n})
				if n == 13 {
					require.ErrorContains(t, err, "invalid byte sequence")
					return
				}
				require.NoError(t, err)
				require.Equal(t, []int{2 * n}, out)
			})
			synctest.Wait()
		}
		close(hold)
		callers.Wait()
	})
}

func TestCombinerUnclearFailureIsToldToAllAndNotRepeated(t *testing.T) {
	cut := errors.New("connection reset by peer")
	s := &server{answer: func([]int) error { return cut }}
	_, err := newCombiner(s, 1, 100).do(t.Context(), []int{1})
	require.ErrorIs(t, err, cut)
	require.Len(t, s.seen(), 1)
}

func TestCombinerRepeatsWhatTheServerTookBackWhole(t *testing.T) {
	for _, code := range []string{codeDeadlock, codeSerialization} {
		t.Run(code, func(t *testing.T) {
			left := 2
			s := &server{answer: func([]int) error {
				if left--; left >= 0 {
					return &pgconn.PgError{Code: code}
				}
				return nil
			}}
			out, err := newCombiner(s, 1, 100).do(t.Context(), []int{1})
			require.NoError(t, err)
			require.Equal(t, []int{2}, out)
			left = 1000
			_, err = newCombiner(s, 1, 100).do(t.Context(), []int{1})
			require.ErrorContains(t, err, code, "not for ever")
		})
	}
}

func TestCombinerCallerThatLeavesIsLetGoAndHindersNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := errors.New("client gone")
		ctx, leave := context.WithCancelCause(t.Context())
		hold := make(chan struct{})
		s := &server{answer: func(items []int) error {
			if items[0] == 0 {
				select {
				case <-hold:
				case <-ctx.Done():
				}
			}
			return nil
		}}
		c := newCombiner(s, 1, 100)
		var callers sync.WaitGroup
		for n, ctx := range []context.Context{ctx, ctx, t.Context()} {
			callers.Go(func() {
				out, err := c.do(ctx, []int{n})
				if n < 2 {
					require.ErrorIs(t, err, gone)
					return
				}
				require.NoError(t, err)
				require.Equal(t, []int{2 * n}, out)
			})
			synctest.Wait()
		}
		leave(gone)
		synctest.Wait()
		close(hold)
		callers.Wait()
		require.Equal(t, [][]int{{0}, {2}}, s.seen(), "what had not begun is left out")
		_, err := c.do(ctx, []int{9})
		require.ErrorIs(t, err, gone)
	})
}

func TestCombinerNothingAskedNothingDone(t *testing.T) {
	s := &server{}
	out, err := newCombiner(s, 1, 1).do(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, out)
	require.Empty(t, s.seen())
}
