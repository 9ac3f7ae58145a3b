package main

import (
	"context"

	"plane/adapters/postgres"
)

// open brings the database up to date, as a controller does, and opens it.
func (o *ours) open(ctx context.Context, url string) error {
	cfg := postgres.Config{URL: url, MaxConnections: poolSize}
	if err := postgres.Migrate(ctx, cfg); err != nil {
		return err
	}
	s, err := postgres.Open(ctx, cfg)
	if err != nil {
		return err
	}
	listener := s.Listen()
	o.url, o.store, o.hints = url, s, listener
	o.shut = func() {
		listener.Close()
		s.Close()
	}
	return nil
}
