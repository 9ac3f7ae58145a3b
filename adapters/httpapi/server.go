package httpapi

import (
	"log/slog"
	"net/http"
	"time"
)

// NewServer makes a server with the limits that suit the surface: on headers
// and idle connections, while streams and sockets may last.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}
