package controller

import (
	"context"

	"plane/system/port"
	"plane/system/queue"
)

// inbox gathers the messages of one kind from one session for a task of their
// own: what comes while the store is busy goes to it as one batch, and messages
// of another kind need not wait.
type inbox[M any] struct {
	messages queue.Queue[M]
	arrived  port.EventCount
}

func newInbox[M any](tasks port.Tasks) *inbox[M] {
	return &inbox[M]{arrived: tasks.EventCount()}
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
			if batch := b.messages.TakeAll(); len(batch) > 0 {
				if err := handle(ctx, batch); err != nil {
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
