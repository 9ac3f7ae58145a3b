package scenarios

import (
	"context"
	"os/exec"
	"testing"
	"time"

	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// startBrowser starts a browser without a window, or skips the test where there
// is none.
func startBrowser(t *testing.T) context.Context {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
		t.Cleanup(cancel)
		ctx, cancel = chromedp.NewExecAllocator(ctx, append(chromedp.DefaultExecAllocatorOptions[:],
			chromedp.ExecPath(path), chromedp.NoSandbox)...)
		t.Cleanup(cancel)
		// The first tab keeps the browser running, whatever becomes of others.
		ctx, cancel = chromedp.NewContext(ctx)
		t.Cleanup(cancel)
		require.NoError(t, chromedp.Do(ctx, chromedp.Navigate("about:blank")))
		return ctx
	}
	t.Skip("no chromium on this machine")
	return nil
}

// openTab opens a page in a tab of its own.
func openTab(t *testing.T, browser context.Context, url string) (tab context.Context, closeTab func()) {
	t.Helper()
	tab, closeTab = chromedp.NewContext(browser)
	t.Cleanup(closeTab)
	require.NoError(t, chromedp.Do(tab, chromedp.EmulateViewport(1000, 700), chromedp.Navigate(url)))
	return tab, closeTab
}

// openBoard opens a whiteboard and waits until it is connected.
func openBoard(t *testing.T, browser context.Context, url string) (tab context.Context, closeTab func()) {
	t.Helper()
	tab, closeTab = openTab(t, browser, url)
	holds(t, tab, `document.body.dataset.state == 'live'`)
	return tab, closeTab
}

// draw draws a line on a whiteboard with the mouse.
func draw(t *testing.T, tab context.Context, fromX, fromY, toX, toY float64) {
	t.Helper()
	const steps = 20
	left := func(p *input.DispatchMouseEventParams) { p.Buttons = 1 }
	do := []chromedp.Action[chromedp.Void]{
		chromedp.MouseEvent(chromedp.MousePressed, fromX, fromY, chromedp.ButtonLeft, chromedp.ClickCount(1)),
	}
	for i := range steps {
		at := float64(i+1) / steps
		do = append(do, chromedp.MouseEvent(chromedp.MouseMoved, fromX+at*(toX-fromX), fromY+at*(toY-fromY), chromedp.ButtonLeft, left))
	}
	do = append(do, chromedp.MouseEvent(chromedp.MouseReleased, toX, toY, chromedp.ButtonLeft, chromedp.ClickCount(1)))
	require.NoError(t, chromedp.Do(tab, do...))
}

// inkAround is a condition: something is drawn around the point.
func inkAround(x, y string) string {
	return `document.querySelector('#board').getContext('2d').getImageData(` + x + `-6, ` + y + `-6, 12, 12).data.some((v) => v)`
}

// holds waits until a condition holds on the page.
func holds(t *testing.T, tab context.Context, condition string) {
	t.Helper()
	_, err := chromedp.Run(tab, chromedp.Poll[any](condition,
		chromedp.WithPollingInterval(50*time.Millisecond), chromedp.WithPollingTimeout(30*time.Second)))
	if err != nil {
		require.NoError(t, err, "%s; the page: %s", condition, value(t, tab, `JSON.stringify(document.body.dataset)`))
	}
}

// value is what an expression gives on the page.
func value(t *testing.T, tab context.Context, expression string) string {
	t.Helper()
	v, err := chromedp.Run(tab, chromedp.Evaluate[string](expression))
	require.NoError(t, err)
	return v
}
