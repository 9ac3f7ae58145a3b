package acme

import "io"

// maxAnswer is how much of an answer is read. Chains have a few kilobytes.
const maxAnswer = 1 << 20

// limit reads no more than maxAnswer of a body, and calls done once it is closed
// or read to its end: the library does not close all that it reads.
func limit(body io.ReadCloser, done func()) io.ReadCloser {
	return &limited{io.LimitReader(body, maxAnswer), body, done}
}

type limited struct {
	io.Reader
	body io.ReadCloser
	done func()
}

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.Reader.Read(p)
	if err != nil {
		l.done()
	}
	return n, err
}

func (l *limited) Close() error {
	l.done()
	return l.body.Close()
}
