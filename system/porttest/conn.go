package porttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"plane/system/port"
)

// Conn holds an implementation of port.Conn to its contract. pair opens a
// session and returns its two ends.
func Conn(t *testing.T, pair func(t *testing.T) (a, b port.Conn)) {
	for name, test := range map[string]func(t *testing.T, a, b port.Conn){
		"messages arrive whole and in order, both ways at once": connInOrder,
		"a long message arrives whole":                          connLong,
		"a received slice belongs to the receiver":              connOwnSlice,
		"close ends the calls of both ends":                     connClose,
		"close ends a receive that is under way":                connCloseReceiving,
		"close may be called often":                             connCloseTwice,
		"an ended context gives its cause":                      connEndedContext,
		"a receive obeys its context":                           connCanceled,
	} {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t)
			defer a.Close("test over")
			defer b.Close("test over")
			test(t, a, b)
		})
	}
}

func connInOrder(t *testing.T, a, b port.Conn) {
	const n = 300
	results := make(chan error, 4)
	send := func(c port.Conn, from string) {
		for i := range n {
			if err := c.Send(t.Context(), fmt.Appendf(nil, `{"%s":%d}`, from, i)); err != nil {
				results <- fmt.Errorf("send %d from %s: %w", i, from, err)
				return
			}
		}
		results <- nil
	}
	receive := func(c port.Conn, from string) {
		for i := range n {
			msg, err := c.Recv(t.Context())
			if err != nil {
				results <- fmt.Errorf("receive %d from %s: %w", i, from, err)
				return
			}
			if want := fmt.Sprintf(`{"%s":%d}`, from, i); string(msg) != want {
				results <- fmt.Errorf("have %s, want %s", msg, want)
				return
			}
		}
		results <- nil
	}
	go send(a, "a")
	go send(b, "b")
	go receive(a, "b")
	go receive(b, "a")
	for range 4 {
		require.NoError(t, <-results)
	}
}

func connLong(t *testing.T, a, b port.Conn) {
	long := `"` + strings.Repeat("päivää ", 150_000) + `"`
	sent := make(chan error, 1)
	go func() { sent <- a.Send(t.Context(), []byte(long)) }()
	msg, err := b.Recv(t.Context())
	require.NoError(t, err)
	require.Len(t, msg, len(long))
	require.True(t, bytes.Equal(msg, []byte(long)), "the message has changed on its way")
	require.NoError(t, <-sent)
}

func connOwnSlice(t *testing.T, a, b port.Conn) {
	require.NoError(t, a.Send(t.Context(), []byte(`"first"`)))
	require.NoError(t, a.Send(t.Context(), []byte(`"other"`)))
	first, err := b.Recv(t.Context())
	require.NoError(t, err)
	second, err := b.Recv(t.Context())
	require.NoError(t, err)
	require.Equal(t, `"first"`, string(first), "a later receive must not write into it")
	clear(first)
	require.Equal(t, `"other"`, string(second))
}

func connClose(t *testing.T, a, b port.Conn) {
	a.Close("enough")
	require.ErrorIs(t, a.Send(t.Context(), []byte(`1`)), port.ErrClosed)
	_, err := a.Recv(t.Context())
	require.ErrorIs(t, err, port.ErrClosed)
	_, err = b.Recv(t.Context())
	require.ErrorIs(t, err, port.ErrClosed)
	require.ErrorIs(t, b.Send(t.Context(), []byte(`1`)), port.ErrClosed, "the end was noticed by the receive")
}

func connCloseReceiving(t *testing.T, a, b port.Conn) {
	ended := make(chan error, 2)
	for _, c := range []port.Conn{a, b} {
		go func() {
			_, err := c.Recv(t.Context())
			ended <- err
		}()
	}
	a.Close("enough")
	require.ErrorIs(t, <-ended, port.ErrClosed)
	require.ErrorIs(t, <-ended, port.ErrClosed)
}

func connCloseTwice(t *testing.T, a, b port.Conn) {
	a.Close("enough")
	a.Close("more than enough")
	b.Close("me too")
	_, err := b.Recv(t.Context())
	require.ErrorIs(t, err, port.ErrClosed)
}

func connEndedContext(t *testing.T, a, _ port.Conn) {
	why := errors.New("no more time")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	_, err := a.Recv(ctx)
	require.ErrorIs(t, err, why)
	require.ErrorIs(t, a.Send(ctx, []byte(`1`)), why)
}

func connCanceled(t *testing.T, a, _ port.Conn) {
	why := errors.New("changed my mind")
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := a.Recv(ctx)
		ended <- err
	}()
	cancel(why)
	require.ErrorIs(t, <-ended, why)
}
