package whiteboard

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// tab is a browser tab without the browser.
type tab struct {
	t    *testing.T
	conn *websocket.Conn
}

func open(t *testing.T, base, me string, header http.Header) *tab {
	t.Helper()
	conn, resp, err := websocket.Dial(t.Context(), base+"/ws?me="+me, &websocket.DialOptions{HTTPHeader: header})
	require.NoError(t, err)
	if resp.Body != nil {
		require.NoError(t, resp.Body.Close())
	}
	t.Cleanup(func() { _ = conn.CloseNow() })
	conn.SetReadLimit(1 << 20)
	return &tab{t: t, conn: conn}
}

func (tb *tab) send(text string) {
	tb.t.Helper()
	require.NoError(tb.t, tb.conn.Write(tb.t.Context(), websocket.MessageText, []byte(text)))
}

// next reads messages until there is one of this type.
func (tb *tab) next(kind string) map[string]any {
	tb.t.Helper()
	for {
		_, data, err := tb.conn.Read(tb.t.Context())
		require.NoError(tb.t, err, "while waiting for %s", kind)
		var m map[string]any
		require.NoError(tb.t, json.Unmarshal(data, &m))
		if m["type"] == kind {
			return m
		}
	}
}

func TestTabsSeeEachOther(t *testing.T) {
	srv := httptest.NewServer(Handler(env))
	defer srv.Close()
	ann := open(t, srv.URL, "ann", http.Header{"X-Verified-Username": {"ann@example.com"}})
	hello := ann.next("hello")
	require.Equal(t, "design-review", hello["key"])
	require.Equal(t, "k3v9x0q2m7ab1c", hello["backend"])
	require.Equal(t, "1795464612345", hello["fencing_token"])
	ann.next("ready")

	ben := open(t, srv.URL, "ben", nil)
	require.Len(t, ben.next("hello")["peers"], 2)
	require.Regexp(t, `^\w+ \w+$`, ann.next("join")["name"])
	ann.send(`{"type":"begin","stroke":1,"colour":2,"width":1,"points":[0,0]}`)
	ann.send(`{"type":"extend","stroke":1,"points":[50,50]}`)
	ann.send(`{"type":"end","stroke":1}`)
	ben.send(`{"type":"cursor","x":10,"y":-10}`)
	require.Equal(t, []any{0.0, 0.0}, ben.next("begin")["points"])
	require.Equal(t, []any{50.0, 50.0}, ben.next("extend")["points"])
	ben.next("end")
	require.InDelta(t, 10, ann.next("cursor")["x"], 0)

	late := open(t, srv.URL, "cleo", nil)
	people := late.next("hello")["peers"].([]any)
	require.Equal(t, "ann@example.com", people[0].(map[string]any)["name"])
	require.Equal(t, []any{10.0, -10.0}, people[1].(map[string]any)["cursor"])
	strokes := late.next("strokes")["strokes"].([]any)
	require.Len(t, strokes, 1)
	require.Equal(t, []any{0.0, 0.0, 50.0, 50.0}, strokes[0].(map[string]any)["points"])
	late.next("ready")

	require.NoError(t, ben.conn.Close(websocket.StatusNormalClosure, ""))
	require.InDelta(t, 2, ann.next("leave")["peer"], 0)
}

// Each tab has a board of its own: on a shared one it may hear of the leaving
// of the one before it first.
func TestTabThatTalksNonsenseIsToldAndCut(t *testing.T) {
	for name, c := range map[string]struct {
		text   string
		code   websocket.StatusCode
		reason string
	}{
		"a type of its own": {
			`{"type":"dance"}`,
			websocket.StatusPolicyViolation, `type: "dance" is none of ours`,
		},
		"half a message": {
			`{"type":"` + strings.Repeat("é", 200),
			websocket.StatusPolicyViolation, "message: unexpected EOF",
		},
		"too long": {
			strings.Repeat("x", maxMessage+1),
			websocket.StatusMessageTooBig, fmt.Sprintf("read limited at %d bytes", maxMessage+1),
		},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(Handler(env))
			defer srv.Close()
			tab := open(t, srv.URL, "ann", nil)
			tab.next("ready")
			tab.send(c.text)
			_, _, err := tab.conn.Read(t.Context())
			var closed websocket.CloseError
			require.ErrorAs(t, err, &closed)
			require.Equal(t, c.code, closed.Code)
			require.Equal(t, c.reason, closed.Reason)
		})
	}
}

func TestServeTellsEveryoneToGo(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- serve(ctx, ln, newBoard(env)) }()
	tab := open(t, "http://"+ln.Addr().String(), "ann", nil)
	tab.next("ready")
	cancel()
	_, _, err = tab.conn.Read(t.Context())
	require.Equal(t, websocket.StatusGoingAway, websocket.CloseStatus(err))
	require.NoError(t, <-done)
}

func TestServeFailsOnATakenAddress(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = ln.Close() }()
	require.ErrorContains(t, Serve(t.Context(), ln.Addr().String()), "listen for the whiteboard")
}

func get(t *testing.T, h http.Handler, method, path, original string) *http.Response {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, nil)
	if original != "" {
		r.Header.Set("X-Verified-Path", original)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, resp *http.Response) string {
	t.Helper()
	data, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return string(data)
}

func TestPaths(t *testing.T) {
	plain := Handler(env)
	static := Handler(func(name string) string {
		if name == "SESSION_BACKEND_STATIC_TOKEN" {
			return "s.abc"
		}
		return env(name)
	})
	for _, c := range []struct {
		name                         string
		h                            http.Handler
		method, path, original, kind string
		status                       int
		location                     string
	}{
		{name: "page", h: plain, path: "/", original: "/TOKEN/", status: 200, kind: "text/html"},
		{name: "readiness", h: plain, method: "HEAD", path: "/", status: 200, kind: "text/html"},
		{name: "page without its slash", h: plain, path: "/", original: "/TOKEN", status: 308, location: "./TOKEN/"},
		{name: "no way out", h: plain, path: "/", original: "//evil.example", status: 308, location: "./evil.example/"},
		{name: "script", h: plain, path: "/js/app.js", status: 200, kind: "javascript"},
		{name: "style", h: plain, path: "/style.css", status: 200, kind: "text/css"},
		{name: "icon", h: plain, path: "/icon.svg", status: 200, kind: "image/svg+xml"},
		{name: "template", h: plain, path: "/index.html", status: 404},
		{name: "nothing", h: plain, path: "/nothing", status: 404},
		{name: "directory", h: plain, path: "/js/", status: 404},
		{name: "other method", h: plain, method: "POST", path: "/", status: 405},
		{name: "socket without a browser", h: plain, path: "/ws", status: 400},
		{name: "static token", h: static, path: "/s.abc/", original: "/s.abc/", status: 200, kind: "text/html"},
		{name: "static token, script", h: static, path: "/s.abc/js/app.js", status: 200, kind: "javascript"},
		{name: "static token without its slash", h: static, path: "/s.abc", original: "/s.abc", status: 308, location: "./s.abc/"},
		{name: "static token, readiness", h: static, method: "HEAD", path: "/", status: 200, kind: "text/html"},
	} {
		t.Run(c.name, func(t *testing.T) {
			resp := get(t, c.h, or(c.method, "GET"), c.path, c.original)
			text := body(t, resp)
			require.Equal(t, c.status, resp.StatusCode, text)
			require.Equal(t, c.location, resp.Header.Get("Location"))
			if c.kind != "" {
				require.Contains(t, resp.Header.Get("Content-Type"), c.kind)
			}
			require.Contains(t, resp.Header.Get("Content-Security-Policy"), "default-src 'none'")
		})
	}
}

// Served behind a path of its own, an absolute URL would lead elsewhere.
func TestPageRefersToNothingOutside(t *testing.T) {
	h := Handler(env)
	page := body(t, get(t, h, "GET", "/", ""))
	require.Contains(t, page, `data-key="design-review"`)
	require.Contains(t, page, `data-backend="k3v9x0q2m7ab1c"`)
	require.Contains(t, page, `data-fencing-token="1795464612345"`)
	links := regexp.MustCompile(`(?:href|src)="([^"]*)"`).FindAllStringSubmatch(page, -1)
	require.Len(t, links, 3)
	for _, link := range links {
		require.NotRegexp(t, `^(/|\w+:)`, link[1])
		require.Equal(t, http.StatusOK, get(t, h, "GET", "/"+link[1], "").StatusCode)
	}
	imports := regexp.MustCompile(`from '\./([^']*)'`).FindAllStringSubmatch(body(t, get(t, h, "GET", "/js/app.js", "")), -1)
	require.Len(t, imports, 5)
	for _, module := range imports {
		require.Equal(t, http.StatusOK, get(t, h, "GET", "/js/"+module[1], "").StatusCode)
	}
}

func TestPageEscapesTheKey(t *testing.T) {
	h := Handler(func(string) string { return `"><script>alert(1)</script>` })
	require.NotContains(t, body(t, get(t, h, "GET", "/", "")), "<script>alert")
}

func TestPace(t *testing.T) {
	now := time.Now()
	p := pace{tokens: messageBurst, last: now}
	for range messageBurst {
		require.Zero(t, p.take(now))
	}
	require.Equal(t, time.Second/messageRate, p.take(now))
	require.Equal(t, 2*time.Second/messageRate, p.take(now))
	require.Zero(t, p.take(now.Add(time.Second)))
	require.InDelta(t, messageRate-3, p.tokens, 0.001)
}

func TestChunk(t *testing.T) {
	stroke := func(points int) strokeView { return strokeView{Points: make([]int, 2*points)} }
	require.Equal(t, 3, chunk([]strokeView{stroke(1), stroke(1), stroke(1)}))
	require.Equal(t, 1, chunk([]strokeView{stroke(chunkPoints + 1), stroke(1)}))
	require.Equal(t, 2, chunk([]strokeView{stroke(1), stroke(chunkPoints - 1), stroke(1)}))
}
