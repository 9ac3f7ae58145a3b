package scenarios

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/docker/dockertest"
)

// demoIdle is how long the demo says that a board lives without anybody on it.
const demoIdle = 30 * time.Second

// TestDemoTwoTabsDrawOnTheSameBoard: what plane demo promises, in a browser,
// with a container engine and without.
func TestDemoTwoTabsDrawOnTheSameBoard(t *testing.T) {
	onBothRuntimes(t, func(t *testing.T, runtime string) {
		demo, url := startDemo(t, runtime)
		browser := startBrowser(t)

		ann, annLeaves := openBoard(t, browser, url)
		ben, benLeaves := openBoard(t, browser, url)
		holds(t, ann, `document.body.dataset.peers == 2`)
		require.Equal(t, "demo", value(t, ann, `document.body.dataset.key`))
		draw(t, ann, 200, 400, 400, 460)
		holds(t, ben, `document.body.dataset.strokes == 1`)
		draw(t, ben, 600, 300, 700, 500)
		holds(t, ann, `document.body.dataset.strokes == 2`)
		holds(t, ann, inkAround("650", "400"))
		holds(t, ben, inkAround("300", "430"))
		board := value(t, ann, `document.body.dataset.backend`)
		require.Equal(t, board, value(t, ben, `document.body.dataset.backend`))

		cid, _ := openBoard(t, browser, demo.anotherBoard(t))
		require.Equal(t, "other", value(t, cid, `document.body.dataset.key`))
		require.Equal(t, "0", value(t, cid, `document.body.dataset.strokes`))
		other := value(t, cid, `document.body.dataset.backend`)
		require.NotEqual(t, board, other)

		annLeaves()
		benLeaves()
		demo.says(t, demoIdle+sweepSlack+10*time.Second, "backend "+board+" has ended: idle")
		late, _ := openTab(t, browser, url)
		require.Contains(t, value(t, late, `document.body.innerText`), "has ended")
		require.Equal(t, "live", value(t, cid, `document.body.dataset.state`), "the other board goes on")

		demo.end(t, syscall.SIGINT, 30*time.Second)
		holds(t, cid, `document.body.dataset.state != 'live'`)
		demo.leavesNothing(t, board, other)
	})
}

// TestDemoEndsAtOnce: Ctrl-C leaves nothing behind also when the board is used,
// or has hardly been started.
func TestDemoEndsAtOnce(t *testing.T) {
	onBothRuntimes(t, func(t *testing.T, runtime string) {
		demo := newDemo(t, runtime)
		demo.start(t)
		demo.says(t, 30*time.Second, ": starting")
		found := regexp.MustCompile(`backend ([a-z0-9-]+): starting`).FindStringSubmatch(demo.log())
		demo.end(t, syscall.SIGINT, 30*time.Second)
		demo.leavesNothing(t, found[1])
	})
}

// TestDevServes: plane dev is a whole cluster in one process.
func TestDevServes(t *testing.T) {
	t.Parallel()
	dir := workDir(t)
	controller, proxy := freePort(t), freePort(t)
	dev := &demo{newProcess(t, dir, "dev", "dev", "--controller-port", strconv.Itoa(controller), "--proxy-port", strconv.Itoa(proxy), "--runtime", processes)}
	dev.start(t)
	dev.says(t, 30*time.Second, fmt.Sprintf("http://localhost:%d", proxy))
	c := &cluster{runtime: processes, url: fmt.Sprintf("http://127.0.0.1:%d", controller), name: fmt.Sprintf("localhost:%d", proxy)}
	c.prepare(t)
	url := c.connectByHand(t, "dev-backend")
	ws := openSocket(t, url)
	ws.lives(t)
	// The WebSocket's client says nothing when its backend has gone.
	dev.end(t, syscall.SIGINT, 8*time.Second)
	ws.closes(t, 5*time.Second)
	dev.leavesNothing(t, "dev-backend")
}

// demo is plane demo, or plane dev.
type demo struct{ *process }

// newDemo is a demo that is not started; without an engine to be seen where the
// runtime is to be processes.
func newDemo(t *testing.T, runtime string) *demo {
	t.Helper()
	if runtime == docker {
		dockertest.Engine(t)
	}
	dir := workDir(t)
	d := &demo{newProcess(t, dir, "demo", "demo", "--controller-port", strconv.Itoa(freePort(t)), "--proxy-port", strconv.Itoa(freePort(t)))}
	if runtime == processes {
		d.env = append(d.env, "DOCKER_HOST=unix://"+dir+"/no-engine.sock")
	} else {
		t.Cleanup(func() { d.removeContainers(t) })
	}
	return d
}

var droneArgument = regexp.MustCompile(`--drone (dr-\S+)`)

// removeContainers removes what a demo that has failed has left: its lease
// guard, which knows the drone's name, is there for as long as they are.
func (d *demo) removeContainers(t *testing.T) {
	t.Helper()
	for _, args := range having(t, d.dir) {
		if m := droneArgument.FindStringSubmatch(args); m != nil {
			dockertest.RemoveContainers(t, m[1])
		}
	}
}

// startDemo starts plane demo and returns it with the URL that it prints.
func startDemo(t *testing.T, runtime string) (*demo, string) {
	t.Helper()
	d := newDemo(t, runtime)
	d.start(t)
	d.says(t, 60*time.Second, "Ctrl-C ends everything")
	require.Contains(t, d.log(), map[string]string{docker: "backends are containers", processes: "backends are processes"}[runtime])
	url := regexp.MustCompile(`http://localhost:\d+/[A-Za-z0-9_-]{43}/`).FindString(d.log())
	require.NotEmpty(t, url, "it prints a URL")
	return d, url
}

// says waits until it has printed the text.
func (d *demo) says(t *testing.T, within time.Duration, text string) {
	t.Helper()
	eventually(t, within, fmt.Sprintf("it says %q", text), func() error {
		if strings.Contains(d.log(), text) {
			return nil
		}
		if !d.running() {
			require.Fail(t, "it has ended", "without a word of %q", text)
		}
		return errors.New("it has not")
	})
}

// anotherBoard does what the demo says that one has to do for another board.
func (d *demo) anotherBoard(t *testing.T) string {
	t.Helper()
	_, after, ok := strings.Cut(d.log(), "Another key, another board:\n")
	require.True(t, ok, "the demo says how")
	command, _, _ := strings.Cut(after, "\n")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "sh", "-c", command).Output()
	require.NoError(t, err, command)
	return strings.TrimSpace(string(out))
}

// leavesNothing requires that no container of the backends is left, and no
// process that the demo, or what it has started, has started.
func (d *demo) leavesNothing(t *testing.T, backends ...string) {
	t.Helper()
	require.False(t, d.running())
	if engineAnswers(t) {
		for _, b := range backends {
			require.Empty(t, containersOf(t, b), "containers of backend %s", b)
		}
	}
	require.Empty(t, having(t, d.dir), "processes")
}
