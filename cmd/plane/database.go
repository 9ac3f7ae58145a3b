package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"plane/adapters/clock"
	"plane/adapters/memory"
	"plane/adapters/postgres"
	"plane/system/port"
)

// databaseSettings are what flags and configuration files say of the database.
type databaseSettings struct {
	URL            string // empty: there is none
	PasswordFile   string
	ListenURL      string // empty: URL
	MaxConnections int    // 0: as many as the adapter thinks right
}

// flags adds the flags of whoever asks the database.
func (s *databaseSettings) flags(cmd *cobra.Command, db string) {
	f := cmd.PersistentFlags()
	f.StringVar(&s.URL, "db", "", db+"; rather in PLANE_DB if it holds a password")
	f.StringVar(&s.PasswordFile, "db-password-file", "", "file whose first line is the database's password")
}

// listenFlags adds the flags of whoever listens to the database, too.
func (s *databaseSettings) listenFlags(cmd *cobra.Command) {
	cmd.PersistentFlags().StringVar(&s.ListenURL, "db-listen", "",
		"URL for the one connection that listens, where --db leads to a pooler in transaction mode (default: --db)")
}

// config checks the settings.
func (s databaseSettings) config(name string, log *slog.Logger) (postgres.Config, error) {
	switch {
	case s.URL == "" && (s.PasswordFile != "" || s.ListenURL != ""):
		return postgres.Config{}, usage("--db-password-file and --db-listen need --db, the URL of the database")
	case s.MaxConnections < 0 || s.MaxConnections == 1 || s.MaxConnections > 10_000:
		return postgres.Config{}, usage("--db-max-connections: want 2 to 10000 connections, or 0 for %d, not %d", postgres.DefaultMaxConnections, s.MaxConnections)
	}
	cfg := postgres.Config{
		URL: s.URL, ListenURL: s.ListenURL, PasswordFile: s.PasswordFile, MaxConnections: s.MaxConnections, Name: name, Log: log,
	}
	if s.URL == "" {
		return cfg, nil
	}
	if err := cfg.Validate(); err != nil {
		return cfg, databaseError(err)
	}
	return cfg, nil
}

// state is where Plane's state is kept.
type state struct {
	port.Store
	port.Operations
	listener port.Listener
	close    func()
}

func inMemory(clk port.Clock) *state {
	store := memory.New(clk)
	listener := store.Listen()
	return &state{Store: store, Operations: store, listener: listener, close: listener.Close}
}

func inPostgres(store *postgres.Store) *state {
	listener := store.Listen()
	return &state{Store: store, Operations: store, listener: listener, close: func() {
		listener.Close()
		store.Close()
	}}
}

// The waits between two tries to reach a database that is not there yet.
const (
	firstDatabaseWait = 250 * time.Millisecond
	mostDatabaseWait  = 5 * time.Second
)

// awaitDatabase opens the database and brings its schema up to date. While it
// cannot be reached it is tried again, for as long as the context lasts: in a
// cluster of containers the database may well start last. What waiting does not
// change, such as a wrong password, is an error at once.
func awaitDatabase(ctx context.Context, cfg postgres.Config, log *slog.Logger) (*postgres.Store, error) {
	wait := firstDatabaseWait
	for try := 1; ; try++ {
		err := postgres.Migrate(ctx, cfg)
		var store *postgres.Store
		if err == nil {
			store, err = postgres.Open(ctx, cfg)
		}
		switch {
		case err == nil:
			log.Info("the database answers and its schema is up to date", "tries", try)
			return store, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case postgres.Hopeless(err):
			return nil, databaseError(err)
		}
		log.Warn("cannot use the database yet; trying again", "try", try, "next_in", wait, "error", err)
		if err := clock.Sleep(ctx, wait); err != nil {
			return nil, err
		}
		wait = min(wait*8/5, mostDatabaseWait)
	}
}

// databaseError tells wrong settings, which are a mistake of whoever typed them,
// from the rest.
func databaseError(err error) error {
	if errors.Is(err, postgres.ErrConfig) {
		return usage("--db: %w", err)
	}
	return err
}

func migrateCommand() *cobra.Command {
	var s databaseSettings
	cmd := &cobra.Command{
		Use:   "migrate --db URL",
		Short: "Bring the database's schema up to date",
		Long: `Bring the database's schema up to date, and nothing else.

A controller does the same when it starts. Running it beforehand tells whether it works,
and can be done by a database user with more rights. Controllers of the version before
go on working. Any number may be run at once.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := newLogger(cmd.ErrOrStderr(), slog.LevelWarn)
			if err != nil {
				return err
			}
			cfg, err := s.required(log)
			if err != nil {
				return err
			}
			if err := postgres.Migrate(cmd.Context(), cfg); err != nil {
				return databaseError(err)
			}
			_, err = io.WriteString(cmd.OutOrStdout(), "the database's schema is up to date\n")
			return err
		},
	}
	s.flags(cmd, "URL of the PostgreSQL database")
	return cmd
}

// required is config for who cannot do without a database.
func (s databaseSettings) required(log *slog.Logger) (postgres.Config, error) {
	if s.URL == "" {
		return postgres.Config{}, usage("--db (PLANE_DB) is missing: the URL of the PostgreSQL database, like postgres://USER@HOST:5432/DATABASE")
	}
	return s.config("plane", log)
}
