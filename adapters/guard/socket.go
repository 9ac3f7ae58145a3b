package guard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// request is what an agent sends over the socket, one at a time, as JSON. Each
// is answered by a reply.
type request struct {
	Op       op            `json:"op"`
	Backend  string        `json:"backend,omitempty"`
	Boot     string        `json:"boot,omitempty"`
	Deadline time.Duration `json:"deadline_ns,omitempty"`
}

type op string

const (
	opSet   op = "set"
	opClear op = "clear"
	opHello op = "hello" // are you there?
	opBye   op = "bye"   // end, if nothing else keeps you; then the answer is the end of the connection
)

// reply says nothing when all went well.
type reply struct {
	Error string `json:"error,omitempty"`
	// Ending: the guard that said so is no good any more.
	Ending bool `json:"ending,omitempty"`
}

const socketName = "socket"

// socketPath calls use with a path to the directory's socket that is short
// enough for a socket address whatever the directory is called.
func socketPath(dir string, use func(path string) error) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(use(filepath.Join("/proc/self/fd", strconv.Itoa(int(d.Fd())), socketName)), d.Close())
}

// listen opens the socket. The caller has the directory's lock, so a socket
// that is there belongs to a guard that is dead.
func listen(dir string) (l *net.UnixListener, err error) {
	if err := os.Remove(filepath.Join(dir, socketName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	err = socketPath(dir, func(path string) error {
		l, err = net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			return err
		}
		l.SetUnlinkOnClose(false) // the path is only good for now
		return os.Chmod(path, 0o600)
	})
	return l, err
}

func dial(ctx context.Context, dir string) (c net.Conn, err error) {
	err = socketPath(dir, func(path string) error {
		c, err = (&net.Dialer{}).DialContext(ctx, "unix", path)
		return err
	})
	return c, err
}

// serve answers agents until the socket fails.
func (g *guard) serve(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return fmt.Errorf("socket: %w", err)
		}
		g.arrive()
		go func() {
			defer g.leave()
			defer c.Close() //nolint:errcheck // every reply was sent, or could not be
			g.converse(c)
		}()
	}
}

// converse answers one agent until it is gone.
func (g *guard) converse(c net.Conn) {
	in, out := json.NewDecoder(c), json.NewEncoder(c)
	for {
		var q request
		if in.Decode(&q) != nil {
			return
		}
		if q.Op == opBye && g.dismiss() {
			// The process's end closes the connection; that is the answer. A
			// second request will not come.
			continue
		}
		var r reply
		if err := g.answer(q); err != nil {
			r = reply{Error: err.Error(), Ending: errors.Is(err, errEnding)}
		}
		if out.Encode(r) != nil {
			return
		}
	}
}

func (g *guard) answer(q request) error {
	switch q.Op {
	case opHello, opBye:
		return nil
	case opSet:
		return g.set(q.Backend, q.Boot, q.Deadline)
	case opClear:
		return g.clear(q.Backend)
	}
	return fmt.Errorf("the guard, from another version of plane, does not know %q; it has to be started again", q.Op)
}
