package acme

import (
	"context"
	"fmt"

	legoacme "github.com/go-acme/lego/v4/acme"

	"plane/system/port"
)

// finish turns an order whose challenges are met into a certificate. The key is
// nowhere but here, and the certificate counts with the authority once it is
// issued: so whatever stays unclear is asked for again, until the context ends.
func (c *client) finish(ctx context.Context, order legoacme.ExtendedOrder, names []string, keyType KeyType) (port.Certificate, error) {
	key, err := keyType.generate()
	if err != nil {
		return port.Certificate{}, err
	}
	request, err := signingRequest(key, names)
	if err != nil {
		return port.Certificate{}, err
	}
	if err := c.awaitOrder(ctx, &order, legoacme.StatusReady); err != nil {
		return port.Certificate{}, err
	}
	if err := c.finalize(ctx, &order, request); err != nil {
		return port.Certificate{}, err
	}
	if err := c.awaitOrder(ctx, &order, legoacme.StatusValid); err != nil {
		return port.Certificate{}, err
	}
	var chain []byte
	err = c.persist(ctx, "fetch the certificate", func() (err error) {
		chain, _, err = c.Certificates.Get(order.Certificate, true)
		return err
	})
	if err != nil {
		return port.Certificate{}, err
	}
	return assemble(chain, key)
}

// awaitOrder waits until the order has a status, or the one that comes after it.
func (c *client) awaitOrder(ctx context.Context, order *legoacme.ExtendedOrder, status string) error {
	for pause := firstPoll; ; pause = nextPoll(pause) {
		switch order.Status {
		case status, legoacme.StatusValid:
			return nil
		case legoacme.StatusInvalid:
			return fmt.Errorf("%w: the order has become invalid: %w", port.ErrRefused, problemOf(order.Err()))
		}
		if err := c.pause(ctx, pause); err != nil {
			return err
		}
		if err := c.lookAtOrder(ctx, order); err != nil {
			return err
		}
	}
}

func (c *client) lookAtOrder(ctx context.Context, order *legoacme.ExtendedOrder) error {
	location := order.Location
	return c.persist(ctx, "look at the order", func() (err error) {
		*order, err = c.Orders.Get(location)
		order.Location = location
		return err
	})
}

// finalize sends the signing request, unless the certificate is there already.
// When it is unclear whether that has arrived, the order tells, and the same
// request is sent again if it has not; a second one that comes too late is
// refused, which then says nothing.
func (c *client) finalize(ctx context.Context, order *legoacme.ExtendedOrder, request []byte) error {
	location, unclear := order.Location, false
	for pause := firstPoll; order.Status == legoacme.StatusReady; pause = nextPoll(pause) {
		got, err := c.Orders.UpdateForCSR(order.Finalize, request)
		if err == nil {
			*order = got
			order.Location = location
			return nil
		}
		err = c.wire.explain("finalize the order", err)
		away := isPassing(err)
		unclear = unclear || away
		if !unclear {
			return err
		}
		if away {
			if paused := c.pause(ctx, pause); paused != nil {
				return fmt.Errorf("%w: %w", err, paused)
			}
		}
		if failed := c.lookAtOrder(ctx, order); failed != nil {
			return failed
		}
		if !away && order.Status == legoacme.StatusReady {
			return err
		}
	}
	return nil
}
