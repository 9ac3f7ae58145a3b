package scenarios

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"plane/system/backend"
	"plane/system/protocol"
)

var soakFor = flag.Duration("soak", 0, "let TestSoak hold 1,000 WebSockets on 200 backends for so long; make soak does that")

// TestSoak: backends that are held by idle WebSockets cost the same at the end
// as at the beginning. With every run it does so for a few seconds with few of
// them, which only shows that it works; make soak does it in earnest.
func TestSoak(t *testing.T) {
	t.Parallel()
	backends, sockets, length := 10, 50, 20*time.Second
	if *soakFor > 0 {
		backends, sockets, length = 200, 1000, *soakFor
	}
	c := startCluster(t, processes)
	agent := c.addDrone(t, "one")
	all := c.populate(t, backends)
	idle := openIdle(t, all, sockets)
	watched := []*process{c.controller, c.proxy, agent}
	samples := watch(t, watched, length)
	t.Logf("%d WebSockets on %d backends for %v\n%s", sockets, backends, length, table(watched, samples))

	for i, ws := range idle {
		require.NoError(t, echo(t, ws), "WebSocket %d, idle for %v", i, length)
	}
	for _, b := range all {
		c.is(t, b.BackendID, backend.Ready)
	}
	for i, p := range watched {
		isFlat(t, p.name, "goroutines", samples, i, func(s sample) int64 { return s.goroutines })
		isFlat(t, p.name, "open files", samples, i, func(s sample) int64 { return s.files })
		if *soakFor > 0 { // in seconds, memory says nothing
			isFlat(t, p.name, "memory", samples, i, func(s sample) int64 { return s.memory })
		}
	}
}

// isFlat requires that the last third of the time has needed no more than a
// tenth over the middle third.
func isFlat(t *testing.T, process, what string, samples [][]sample, i int, pick func(sample) int64) {
	t.Helper()
	middle, last := thirds(samples, i, pick)
	require.LessOrEqual(t, last, 1.1*middle, "%s of the %s grow: %.0f in the middle third, %.0f in the last", what, process, middle, last)
}

// populate starts so many backends that nothing but a connection keeps alive.
func (c *cluster) populate(t *testing.T, n int) []protocol.ConnectResponse {
	t.Helper()
	all := make([]protocol.ConnectResponse, n)
	g, ctx := errgroup.WithContext(t.Context())
	g.SetLimit(8)
	for i := range all {
		g.Go(func() error {
			var err error
			all[i], err = c.api.Connect(ctx, c.request(fmt.Sprint("soak ", i), maxIdle(60)))
			return err
		})
	}
	require.NoError(t, g.Wait())
	for _, b := range all {
		entry := c.reaches(t, b.BackendID, backend.Ready, 2*time.Minute)
		require.Equal(t, backend.Ready, entry.Status, "backend %s: %+v", b.BackendID, entry)
	}
	return all
}

// openIdle opens WebSockets, spread over the backends, on which nothing is said.
func openIdle(t *testing.T, backends []protocol.ConnectResponse, n int) []*websocket.Conn {
	t.Helper()
	all := make([]*websocket.Conn, n)
	t.Cleanup(func() {
		var wg sync.WaitGroup
		for _, ws := range all {
			if ws != nil {
				wg.Go(func() { ws.CloseNow() })
			}
		}
		wg.Wait()
	})
	g, ctx := errgroup.WithContext(t.Context())
	g.SetLimit(16)
	for i := range all {
		g.Go(func() error {
			url := strings.Replace(backends[i%len(backends)].URL, "http://", "ws://", 1) + "echo"
			ws, resp, err := websocket.Dial(ctx, url, nil)
			if resp != nil && resp.Body != nil {
				resp.Body.Close()
			}
			all[i] = ws
			return err
		})
	}
	require.NoError(t, g.Wait())
	return all
}

// echo says something, and hears it.
func echo(t *testing.T, ws *websocket.Conn) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := ws.Write(ctx, websocket.MessageText, []byte("still there?")); err != nil {
		return err
	}
	_, heard, err := ws.Read(ctx)
	if err == nil && string(heard) != "still there?" {
		err = fmt.Errorf("heard %q", heard)
	}
	return err
}

// sample is what a process uses at one time.
type sample struct{ memory, heap, goroutines, threads, files int64 }

// watch looks at the processes twenty times, evenly over the time.
func watch(t *testing.T, all []*process, length time.Duration) [][]sample {
	t.Helper()
	const looks = 20
	samples := make([][]sample, 0, looks)
	for range looks {
		time.Sleep(length / looks)
		row := make([]sample, len(all))
		for i, w := range all {
			row[i] = look(t, w)
		}
		samples = append(samples, row)
	}
	return samples
}

// look asks a process for its metrics.
func look(t *testing.T, p *process) sample {
	t.Helper()
	status, text := get(t, "http://"+p.metrics+"/metrics")
	require.Equal(t, http.StatusOK, status)
	number := func(name string) int64 {
		m := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(text)
		require.NotNil(t, m, "%s has no %s", p.name, name)
		v, err := strconv.ParseFloat(m[1], 64)
		require.NoError(t, err)
		return int64(v)
	}
	return sample{
		memory:     number("process_resident_memory_bytes"),
		heap:       number("go_memstats_heap_inuse_bytes"),
		goroutines: number("go_goroutines"),
		threads:    number("go_threads"),
		files:      number("process_open_fds"),
	}
}

// thirds are the means over the middle and the last third of the time.
func thirds(samples [][]sample, process int, pick func(sample) int64) (middle, last float64) {
	n := len(samples)
	mean := func(rows [][]sample) float64 {
		sum := int64(0)
		for _, row := range rows {
			sum += pick(row[process])
		}
		return float64(sum) / float64(len(rows))
	}
	return mean(samples[n/3 : 2*n/3]), mean(samples[2*n/3:])
}

func table(all []*process, samples [][]sample) string {
	var out strings.Builder
	w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', tabwriter.AlignRight)
	head := []string{"look"}
	for _, p := range all {
		head = append(head, p.name+" MB", "heap MB", "goroutines", "threads", "files")
	}
	fmt.Fprintln(w, strings.Join(head, "\t")+"\t")
	for i, row := range samples {
		line := []string{strconv.Itoa(i + 1)}
		for _, s := range row {
			line = append(line, megabytes(s.memory), megabytes(s.heap), fmt.Sprint(s.goroutines), fmt.Sprint(s.threads), fmt.Sprint(s.files))
		}
		fmt.Fprintln(w, strings.Join(line, "\t")+"\t")
	}
	w.Flush()
	return out.String()
}

func megabytes(bytes int64) string { return fmt.Sprintf("%.1f", float64(bytes)/1e6) }
