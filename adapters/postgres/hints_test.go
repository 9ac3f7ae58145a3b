package postgres

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"plane/adapters/postgres/pgtest"
	"plane/system/port"
)

func TestPayloadsAreShortAndReadBack(t *testing.T) {
	var many []port.Hint
	for i := range 2000 {
		many = append(many, port.Hint{Topic: port.BackendTopic, Subject: fmt.Sprintf("backend-%037d", i)})
	}
	for _, c := range []struct {
		name        string
		hints, want []port.Hint
	}{
		{name: "none"},
		{name: "one", hints: []port.Hint{{Topic: port.ActionTopic, Subject: "7"}}},
		{name: "without a subject", hints: []port.Hint{{Topic: port.RevokedTopic}, resync}},
		{name: "a subject with spaces", hints: []port.Hint{{Topic: port.BackendTopic, Subject: "a b "}}},
		{name: "many", hints: many},
		{name: "one that would break a line", hints: []port.Hint{{Topic: port.BackendTopic, Subject: "a\nb"}}, want: []port.Hint{resync}},
		{name: "one that no text can hold", hints: []port.Hint{{Topic: port.BackendTopic, Subject: "a\x00"}}, want: []port.Hint{resync}},
		{name: "shortfall 6: one that is too long", hints: []port.Hint{{Topic: port.BackendTopic, Subject: strings.Repeat("x", 9000)}}, want: []port.Hint{resync}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []port.Hint
			for _, payload := range pack(c.hints) {
				require.NotEmpty(t, payload)
				require.Less(t, len(payload), 8000, "what PostgreSQL takes")
				got = append(got, unpack(payload)...)
			}
			if c.want == nil {
				c.want = c.hints
			}
			require.Equal(t, c.want, got)
		})
	}
}

func TestWhatIsNotUnderstoodCountsAsResync(t *testing.T) {
	for _, payload := range []string{"x", "\n", "backend a\nx", " a\n"} {
		require.Equal(t, []port.Hint{resync}, unpack(payload), "%q", payload)
	}
}

func TestHintsReachEveryListenerOfTheDatabase(t *testing.T) {
	url := pgtest.Database(t)
	one, two := openStore(t, Config{URL: url}), openStore(t, Config{URL: url})
	listeners := []*Listener{listen(t, one), listen(t, two)}
	hint := port.Hint{Topic: port.BackendTopic, Subject: "b"}
	one.announcer.announce(hint)
	for _, l := range listeners {
		require.Equal(t, hint, next(t, l), "its own too")
	}
}

func TestManyHintsGoInFewStatements(t *testing.T) {
	s := freshStore(t)
	l := listen(t, s)
	const count = 3000
	for i := range count {
		s.announcer.announce(port.Hint{Topic: port.BackendTopic, Subject: fmt.Sprintf("%045d", i)})
		s.announcer.announce(port.Hint{Topic: port.BackendTopic, Subject: fmt.Sprintf("%045d", i)})
	}
	last := port.Hint{Topic: port.RevokedTopic}
	s.announcer.announce(last)
	got := map[port.Hint]bool{}
	for !got[last] {
		got[next(t, l)] = true
	}
	require.Len(t, got, count+1)
	require.Less(t, s.pool.Stat().AcquireCount(), int64(count/10), "statements")
}

func TestTooManyHintsAreWorthOneResync(t *testing.T) {
	a := &announcer{waits: make(chan struct{}, 1), there: map[port.Hint]bool{}}
	for i := range maxWaiting + 5 {
		a.announce(port.Hint{Topic: port.BackendTopic, Subject: fmt.Sprint(i)})
	}
	require.Equal(t, []port.Hint{resync}, a.take())
	a.announce(port.Hint{Topic: port.RevokedTopic})
	require.Equal(t, []port.Hint{{Topic: port.RevokedTopic}}, a.take())
}

func TestAListenerThatIsBehindLooksAtEverything(t *testing.T) {
	l := &Listener{arrived: make(chan struct{}, 1)}
	for range maxHints + 1 {
		l.deliver([]port.Hint{{Topic: port.ActionTopic, Subject: "1"}})
	}
	l.deliver([]port.Hint{{Topic: port.ActionTopic, Subject: "1"}})
	require.Equal(t, []port.Hint{resync}, l.hints)
}

func TestACutSubscriptionBeginsAnewWithAResync(t *testing.T) {
	s := freshStore(t)
	l := listen(t, s)
	for range 3 {
		order(t, s.cfg.URL, cutConnections)
		s.announcer.announce(port.Hint{Topic: port.BackendTopic, Subject: "b"}) // lost or not
		cut(t, l)
	}
	last := port.Hint{Topic: port.BackendTopic, Subject: "last"}
	s.announcer.announce(last)
	for next(t, l) != last { //nolint:revive // what was announced before the last cut may come late
	}
}

// The server where the store no longer writes may live on, and say nothing.
func TestAListenerLeavesAFormerPrimary(t *testing.T) {
	dsn := pgtest.Database(t)
	for name, listenURL := range map[string]string{"of the same address": "", "of one of its own": dsn + "&connect_timeout=2"} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, Config{URL: dsn, ListenURL: listenURL})
			l := listen(t, s)
			conn, err := s.pool.Acquire(t.Context())
			require.NoError(t, err)
			defer conn.Release()
			_, err = conn.Exec(t.Context(), "begin read only; delete from plane.word")
			require.ErrorContains(t, err, "25006")
			cut(t, l)
		})
	}
}

// An outage is one cut, however often the connection is tried in vain.
func TestACutIsToldOnce(t *testing.T) {
	refuses, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer refuses.Close()
	tries := make(chan struct{})
	go func() {
		for {
			conn, err := refuses.Accept()
			if err != nil {
				return
			}
			conn.Close()
			select {
			case tries <- struct{}{}:
			case <-t.Context().Done():
			}
		}
	}()
	s := openStore(t, Config{URL: pgtest.Database(t), ListenURL: "postgres://" + refuses.Addr().String() + "/x?sslmode=disable"})
	l := s.Listen()
	defer l.Close()
	<-tries
	_, err = l.Next(t.Context())
	require.Error(t, err)
	for range 3 {
		<-tries
	}
	_, _, more := l.take()
	require.False(t, more)
}

func TestHintsOutliveARestartOfTheServer(t *testing.T) {
	server := pgtest.Server(t, pgtest.Options{})
	log := &journal{}
	s := openStore(t, Config{URL: server.Database(t), Log: log.logger()})
	l := listen(t, s)
	server.Kill(t)
	hint := port.Hint{Topic: port.BackendTopic, Subject: "b"}
	s.announcer.announce(hint)
	_, err := l.Next(t.Context())
	require.Error(t, err)
	server.Start(t)
	// Sent before this one listens, or after: there is a resync in each case.
	cutOrResync(t, l)
	last := port.Hint{Topic: port.BackendTopic, Subject: "last"}
	s.announcer.announce(last)
	for next(t, l) != last { //nolint:revive // the first may come too
	}
}

// cutOrResync skips errors up to the resync.
func cutOrResync(t *testing.T, l *Listener) {
	t.Helper()
	for {
		h, err := l.Next(t.Context())
		require.NoError(t, t.Context().Err())
		if err == nil {
			require.Equal(t, resync, h)
			return
		}
	}
}

func TestAServerThatHangsIsNoticed(t *testing.T) {
	server := pgtest.Server(t, pgtest.Options{})
	s := openStore(t, Config{URL: server.Database(t)})
	s.quiet = quietTime / 30
	l := listen(t, s)
	server.Freeze(t)
	_, err := l.Next(t.Context())
	require.Error(t, err, "although no connection has ended")
	server.Thaw(t)
	cutOrResync(t, l)
}

func TestClosingSendsWhatWaits(t *testing.T) {
	url := pgtest.Database(t)
	l := listen(t, openStore(t, Config{URL: url}))
	s, err := Open(t.Context(), Config{URL: url})
	require.NoError(t, err)
	s.announcer.announce(port.Hint{Topic: port.BackendTopic, Subject: "first"})
	require.Equal(t, "first", next(t, l).Subject)
	s.announcer.announce(port.Hint{Topic: port.BackendTopic, Subject: "last"})
	s.Close()
	require.Equal(t, "last", next(t, l).Subject)
}

func TestAClosedListenerSaysSo(t *testing.T) {
	l := listen(t, freshStore(t))
	l.Close()
	l.Close()
	_, err := l.Next(t.Context())
	require.ErrorIs(t, err, errListenerClosed)
}
