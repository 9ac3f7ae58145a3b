package controller

import (
	"context"
	"time"

	"plane/system/port"
	"plane/system/queue"
)

// inbox gathers the messages of one kind from one session for a task of their
// own: what comes while the store is busy goes to it as one batch, and messages
// of another kind need not wait.
type inbox[M any] struct {
	messages queue.Queue[M]
	arrived  port.EventCount
	clock    port.Clock
	gather   time.Duration // how long a batch waits for more; 0: not at all
}

func newInbox[M any](tasks port.Tasks) *inbox[M] {
	return &inbox[M]{arrived: tasks.EventCount()}
}

// gathering has each batch wait for what comes within d of its first message:
// for messages that come in bursts and that nobody waits for.
func (b *inbox[M]) gathering(clock port.Clock, d time.Duration) *inbox[M] {
	b.clock, b.gather = clock, d
	return b
}

func (b *inbox[M]) put(m M) {
	b.messages.Put(m)
	b.arrived.Advance()
}

// serve hands each batch, in order, to handle until that fails or the context
// ends.
func (b *inbox[M]) serve(handle func(ctx context.Context, batch []M) error) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		for {
			seen := b.arrived.Read()
			if b.messages.Len() > 0 {
				if b.gather > 0 {
					if err := b.clock.Sleep(ctx, b.gather); err != nil {
						return err
					}
				}
				if err := handle(ctx, b.messages.TakeAll()); err != nil {
					return err
				}
				continue
			}
			if err := b.arrived.Await(ctx, seen); err != nil {
				return err
			}
		}
	}
}
