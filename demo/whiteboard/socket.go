package whiteboard

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"
)

const (
	pingEvery     = 20 * time.Second
	writeTimeout  = 15 * time.Second
	chunkPoints   = 4096 // in one message of the board's first copy
	messageRate   = 200  // a second from one browser, in the long run
	messageBurst  = 600
	maxOwner      = 64
	maxCloseBytes = 120
)

// serveSocket is one browser tab's connection: a reader here, a writer and a
// pinger beside it. When one ends, all do.
func (b *board) serveSocket(w http.ResponseWriter, r *http.Request) {
	owner := r.URL.Query().Get("me")
	if owner == "" || len(owner) > maxOwner {
		http.Error(w, "me: missing or too long", http.StatusBadRequest)
		return
	}
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // Accept has answered
	}
	defer func() { _ = conn.CloseNow() }()
	conn.SetReadLimit(maxMessage)

	p, people, strokes, err := b.hub.join(owner, cleanName(r.Header.Get("X-Verified-Username")))
	if err != nil {
		_ = conn.Close(websocket.StatusTryAgainLater, err.Error())
		return
	}
	defer b.hub.leave(p)

	// The request's context says nothing about a connection that has been
	// taken over from the server.
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	go func() {
		defer cancel()
		first := hello{
			Type: "hello", Peer: p.Peer, Peers: people,
			Key: b.facts.Key, Backend: b.facts.Backend, FencingToken: b.facts.FencingToken,
		}
		write(ctx, conn, p, first, strokes)
	}()
	go func() {
		defer cancel()
		ping(ctx, conn)
	}()
	if err := read(ctx, conn, p, b.hub); err != nil {
		reason := err.Error()
		reason = strings.ToValidUTF8(reason[:min(len(reason), maxCloseBytes)], "")
		_ = conn.Close(websocket.StatusPolicyViolation, reason)
	}
}

// read hands what comes in to the hub until the connection ends, which is no
// error, or something comes that no page of ours sends. A browser that sends
// too fast is read more slowly.
func read(ctx context.Context, conn *websocket.Conn, p *peer, h *hub) error {
	pace := pace{tokens: messageBurst, last: time.Now()}
	for {
		kind, data, err := conn.Read(ctx)
		if err != nil {
			return nil //nolint:nilerr // this is how every connection ends
		}
		if kind != websocket.MessageText {
			return errors.New("message: not text")
		}
		m, err := decode(data)
		if err != nil {
			return err
		}
		if wait := pace.take(time.Now()); wait > 0 {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
		}
		if err := h.handle(p, m); err != nil {
			if errors.Is(err, errClosed) {
				return nil
			}
			return err
		}
	}
}

// write sends the board as it was when p joined, and then what has happened
// since.
func write(ctx context.Context, conn *websocket.Conn, p *peer, first hello, strokes []strokeView) {
	if !send(ctx, conn, encode(first)) {
		return
	}
	for len(strokes) > 0 {
		n := chunk(strokes)
		if !send(ctx, conn, encode(strokesEvent{Type: "strokes", Strokes: strokes[:n]})) {
			return
		}
		strokes = strokes[n:]
	}
	if !send(ctx, conn, encode(about{Type: "ready", Peer: p.Peer})) {
		return
	}
	for {
		select {
		case data := <-p.out:
			if !send(ctx, conn, data) {
				return
			}
		case <-p.gone:
			if p.why != nil {
				_ = conn.Close(websocket.StatusGoingAway, p.why.Error())
			}
			return
		case <-ctx.Done():
			return
		}
	}
}

// chunk says how many of the strokes go into one message.
func chunk(strokes []strokeView) int {
	points := 0
	for i, s := range strokes {
		points += len(s.Points) / 2
		if points > chunkPoints && i > 0 {
			return i
		}
	}
	return len(strokes)
}

func send(ctx context.Context, conn *websocket.Conn, data []byte) bool {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	return conn.Write(ctx, websocket.MessageText, data) == nil
}

// ping finds the connections whose other end has gone without a word.
func ping(ctx context.Context, conn *websocket.Conn) {
	every := time.NewTicker(pingEvery)
	defer every.Stop()
	for {
		select {
		case <-every.C:
		case <-ctx.Done():
			return
		}
		answer, cancel := context.WithTimeout(ctx, writeTimeout)
		err := conn.Ping(answer)
		cancel()
		if err != nil {
			return
		}
	}
}

// pace is a token bucket.
type pace struct {
	tokens float64
	last   time.Time
}

// take takes one token and says how long to wait for it.
func (p *pace) take(now time.Time) time.Duration {
	p.tokens = min(messageBurst, p.tokens+now.Sub(p.last).Seconds()*messageRate) - 1
	p.last = now
	if p.tokens >= 0 {
		return 0
	}
	return time.Duration(-p.tokens / messageRate * float64(time.Second))
}
