package scenarios

import (
	"io"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// cutter is a stretch of network in front of one server, or a load balancer in
// front of several: it passes TCP connections on, to each server in turn, and
// can cut all of them.
type cutter struct {
	listener net.Listener
	to       []string

	mu     sync.Mutex
	open   map[net.Conn]struct{}
	broken bool // new connections are cut at once
	cuts   int  // connections cut so far
	turn   int  // whose the next connection is
}

// newCutter passes connections on to the addresses, until the test is over.
func newCutter(t *testing.T, to ...string) *cutter {
	t.Helper()
	return newCutterAt(t, "127.0.0.1:0", to...)
}

// newCutterAt is newCutter on an address of the test's choice.
func newCutterAt(t *testing.T, address string, to ...string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", address)
	require.NoError(t, err)
	c := &cutter{listener: l, to: to, open: map[net.Conn]struct{}{}}
	go c.serve()
	t.Cleanup(func() {
		l.Close()
		c.cutForGood()
	})
	return c
}

func (c *cutter) address() string { return c.listener.Addr().String() }

// cut breaks all connections; new ones are passed on. It returns how many there
// were.
func (c *cutter) cut() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.cutAll()
}

// mend passes connections on again.
func (c *cutter) mend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = false
}

// cutForGood breaks all connections, and every new one until mend.
func (c *cutter) cutForGood() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.broken = true
	c.cutAll()
}

func (c *cutter) cutAll() int {
	n := len(c.open) / 2
	for conn := range c.open {
		if tcp, ok := conn.(*net.TCPConn); ok {
			tcp.SetLinger(0) // a reset, not an orderly end
		}
		conn.Close()
	}
	clear(c.open)
	c.cuts += n
	return n
}

func (c *cutter) serve() {
	for {
		from, err := c.listener.Accept()
		if err != nil {
			return
		}
		go c.pass(from)
	}
}

// dial connects to the server whose turn it is, or the next that answers.
func (c *cutter) dial() (to net.Conn, err error) {
	c.mu.Lock()
	first := c.turn
	c.turn++
	c.mu.Unlock()
	for i := range c.to {
		if to, err = net.Dial("tcp", c.to[(first+i)%len(c.to)]); err == nil {
			return to, nil
		}
	}
	return nil, err
}

func (c *cutter) pass(from net.Conn) {
	to, err := c.dial()
	if err != nil {
		from.Close()
		return
	}
	c.mu.Lock()
	if c.broken {
		c.mu.Unlock()
		from.Close()
		to.Close()
		return
	}
	c.open[from], c.open[to] = struct{}{}, struct{}{}
	c.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { copyHalf(to, from) })
	both.Go(func() { copyHalf(from, to) })
	both.Wait()
	c.mu.Lock()
	delete(c.open, from)
	delete(c.open, to)
	c.mu.Unlock()
	from.Close()
	to.Close()
}

// copyHalf passes one direction on, and its end.
func copyHalf(to, from net.Conn) {
	io.Copy(to, from)
	if tcp, ok := to.(*net.TCPConn); ok {
		tcp.CloseWrite()
	}
}
