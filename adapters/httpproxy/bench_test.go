package httpproxy_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// BenchmarkProxy compares the data plane with a bare httputil.ReverseProxy
// before the same backend, for small answers and for uploads of 1 MB.
func BenchmarkProxy(b *testing.B) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n)
	}))
	b.Cleanup(backend.Close)
	target, err := url.Parse(backend.URL)
	require.NoError(b, err)
	bare := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }})
	b.Cleanup(bare.Close)
	p := start(b, nil)
	tok := p.leadTo("one", backend.Listener.Addr().String())

	took := map[string]float64{}
	for _, load := range []struct {
		name string
		body string
	}{{"small", ""}, {"upload", strings.Repeat("x", 1<<20)}} {
		for _, by := range []struct{ name, url string }{{"reverseproxy", bare.URL + "/"}, {"plane", p.url(tok, "/")}} {
			b.Run(load.name+"/"+by.name, func(b *testing.B) {
				b.SetBytes(int64(len(load.body)))
				for b.Loop() {
					res, err := http.Post(by.url, "text/plain", strings.NewReader(load.body))
					if err != nil {
						b.Fatal(err)
					}
					_, _ = io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
				took[load.name+by.name] = float64(b.Elapsed()) / float64(b.N)
				if other := took[load.name+"reverseproxy"]; by.name == "plane" && other > 0 {
					b.ReportMetric(took[load.name+"plane"]/other, "ratio")
				}
			})
		}
	}
}

// BenchmarkIdleWebSockets says what an idle WebSocket costs, with the client's
// and the backend's share, which are in the same process, beside it.
func BenchmarkIdleWebSockets(b *testing.B) {
	const sockets = 1000
	backend := httptest.NewServer(http.HandlerFunc(echoSocket))
	b.Cleanup(backend.Close)
	p := start(b, nil)
	tok := p.leadTo("one", backend.Listener.Addr().String())
	cost := func(url string) (bytes, goroutines float64) {
		conns := make([]*websocket.Conn, 0, sockets)
		before, tasks := memory(), runtime.NumGoroutine()
		for range sockets {
			conn, _, err := websocket.Dial(b.Context(), url, nil)
			require.NoError(b, err)
			conns = append(conns, conn)
		}
		bytes, goroutines = (memory()-before)/sockets, float64(runtime.NumGoroutine()-tasks)/sockets
		for _, conn := range conns {
			require.NoError(b, conn.CloseNow())
		}
		return bytes, goroutines
	}
	once := sync.OnceFunc(func() { // a second time would count what the first one frees
		direct, directTasks := cost(backend.URL)
		proxied, proxiedTasks := cost(p.url(tok, "/"))
		b.ReportMetric((proxied-direct)/1024, "KiB/socket")
		b.ReportMetric(proxiedTasks-directTasks, "goroutines/socket")
		b.ReportMetric(direct/1024, "KiB/socket-direct")
	})
	for b.Loop() {
		once()
	}
}

func memory() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc + m.StackInuse)
}
