package executor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// errCut: the connection ended before the answer came, so nothing is known of
// what was asked.
var errCut = errors.New("the connection to the executor ended before it answered")

// writeTimeout is how long the executor may take to read one request.
const writeTimeout = 10 * time.Second

// link is one connection to the executor: requests with ids, and answers with
// the same ids in any order.
type link struct {
	conn net.Conn
	gone chan struct{} // closed when nothing will be read any more

	writing sync.Mutex
	mu      sync.Mutex
	pending map[string]chan message
}

func newLink(conn net.Conn) *link {
	return &link{conn: conn, gone: make(chan struct{}), pending: map[string]chan message{}}
}

func dialUnix(ctx context.Context, path string) (net.Conn, error) {
	return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", path)
}

// read hands what the executor says to receive, which must not wait for other
// answers, and answers to who waits for them, until the connection ends. It
// says why it did; the caller then calls end.
func (l *link) read(receive func(message), skipped func(error)) error {
	in := bufio.NewReaderSize(l.conn, 64<<10)
	for {
		line, err := readLine(in)
		if err != nil {
			return err
		}
		m, err := decode(line)
		if errors.Is(err, errUnknownKind) {
			skipped(err)
			continue
		}
		if err != nil {
			return fmt.Errorf("a line of the executor is malformed: %w", err)
		}
		receive(m)
		if m.id == "" {
			continue
		}
		l.mu.Lock()
		waiting, ok := l.pending[m.id]
		delete(l.pending, m.id)
		l.mu.Unlock()
		if ok {
			waiting <- m // has room for one
		} else {
			skipped(errors.New("an answer to no request that waits: late, doubled or another's"))
		}
	}
}

// end closes the connection and tells all who wait for answers.
func (l *link) end() {
	l.conn.Close() //nolint:errcheck,gosec // it may have been closed over an error
	close(l.gone)
}

// readLine reads up to the next newline. A last line without one was cut off.
func readLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		if len(line)+len(part) > maxAnswer {
			return nil, fmt.Errorf("a line of the executor is over the limit of %d bytes", maxAnswer)
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return line, nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, errors.New("the executor's connection ended within a line")
		case errors.Is(err, io.EOF):
			return nil, errors.New("the executor closed the connection")
		default:
			return nil, fmt.Errorf("read from the executor: %w", err)
		}
	}
}

// ask sends a request and blocks for its answer. Every error is unclear.
func (l *link) ask(ctx context.Context, id, kind string, body any) (message, error) {
	line, err := encode(id, kind, body)
	if err != nil {
		return message{}, err
	}
	answer := make(chan message, 1)
	l.mu.Lock()
	l.pending[id] = answer
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.pending, id)
		l.mu.Unlock()
	}()
	if err := l.write(line); err != nil {
		return message{}, err
	}
	select {
	case m := <-answer:
		return m, nil
	case <-l.gone:
	case <-ctx.Done():
		return message{}, context.Cause(ctx)
	}
	select {
	case m := <-answer: // it was the last thing said
		return m, nil
	default:
		return message{}, errCut
	}
}

// write sends a line whole, or ends the connection.
func (l *link) write(line []byte) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	err := l.conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if err == nil {
		_, err = l.conn.Write(line)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write to the executor: %w", err), l.conn.Close())
	}
	return nil
}

// wrongAnswer is an answer of another kind than the question.
func wrongAnswer(kind string) error {
	return fmt.Errorf("the executor answered %s with a message of another kind", kind)
}

// terminate asks for an end, within terminateTimeout, and reports whether there
// was something to end.
func (l *link) terminate(ctx context.Context, backendID string, hard bool) (ran bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, terminateTimeout, fmt.Errorf("the executor did not answer Terminate within %v", terminateTimeout))
	defer cancel()
	m, err := l.ask(ctx, requestID(backendID), "Terminate", []any{backendID, hard})
	switch {
	case err != nil:
		return false, err
	case m.terminated == nil:
		return false, wrongAnswer("Terminate")
	case m.terminated.refused:
		return false, fmt.Errorf("the executor refused Terminate: %s", clip(m.terminated.text))
	}
	return m.terminated.ok, nil
}
