package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/coder/websocket"
)

func routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/env", environment)
	mux.HandleFunc("/headers", headers)
	mux.HandleFunc("/echo", echo)
	mux.HandleFunc("/sse", events)
	mux.HandleFunc("/upload", upload)
	mux.HandleFunc("/big", big)
	mux.HandleFunc("/sleep", sleep)
	mux.HandleFunc("/file", file)
	mux.HandleFunc("/exit", exit)
	mux.HandleFunc("/oom", func(http.ResponseWriter, *http.Request) { eatMemory() })
	if token := os.Getenv("SESSION_BACKEND_STATIC_TOKEN"); token != "" {
		mux.Handle("/"+token+"/", http.StripPrefix("/"+token, mux)) // the proxy leaves it in the path
	}
	return mux
}

func environment(w http.ResponseWriter, _ *http.Request) {
	env := map[string]string{}
	for _, entry := range os.Environ() {
		name, value, _ := strings.Cut(entry, "=")
		env[name] = value
	}
	answer(w, env)
}

func headers(w http.ResponseWriter, r *http.Request) {
	answer(w, map[string]any{"method": r.Method, "uri": r.RequestURI, "host": r.Host, "headers": r.Header})
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		panic(http.ErrAbortHandler)
	}
}

func echo(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true}) // tests have any origin
	if err != nil {
		return // Accept has answered
	}
	defer conn.CloseNow()
	conn.SetReadLimit(-1)
	for {
		kind, message, err := conn.Read(r.Context())
		if err != nil {
			return
		}
		if err := conn.Write(r.Context(), kind, message); err != nil {
			return
		}
	}
}

func events(w http.ResponseWriter, r *http.Request) {
	n, err := number(r, "n", 3)
	every, err2 := duration(r, "every", 100*time.Millisecond)
	if err != nil || err2 != nil {
		http.Error(w, "n or every is malformed", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	for i := range n {
		if i > 0 && !pause(r, every) {
			return
		}
		fmt.Fprintf(w, "id: %d\ndata: %d\n\n", i, i)
		if out.Flush() != nil {
			return
		}
	}
}

func upload(w http.ResponseWriter, r *http.Request) {
	hash := sha256.New()
	n, err := io.Copy(hash, r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	answer(w, map[string]any{"bytes": n, "sha256": hex.EncodeToString(hash.Sum(nil))})
}

func big(w http.ResponseWriter, r *http.Request) {
	n, err := number(r, "bytes", 0)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	block := make([]byte, 64<<10)
	for n > 0 {
		wrote, err := w.Write(block[:min(n, int64(len(block)))])
		if err != nil {
			return
		}
		n -= int64(wrote)
	}
}

func sleep(w http.ResponseWriter, r *http.Request) {
	d, err := duration(r, "for", time.Second)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if pause(r, d) {
		fmt.Fprintln(w, "ok")
	}
}

func file(w http.ResponseWriter, r *http.Request) {
	name := r.FormValue("name")
	if r.Method != http.MethodPut {
		http.ServeFile(w, r, name)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = os.WriteFile(name, body, 0o644)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

func exit(w http.ResponseWriter, r *http.Request) {
	code, err := number(r, "code", 0)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	os.Exit(int(code))
}

// pause is false when the client goes away first.
func pause(r *http.Request, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-r.Context().Done():
		return false
	}
}

func number(r *http.Request, name string, otherwise int64) (int64, error) {
	s := r.URL.Query().Get(name)
	if s == "" {
		return otherwise, nil
	}
	return strconv.ParseInt(s, 10, 64)
}

func duration(r *http.Request, name string, otherwise time.Duration) (time.Duration, error) {
	s := r.URL.Query().Get(name)
	if s == "" {
		return otherwise, nil
	}
	return time.ParseDuration(s)
}
