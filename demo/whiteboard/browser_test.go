package whiteboard

import (
	"context"
	"flag"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

var shots = flag.String("shots", "", "directory for pictures of the whiteboard")

// TestBrowsersShareABoard drives the page in a real browser, behind a path as
// the proxy serves it, until its link is gone.
func TestBrowsersShareABoard(t *testing.T) {
	link, end := served(t)
	browser := startBrowser(t)
	ann := openTab(t, browser, link, 1280, 800, "light")
	ben := openTab(t, ann, link, 1280, 800, "dark")
	until(t, ann, `document.body.dataset.peers == 2`)
	require.Equal(t, link+"/", evaluate[string](t, ann, `location.href`), "the slash is put right")

	drag(t, ann, 120, func(at float64) (float64, float64) {
		a := at * 6 * math.Pi
		return 420 + (30+110*at)*math.Cos(a), 400 + (30+110*at)*math.Sin(a)
	})
	choose(t, ben, "colour", 5)
	choose(t, ben, "width", 2)
	drag(t, ben, 60, func(at float64) (float64, float64) { return 640 + 420*at, 300 + 50*math.Sin(at*4*math.Pi) })
	choose(t, ben, "colour", 3)
	choose(t, ben, "width", 1)
	drag(t, ben, 80, func(at float64) (float64, float64) {
		a := at * 2 * math.Pi
		return 860 + 112*math.Pow(math.Sin(a), 3),
			520 - 7*(13*math.Cos(a)-5*math.Cos(2*a)-2*math.Cos(3*a)-math.Cos(4*a))
	})
	choose(t, ann, "colour", 0)
	choose(t, ann, "width", 0)
	drag(t, ann, 90, func(at float64) (float64, float64) { return 250 + 340*at, 630 + 14*math.Sin(at*30) })
	for _, tab := range []context.Context{ann, ben} {
		until(t, tab, `document.body.dataset.strokes == 4`)
		until(t, tab, `document.querySelectorAll('.cursor:not(.gone)').length == 1`)
	}
	// Both show the same: ink where the other has drawn.
	until(t, ann, inkAt(860, 639))
	until(t, ben, inkAt(560, 400))
	picture(t, ann, "light")
	picture(t, ben, "dark")

	phone := openTab(t, ann, link, 390, 780, "light")
	until(t, phone, `document.body.dataset.strokes == 4`)
	picture(t, phone, "phone")

	require.NoError(t, chromedp.Do(ben, chromedp.Click(chromedp.CSS("#undo"))))
	until(t, ann, `document.body.dataset.strokes == 3`)
	// The keyboard draws as well.
	require.NoError(t, chromedp.Do(ben, chromedp.Focus(chromedp.CSS("#board")),
		chromedp.KeyEvent("\u0303"), chromedp.KeyEvent(" "), chromedp.KeyEvent("\u0303"), chromedp.KeyEvent(" ")))
	until(t, ann, `document.body.dataset.strokes == 4`)

	for range 2 { // the second press is the one that counts
		require.NoError(t, chromedp.Do(phone, chromedp.Click(chromedp.CSS("#clear"))))
	}
	until(t, ann, `document.body.dataset.strokes == 0`)
	until(t, ann, "!("+inkAt(560, 400)+")")

	end()
	until(t, ann, `document.body.dataset.state == 'ended' && document.querySelector('#ended').open`)
	picture(t, ann, "ended")
}

// served is a board behind a proxy of sorts: it strips the token, and answers
// 410 after end.
func served(t *testing.T) (link string, end func()) {
	t.Helper()
	b := newBoard(env)
	var ended atomic.Bool
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rest, ours := strings.CutPrefix(r.URL.Path, "/TOKEN")
		if ended.Load() || !ours {
			w.WriteHeader(http.StatusGone)
			return
		}
		r.Header.Set("X-Verified-Path", r.URL.Path)
		r.URL.Path = or(rest, "/")
		b.ServeHTTP(w, r)
	}))
	t.Cleanup(func() {
		b.hub.close()
		srv.Close()
	})
	return srv.URL + "/TOKEN", func() {
		ended.Store(true)
		b.hub.close()
	}
}

func startBrowser(t *testing.T) context.Context {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: starts a browser")
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		t.Cleanup(cancel)
		ctx, cancel = chromedp.NewExecAllocator(ctx, append(chromedp.DefaultExecAllocatorOptions[:],
			chromedp.ExecPath(path), chromedp.NoSandbox)...)
		t.Cleanup(cancel)
		return ctx
	}
	t.Skip("no chromium on this machine")
	return nil
}

func openTab(t *testing.T, parent context.Context, link string, width, height int64, scheme string) context.Context {
	t.Helper()
	tab, cancel := chromedp.NewContext(parent)
	t.Cleanup(cancel)
	require.NoError(t, chromedp.Do(tab, chromedp.EmulateViewport(width, height, chromedp.EmulateScale(2))))
	_, err := chromedp.Call(tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
	})
	require.NoError(t, err)
	require.NoError(t, chromedp.Do(tab, chromedp.Navigate(link), chromedp.WaitReady(chromedp.CSS("body[data-state=live]"))))
	return tab
}

func drag(t *testing.T, tab context.Context, steps int, path func(at float64) (x, y float64)) {
	t.Helper()
	x, y := path(0)
	left := func(p *input.DispatchMouseEventParams) { p.Buttons = 1 }
	do := []chromedp.Action[chromedp.Void]{
		chromedp.MouseEvent(chromedp.MousePressed, x, y, chromedp.ButtonLeft, chromedp.ClickCount(1)),
	}
	for i := range steps {
		x, y = path(float64(i+1) / float64(steps))
		do = append(do, chromedp.MouseEvent(chromedp.MouseMoved, x, y, chromedp.ButtonLeft, left))
	}
	do = append(do, chromedp.MouseEvent(chromedp.MouseReleased, x, y, chromedp.ButtonLeft, chromedp.ClickCount(1)))
	require.NoError(t, chromedp.Do(tab, do...))
}

func choose(t *testing.T, tab context.Context, name string, i int) {
	t.Helper()
	require.NoError(t, chromedp.Do(tab, chromedp.Click(chromedp.CSS(fmt.Sprintf(`#tools input[name=%s][value="%d"]`, name, i)))))
}

func inkAt(x, y int) string {
	return fmt.Sprintf(`document.querySelector('#board').getContext('2d').getImageData(%d, %d, 12, 12).data.some((v) => v)`,
		2*x-6, 2*y-6)
}

func until(t *testing.T, tab context.Context, condition string) {
	t.Helper()
	_, err := chromedp.Run(tab, chromedp.Poll[any](condition,
		chromedp.WithPollingInterval(20*time.Millisecond), chromedp.WithPollingTimeout(time.Minute)))
	require.NoError(t, err, "%s; the page: %s", condition, evaluate[string](t, tab, `JSON.stringify(document.body.dataset)`))
}

func evaluate[T any](t *testing.T, tab context.Context, expression string) T {
	t.Helper()
	v, err := chromedp.Run(tab, chromedp.Evaluate[T](expression))
	require.NoError(t, err)
	return v
}

func picture(t *testing.T, tab context.Context, name string) {
	t.Helper()
	if *shots == "" {
		return
	}
	png, err := chromedp.Run(tab, chromedp.CaptureScreenshot())
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(*shots, name+".png"), png, 0o600))
}

func env(name string) string {
	return map[string]string{
		"SESSION_BACKEND_ID":            "k3v9x0q2m7ab1c",
		"SESSION_BACKEND_KEY":           "design-review",
		"SESSION_BACKEND_FENCING_TOKEN": "1795464612345",
	}[name]
}
