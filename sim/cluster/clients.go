package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"plane/sim/check"
	"plane/system/backend"
	"plane/system/lease"
	"plane/system/port"
	"plane/system/protocol"
)

// askTimeout is how long a client waits for an answer.
const askTimeout = 30 * time.Second

// secret is in all that must not be told in a log.
const secret = "hush-hush"

// startClients lets users come and go.
func (c *Cluster) startClients() {
	for i := range c.opt.Shape.Clients {
		c.clients.Tasks().Go(fmt.Sprint("user ", i), func(ctx context.Context) { c.user(ctx, fmt.Sprint("u", i)) })
	}
	if c.load.Chance(0.3) && len(c.drones) > 1 {
		at := c.load.Between(0, c.opt.Storm)
		drone := c.drones[c.load.IntN(len(c.drones))].name
		c.clients.Tasks().Go("operator", func(ctx context.Context) { c.drain(ctx, drone, at) })
	}
}

// between draws a duration with the lock held.
func (c *Cluster) draw(lo, hi time.Duration) time.Duration {
	c.Lock()
	defer c.Unlock()
	return c.load.Soon(lo, hi)
}

func (c *Cluster) chance(p float64) bool {
	c.Lock()
	defer c.Unlock()
	return c.load.Chance(p)
}

func (c *Cluster) over() bool {
	c.Lock()
	defer c.Unlock()
	return c.closing
}

// user connects to keys and uses what it gets.
func (c *Cluster) user(ctx context.Context, user string) {
	for !c.over() {
		if c.clients.Sleep(ctx, c.draw(100*time.Millisecond, 30*time.Second)) != nil {
			return
		}
		c.Lock()
		key := c.load.IntN(c.opt.Shape.Keys)
		c.Unlock()
		if token := c.connect(ctx, key, user); token != nil {
			c.use(ctx, token)
		}
	}
}

// spawnConfig is the same for a key in a whole run, so that a retry is the same
// request.
func (c *Cluster) spawnConfig(key int) *protocol.SpawnConfig {
	idle := int64(maxIdle(key) / time.Second)
	s := &protocol.SpawnConfig{MaxIdleSeconds: &idle, UseStaticToken: static(key)}
	s.Executable = json.RawMessage(`{"image":"sim","env":{"SECRET":"` + secret + `"},"resource_limits":` + limits(asks(key)) + `}`)
	if broken(key) {
		s.Executable = json.RawMessage(`{"image":"sim","bad":true,"resource_limits":` + limits(asks(key)) + `}`)
	}
	if life := lifetime(key); life > 0 {
		seconds := int64(life / time.Second)
		s.LifetimeLimitSeconds = &seconds
	}
	return s
}

// maxIdle is the limit of a key's backends.
func maxIdle(key int) time.Duration { return time.Duration(10+13*key%50) * time.Second }

func static(key int) bool { return key%5 == 4 }

func broken(key int) bool { return key%7 == 6 }

// lifetime is the limit of a key's backends; 0 for most.
func lifetime(key int) time.Duration {
	if key%4 != 3 {
		return 0
	}
	return time.Duration(60+10*key) * time.Second
}

func keyName(key int) string { return fmt.Sprint("k", key) }

// connect asks for the backend of a key, again as long as the answer is
// unclear; nil when it is refused.
func (c *Cluster) connect(ctx context.Context, key int, user string) *check.Token {
	req := protocol.ConnectRequest{Key: &protocol.Key{Name: keyName(key)}, SpawnConfig: c.spawnConfig(key)}
	if !static(key) {
		req.User = &user
		req.Auth = json.RawMessage(`{"note":"` + secret + `"}`)
	}
	for range 20 {
		c.Lock()
		asked := c.Database.Now()
		address := c.addresses()[c.load.IntN(len(c.controllers))]
		c.Unlock()
		r, err := c.ask(ctx, address, call{Connect: &req})
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil && r.Connect != nil:
			return c.connected(key, user, *r.Connect, asked)
		case err == nil && !unclear(r.Error):
			c.Lock()
			c.Tell("client", "%s: connect %s: %s", user, keyName(key), r.Error.Kind)
			c.Unlock()
			return nil
		}
		if c.clients.Sleep(ctx, c.draw(100*time.Millisecond, 5*time.Second)) != nil {
			return nil
		}
	}
	return nil
}

// sameAnswer holds what a key leads to against what it led to before: whoever
// asks, and however often it was asked again after an unclear failure, there is
// one answer while the backend lives (G12). Needs the lock.
func (c *Cluster) sameAnswer(key int, backendID string) {
	before := c.answers[key]
	if before != "" && before != backendID && c.lives(before) && c.lives(backendID) {
		c.Book.Violate("G12", "key %s leads to %s, and to %s, which lives too", keyName(key), backendID, before)
	}
	c.answers[key] = backendID
}

// lives reports whether a backend has not begun to end and its lease runs.
func (c *Cluster) lives(backendID string) bool {
	row, err := c.Database.Ledger().Backend(backendID)
	if err != nil || !row.State.Status.Alive() {
		return false
	}
	began := row.CreatedAt
	if renewed := c.Database.Renewed(backendID); renewed.After(began) {
		began = renewed
	}
	return c.Database.Now().Before(began.Add(lease.Default().Expiry))
}

// unclear reports whether a client may try again.
func unclear(e *protocol.APIError) bool {
	switch e.Kind {
	case protocol.DatabaseError, protocol.Other, protocol.FailedToAcquireKey, protocol.FailedToRemoveKey:
		return true
	}
	return false
}

func (c *Cluster) connected(key int, user string, res protocol.ConnectResponse, asked time.Time) *check.Token {
	c.Lock()
	defer c.Unlock()
	c.Tell("client", "%s: connect %s gives %s, %s (spawned: %v)", user, keyName(key), res.BackendID, res.Status, res.Spawned)
	c.Book.Answered(keyName(key), res.BackendID, asked, c.Database.Renewed(res.BackendID))
	c.sameAnswer(key, res.BackendID)
	if c.load.Chance(0.7) {
		c.follow(res.BackendID)
	}
	return c.Book.Issue(res.Token, res.BackendID, user)
}

// use sends requests, keeps a connection open for a while, and may end it all.
func (c *Cluster) use(ctx context.Context, t *check.Token) {
	if c.chance(0.3) {
		c.clients.Tasks().Go("visit", func(ctx context.Context) { c.visit(ctx, t) })
	}
	c.Lock()
	requests := c.load.IntN(6)
	c.Unlock()
	for range requests {
		if c.over() {
			return
		}
		c.send(ctx, t, false, 0)
		if c.clients.Sleep(ctx, c.draw(10*time.Millisecond, 40*time.Second)) != nil {
			return
		}
	}
	if c.chance(0.5) {
		c.send(ctx, t, true, c.draw(time.Second, 4*time.Minute))
	}
	switch {
	case c.chance(0.12) && !t.Static():
		c.revoke(ctx, t)
	case c.chance(0.1):
		c.terminate(ctx, t.Backend)
	}
}

// visit comes back with the same token now and then.
func (c *Cluster) visit(ctx context.Context, t *check.Token) {
	for range 10 {
		if c.clients.Sleep(ctx, c.draw(time.Second, time.Minute)) != nil || c.over() {
			return
		}
		c.send(ctx, t, c.chance(0.3), c.draw(time.Second, time.Minute))
	}
}

// send takes one request to some proxy, and stays for a while when it is for a
// connection.
func (c *Cluster) send(ctx context.Context, t *check.Token, upgraded bool, stay time.Duration) int {
	c.Lock()
	p := c.proxies[c.load.IntN(len(c.proxies))].name
	c.Unlock()
	return c.sendBy(ctx, p, t, upgraded, stay)
}

// sendBy sends a request by way of one proxy.
func (c *Cluster) sendBy(ctx context.Context, p string, t *check.Token, upgraded bool, stay time.Duration) int {
	limited, cancel := port.WithTimeout(ctx, c.clients.Clock(), askTimeout+stay)
	defer cancel()
	conn, err := c.Network.Dial(limited, c.clients, "m-clients", p, "/request")
	if err != nil {
		return 0
	}
	defer conn.Close("client leaves")
	frame, err := json.Marshal(request{Token: t.Token, Upgraded: upgraded})
	if err != nil {
		panic(err)
	}
	if conn.Send(limited, frame) != nil {
		return 0
	}
	answer, err := conn.Recv(limited)
	if err != nil {
		return 0
	}
	var status int
	if err := json.Unmarshal(answer, &status); err != nil {
		panic(err)
	}
	for end := c.clients.Clock().Now().Add(stay); status == switched && !c.over(); {
		now := c.clients.Clock().Now()
		if !now.Before(end) {
			break
		}
		slice, stop := port.WithTimeout(limited, c.clients.Clock(), min(5*time.Second, end.Sub(now)))
		_, err := conn.Recv(slice)
		waited := slice.Err() != nil
		stop()
		if err != nil && !waited || limited.Err() != nil {
			break // closed, or enough
		}
	}
	return status
}

func (c *Cluster) revoke(ctx context.Context, t *check.Token) {
	c.Lock()
	asked := c.Now()
	t.RevokeAsked = asked
	same := c.Book.TokensOf(t.Backend, t.User)
	for _, other := range same {
		other.RevokeAsked = asked
	}
	address := c.addresses()[c.load.IntN(len(c.controllers))]
	c.Unlock()
	r, err := c.ask(ctx, address, call{Revoke: &protocol.RevokeRequest{BackendID: t.Backend, User: t.User}})
	if err != nil || r.Error != nil {
		return
	}
	c.Lock()
	defer c.Unlock()
	c.Tell("client", "revoked %s for %s", t.User, t.Backend)
	for _, other := range same {
		other.Revoked = c.Now()
	}
}

func (c *Cluster) terminate(ctx context.Context, backendID string) {
	kind := backend.Soft
	if c.chance(0.4) {
		kind = backend.Hard
	}
	c.Lock()
	c.Tell("client", "asks for the %s end of %s", kind, backendID)
	address := c.addresses()[c.load.IntN(len(c.controllers))]
	c.Unlock()
	_, _ = c.ask(ctx, address, call{Terminate: &terminateCall{backendID, kind}})
}

// drain drains a drone, and asks again until the answer is clear.
func (c *Cluster) drain(ctx context.Context, drone string, at time.Duration) {
	if c.clients.Sleep(ctx, at) != nil {
		return
	}
	for range 30 {
		c.Lock()
		address := c.addresses()[c.load.IntN(len(c.controllers))]
		c.Unlock()
		r, err := c.ask(ctx, address, call{Drain: drone})
		if err == nil && r.Error == nil {
			c.Lock()
			c.Tell("client", "drained %s", drone)
			c.Book.Drained(drone, c.Database.Now())
			c.Unlock()
			return
		}
		if c.clients.Sleep(ctx, 5*time.Second) != nil {
			return
		}
	}
}

// stream is one reader of a backend's history.
type stream struct {
	seen check.Seen
	done bool
}

// follow lets someone read the backend's history as it happens, once for each
// backend. Needs the lock.
func (c *Cluster) follow(backendID string) {
	if c.streams[backendID] != nil {
		return
	}
	s := &stream{seen: check.Seen{Reader: "r-" + backendID, Backend: backendID}}
	c.streams[backendID] = s
	c.clients.Tasks().Go("reader", func(ctx context.Context) {
		for {
			if c.read(ctx, s) || ctx.Err() != nil {
				return
			}
			if c.clients.Sleep(ctx, c.draw(100*time.Millisecond, 10*time.Second)) != nil {
				return
			}
		}
	})
}

// read reads until the backend has ended (true) or the connection breaks.
func (c *Cluster) read(ctx context.Context, s *stream) bool {
	c.Lock()
	address := c.addresses()[c.load.IntN(len(c.controllers))]
	req := streamCall{Backend: s.seen.Backend}
	if n := len(s.seen.Statuses); n > 0 {
		req.After = s.seen.Statuses[n-1]
	}
	c.Unlock()
	dialing, cancel := port.WithTimeout(ctx, c.clients.Clock(), askTimeout)
	defer cancel()
	conn, err := c.Network.Dial(dialing, c.clients, "m-clients", address, "/api")
	if err != nil {
		return false
	}
	defer conn.Close("reader leaves")
	frame, err := json.Marshal(call{Stream: &req})
	if err != nil {
		panic(err)
	}
	if conn.Send(dialing, frame) != nil {
		return false
	}
	for {
		r, err := recv(ctx, conn)
		if err != nil || r.Error != nil {
			return false
		}
		c.Lock()
		if r.Entry != nil {
			c.Book.Add(&s.seen, r.Entry.Status)
		}
		s.done = s.done || r.End
		done := s.done
		c.Unlock()
		if done {
			return true
		}
	}
}
