package proxy_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/protocol"
)

// said returns what the proxy asked about certificates since the last time:
// "lease", "release", or a value.
func (w *world) said() (all []string) {
	for _, m := range w.heard() {
		q, ok := m.(protocol.CertManagerRequest)
		switch {
		case !ok:
		case q.CertLeaseRequest:
			all = append(all, "lease")
		case q.ReleaseCertLease:
			all = append(all, "release")
		default:
			all = append(all, q.SetTxtRecord.TxtValue)
		}
	}
	return all
}

func (w *world) leased(yes bool) {
	w.tell(protocol.CertManagerResponse{CertLeaseResponse: &protocol.Accepted{Accepted: yes}})
}

func (w *world) taken(yes bool) {
	w.tell(protocol.CertManagerResponse{SetTxtRecordResponse: &protocol.Accepted{Accepted: yes}})
}

// presents starts a Present.
func (w *world) presents(value string) (done *atomic.Bool, stop func()) {
	done = &atomic.Bool{}
	ctx, cancel := context.WithCancel(w.ctx)
	go func() { done.Store(w.Present(ctx, value) == nil) }()
	synctest.Wait()
	return done, cancel
}

func TestAChallengeIsThereOnceTheControllerSaysSo(t *testing.T) {
	run(t, nil, func(t *testing.T, w *world) {
		one, err := w.OneAtATime(w.ctx)
		require.NoError(t, err)
		require.False(t, one)
		base, _ := w.presents("base")
		require.Equal(t, []string{"release", "base"}, w.said(), "first what an earlier process may have left")
		require.False(t, base.Load())
		wild, _ := w.presents("wild")
		w.taken(true)
		require.True(t, base.Load())
		require.Equal(t, []string{"wild"}, w.said())
		w.taken(false)
		require.False(t, wild.Load())
		w.sleep(8 * time.Second)
		require.Equal(t, []string{"wild"}, w.said(), "once more")
		w.taken(true)
		require.True(t, wild.Load())
		w.Withdraw("base")
		require.Empty(t, w.said(), "the other one is still needed")
		w.Withdraw("wild")
		require.Equal(t, []string{"release"}, w.said())
	})
}

func TestAChallengeSurvivesItsController(t *testing.T) {
	run(t, nil, func(t *testing.T, w *world) {
		base, _ := w.presents("base")
		w.taken(true)
		require.True(t, base.Load())
		w.cut()
		wild, _ := w.presents("wild")
		w.sleep(5 * time.Minute)
		require.False(t, wild.Load())
		w.heal()
		require.Equal(t, []string{"base"}, w.said())
		w.taken(true)
		require.Equal(t, []string{"wild"}, w.said())
		w.cut() // its answer is lost
		w.heal()
		require.Equal(t, []string{"base"}, w.said())
		w.taken(true)
		require.Equal(t, []string{"wild"}, w.said())
		w.taken(true)
		require.True(t, wild.Load())
		w.sleep(4 * time.Minute)
		require.Equal(t, []string{"base"}, w.said(), "it would expire")
	})
}

func TestAChallengeThatIsGivenUpIsReleasedByTheNextController(t *testing.T) {
	run(t, nil, func(t *testing.T, w *world) {
		_, stop := w.presents("base")
		w.taken(true)
		w.cut()
		wild, stopWild := w.presents("wild")
		stopWild()
		stop()
		synctest.Wait()
		require.False(t, wild.Load())
		w.Withdraw("base")
		w.heal()
		require.Equal(t, []string{"release"}, w.said())
	})
}

// Shortfall 18, with a controller of 0.5.x.
func TestShortfall18AControllerOf05IsAskedForTheLease(t *testing.T) {
	run(t, nil, func(t *testing.T, w *world) {
		w.cut()
		w.controller.speaks("0.5.5")
		w.heal()
		one, err := w.OneAtATime(w.ctx)
		require.NoError(t, err)
		require.True(t, one)
		base, _ := w.presents("base")
		require.Equal(t, []string{"lease"}, w.said())
		w.leased(false)
		w.sleep(8 * time.Second)
		require.Equal(t, []string{"lease"}, w.said())
		w.leased(true)
		require.Equal(t, []string{"base"}, w.said())
		w.taken(true)
		require.True(t, base.Load())
		w.sleep(21 * time.Second)
		require.Equal(t, []string{"lease"}, w.said(), "it lasts for 60 s")
		w.leased(true)
		w.Withdraw("base")
		require.Equal(t, []string{"release"}, w.said())
	})
}

func TestAControllerThatDoesNotAnswerAboutAChallengeIsLeft(t *testing.T) {
	run(t, nil, func(t *testing.T, w *world) {
		w.presents("base")
		first := w.controller.link()
		w.sleep(65 * time.Second)
		require.NotSame(t, first, w.controller.link())
		require.Equal(t, []string{"base"}, w.said())
	})
}

func TestWhoeverAsksBeforeThereIsAControllerWaits(t *testing.T) {
	run(t, nil, func(t *testing.T, w *world) {
		w.cut()
		ctx, cancel := context.WithTimeout(w.ctx, time.Second)
		defer cancel()
		_, err := w.OneAtATime(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}
