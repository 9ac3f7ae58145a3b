package acme

import (
	"errors"
	"io"
)

// maxAnswer is how much of an answer is read. Chains have a few kilobytes.
const maxAnswer = 1 << 20

// limit reads no more than maxAnswer of a body, and calls done once it is closed
// or read to its end, with the error if that is not its end: the library does not
// close all that it reads.
func limit(body io.ReadCloser, done func(error)) io.ReadCloser {
	return &limited{io.LimitReader(body, maxAnswer), body, done}
}

type limited struct {
	io.Reader
	body io.ReadCloser
	done func(error)
}

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.Reader.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		l.done(nil)
	case err != nil:
		l.done(err)
	}
	return n, err
}

func (l *limited) Close() error {
	l.done(nil)
	return l.body.Close()
}
