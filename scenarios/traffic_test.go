package scenarios

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// get returns the answer's status and body.
func get(t *testing.T, url string) (int, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(body)
}

// put sends a text with PUT.
func put(t *testing.T, url, text string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url, strings.NewReader(text))
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
}

// environment is what the backend behind the URL says of its environment.
func environment(t *testing.T, url string) map[string]string {
	t.Helper()
	status, body := get(t, url+"env")
	require.Equal(t, http.StatusOK, status, body)
	var env map[string]string
	require.NoError(t, json.Unmarshal([]byte(body), &env))
	return env
}

// upload sends so many bytes, made on the way, and requires that exactly they
// arrive.
func upload(t *testing.T, url string, size int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	hash := sha256.New()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, io.TeeReader(io.LimitReader(&pattern{}, size), hash))
	require.NoError(t, err)
	req.ContentLength = size
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	var got struct {
		Bytes  int64  `json:"bytes"`
		SHA256 string `json:"sha256"`
	}
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&got))
	require.Equal(t, size, got.Bytes)
	require.Equal(t, hex.EncodeToString(hash.Sum(nil)), got.SHA256)
}

// pattern is an endless stream that is nowhere the same, so that lost, doubled
// or exchanged blocks are noticed.
type pattern struct{ block uint64 }

func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		if i%4096 == 0 {
			p.block++
		}
		b[i] = byte(p.block >> (8 * (i & 7)))
	}
	return len(b), nil
}

// events reads server-sent events until their end and returns how long after
// the request each has come.
func events(t *testing.T, url string) []time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	require.NoError(t, err)
	began := time.Now()
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close()
	require.Equal(t, http.StatusOK, resp.StatusCode)
	var at []time.Duration
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if bytes.HasPrefix(lines.Bytes(), []byte("data:")) {
			at = append(at, time.Since(began))
		}
	}
	require.NoError(t, lines.Err())
	return at
}

// socket is a WebSocket to the test backend's echo, used all the time: it says
// something five times a second, and has to hear it back.
type socket struct {
	conn *websocket.Conn
	stop context.CancelFunc
	done chan struct{}

	mu     sync.Mutex
	echoes int
	last   time.Time // of the last echo
	slow   time.Duration
	err    error // why it has closed
}

const saidEvery = 200 * time.Millisecond

// openSocket opens one, beside the URL of a backend.
func openSocket(t *testing.T, url string) *socket {
	t.Helper()
	return openSocketBy(t, http.DefaultClient, url)
}

// openSocketBy opens one by way of a client.
func openSocketBy(t *testing.T, client *http.Client, url string) *socket {
	t.Helper()
	dialing, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	conn, resp, err := websocket.Dial(dialing, strings.Replace(url, "http", "ws", 1)+"echo", &websocket.DialOptions{HTTPClient: client})
	if resp != nil && resp.Body != nil {
		resp.Body.Close()
	}
	require.NoError(t, err, "open a WebSocket")
	ctx, stop := context.WithCancel(context.Background())
	s := &socket{conn: conn, stop: stop, done: make(chan struct{}), last: time.Now()}
	go s.talk(ctx)
	t.Cleanup(s.close)
	return s
}

func (s *socket) talk(ctx context.Context) {
	defer close(s.done)
	for n := 0; ; n++ {
		said := fmt.Sprint("message ", n)
		began := time.Now()
		err := s.conn.Write(ctx, websocket.MessageText, []byte(said))
		var heard []byte
		if err == nil {
			_, heard, err = s.conn.Read(ctx)
		}
		if err == nil && string(heard) != said {
			err = fmt.Errorf("said %q, heard %q", said, heard)
		}
		s.note(time.Since(began), err)
		if err != nil {
			return
		}
		select {
		case <-time.After(saidEvery):
		case <-ctx.Done():
			return
		}
	}
}

func (s *socket) note(took time.Duration, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.err = err
		return
	}
	s.echoes, s.last, s.slow = s.echoes+1, time.Now(), max(s.slow, took)
}

func (s *socket) close() {
	s.stop()
	s.conn.CloseNow()
	<-s.done
}

func (s *socket) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.echoes
}

// lives requires that the socket has never closed, and that what is said from
// now on is still answered.
func (s *socket) lives(t *testing.T) {
	t.Helper()
	before := s.count()
	eventually(t, 10*time.Second, "the WebSocket answers", func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		require.NoError(t, s.err, "the WebSocket has closed, after %d echoes, the last %v ago", s.echoes, time.Since(s.last))
		if s.echoes < before+2 {
			return fmt.Errorf("no echo for %v", time.Since(s.last))
		}
		return nil
	})
}

// livesFor watches it for a while.
func (s *socket) livesFor(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-s.done:
	case <-time.After(d):
	}
	s.lives(t)
}

// closes waits until the other end has closed it.
func (s *socket) closes(t *testing.T, within time.Duration) {
	t.Helper()
	select {
	case <-s.done:
	case <-time.After(within):
		require.Fail(t, "the WebSocket is open", "after %v", within)
	}
}
