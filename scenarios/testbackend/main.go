// Command testbackend is the backend that tests run, as a container or as a
// process. It serves on $PORT:
//
//	/             ok
//	/env          its environment, as a JSON object
//	/headers      the request's path, host and headers, as a JSON object
//	/echo         a WebSocket that sends back what it gets
//	/sse          server-sent events: n=COUNT (3) numbers, every=DURATION (100ms)
//	/upload       {"bytes":N,"sha256":"…"} of the request's body
//	/big?bytes=N  N zero bytes
//	/sleep?for=D  an answer after a while
//	/file?name=F  the file's content; with PUT, writes it
//	/exit?code=N  ends the process
//	/oom          takes memory until it is killed
//
// Its environment may ask for more: LISTEN_HOST (else all addresses), START_DELAY
// (duration before it listens),
// EXIT_CODE (end with it instead of serving), EAT_MEMORY (take memory until
// killed, instead of serving), IGNORE_SIGTERM. Else it ends with 0 on SIGTERM,
// once open requests are done or a second has passed.
package main

import (
	"context"
	"errors"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("testbackend: ")
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	term := make(chan os.Signal, 1)
	if os.Getenv("IGNORE_SIGTERM") == "" {
		signal.Notify(term, syscall.SIGTERM, syscall.SIGINT)
	} else {
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT)
	}
	if s := os.Getenv("START_DELAY"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil {
			return err
		}
		time.Sleep(d)
	}
	if s := os.Getenv("EXIT_CODE"); s != "" {
		code, err := strconv.Atoi(s)
		if err != nil {
			return err
		}
		os.Exit(code)
	}
	if os.Getenv("EAT_MEMORY") != "" {
		eatMemory()
	}
	return serve(term)
}

func serve(term <-chan os.Signal) error {
	listener, err := net.Listen("tcp", net.JoinHostPort(os.Getenv("LISTEN_HOST"), os.Getenv("PORT")))
	if err != nil {
		return err
	}
	server := &http.Server{Handler: routes(), ReadHeaderTimeout: time.Minute}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return err
	case <-term:
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// eatMemory writes to what it takes, or the kernel would not give it.
func eatMemory() {
	var eaten [][]byte
	for {
		block := make([]byte, 4<<20)
		for i := 0; i < len(block); i += 4096 {
			block[i] = 1
		}
		eaten = append(eaten, block)
		if len(eaten) > 4096 {
			log.Fatal("took 16 GiB and was not killed")
		}
	}
}
