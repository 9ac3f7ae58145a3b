package memory

import (
	"context"
	"sync"

	"plane/system/port"
)

// maxHints is how many hints wait for a Listener that is behind.
const maxHints = 4096

// Listener implements port.Listener. Its subscription is never cut; only the
// context ends Next with an error, and nothing is lost by that.
type Listener struct {
	store   *Store
	arrived chan struct{} // holds one when hints may wait

	mu    sync.Mutex
	hints []port.Hint
}

var _ port.Listener = (*Listener)(nil)

// deliver appends hints. When too many wait already they are all replaced by
// one that stands for any.
func (l *Listener) deliver(hints []port.Hint) {
	l.mu.Lock()
	switch {
	case len(l.hints) == 1 && l.hints[0].Topic == port.ResyncTopic:
		// Whatever else comes is covered: the look at everything is still to come.
	case len(l.hints)+len(hints) > maxHints:
		l.hints = []port.Hint{{Topic: port.ResyncTopic}}
	default:
		l.hints = append(l.hints, hints...)
	}
	l.mu.Unlock()
	select {
	case l.arrived <- struct{}{}:
	default:
	}
}

// Next implements port.Listener.
func (l *Listener) Next(ctx context.Context) (port.Hint, error) {
	for {
		if ctx.Err() != nil {
			return port.Hint{}, context.Cause(ctx)
		}
		if h, ok := l.take(); ok {
			return h, nil
		}
		select {
		case <-l.arrived:
		case <-ctx.Done():
		}
	}
}

func (l *Listener) take() (port.Hint, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.hints) == 0 {
		return port.Hint{}, false
	}
	h := l.hints[0]
	l.hints = l.hints[1:]
	return h, true
}

// Close ends the subscription: no more hints arrive. Harmless twice.
func (l *Listener) Close() { l.store.unsubscribe(l) }
