package executor_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/executor"
	"plane/system/port"
	"plane/system/protocol"
)

func TestARefusedSpawnIsFinalAndShowsNoSecrets(t *testing.T) {
	b := newBench(t)
	for kind, start := range map[string]func() error{
		"Prepare": func() error { return b.r.Pull(b.ctx, b.spec, func(string) {}) },
		"Spawn":   func() error { _, err := b.r.Start(b.ctx, b.spec); return err },
	} {
		b.x.on(kind, func(c *fakeConn, q request) {
			c.answer(q, map[string]any{"Err": "no room for A=s3cret of me:p4ss\nwith s.t0ken"})
		})
		err := start()
		b.ErrorIs(err, port.ErrBadExecutable, kind)
		b.ErrorContains(err, "no room for A=")
		for _, secret := range []string{"s3cret", "p4ss", "s.t0ken", "\n"} {
			b.NotContains(err.Error(), secret)
		}
	}
	_, err := b.r.Inspect(b.ctx, "alfa")
	b.ErrorIs(err, port.ErrNoContainer)
	written, err := os.ReadFile(b.file)
	b.NoError(err)
	b.Equal("{}", string(written))
}

func TestTheFileIsPrivateAndHoldsNoSecrets(t *testing.T) {
	b := newBench(t)
	_, err := b.r.Start(b.ctx, b.spec)
	b.NoError(err)
	info, err := os.Stat(b.file)
	b.NoError(err)
	b.Equal(os.FileMode(0o600), info.Mode())
	written, err := os.ReadFile(b.file)
	b.NoError(err)
	b.Contains(string(written), `"alfa"`)
	for _, secret := range []string{"s3cret", "p4ss", "s.t0ken"} {
		b.NotContains(string(written), secret)
	}
}

func TestADamagedFileIsNotBelieved(t *testing.T) {
	for _, content := range []string{"", "null", "[]", `{"alfa":{"phase":"odd"}}`, `{"../x":{"phase":"running"}}`} {
		file := filepath.Join(t.TempDir(), "executor.json")
		require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
		_, err := executor.Open(executor.Config{Socket: "x", File: file, IP: localhost, Log: logger(t)})
		require.ErrorContains(t, err, file+" is damaged", content)
	}
}

// A spawn whose asker gave up counts when its answer comes, and is not repeated.
func TestALateAnswerToASpawnCounts(t *testing.T) {
	for name, again := range map[string]func(b *bench){
		"on the same connection": func(*bench) {},
		"on a later connection":  func(b *bench) { b.x.stop(); b.x.listen(); b.gap() },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			got := make(chan request, 1)
			b.x.on("Spawn", func(_ *fakeConn, q request) { got <- q })
			gaveUp, giveUp := context.WithCancelCause(b.ctx)
			failed := make(chan error, 1)
			go func() { _, err := b.r.Start(gaveUp, b.spec); failed <- err }()
			q := <-got
			giveUp(errGaveUp)
			b.ErrorIs(<-failed, errGaveUp)
			c := b.inspect()
			b.False(c.Running)
			b.False(c.Started)

			again(b)
			b.x.on("Spawn", nil)
			settled := make(chan port.Container, 1)
			go func() {
				c, err := b.r.Start(b.ctx, b.spec)
				if err != nil {
					t.Error(err)
				}
				settled <- c
			}()
			b.x.mu.Lock()
			conn := anyConn(b.x.conns)
			b.x.mu.Unlock()
			conn.behave(q)
			c = <-settled
			b.True(c.Running)
			b.NotEmpty(c.Address)
			b.Equal(1, b.x.count("Spawn"))
		})
	}
}

// Without an answer there may be a backend: it is ended and not spawned again.
func TestAnUnansweredSpawnIsEndedAndNotRepeated(t *testing.T) {
	b := newBench(t)
	b.x.on("Spawn", func(c *fakeConn, q request) {
		c.x.spawn(q)
		c.Close() //nolint:errcheck,gosec // before it has answered
	})
	_, err := b.r.Start(b.ctx, b.spec)
	b.ErrorContains(err, "start alfa: the connection to the executor ended before it answered")
	b.True(b.x.runs("alfa"))

	again := openWith(t, executor.Config{Socket: b.x.path, File: b.file, LateAnswer: time.Millisecond}) // as after a crash of the agent
	c, err := again.Start(b.ctx, b.spec)
	b.NoError(err)
	b.True(c.Started)
	b.False(c.Running)
	b.False(b.x.runs("alfa"))
	b.Equal(1, b.x.count("Spawn"))
}

// A spawn that takes effect after its backend was given up is ended.
func TestAStraySpawnIsEnded(t *testing.T) {
	b := newBench(t)
	type call struct {
		c *fakeConn
		q request
	}
	got := make(chan call, 1)
	b.x.on("Spawn", func(c *fakeConn, q request) { got <- call{c, q} })
	gaveUp, giveUp := context.WithCancelCause(b.ctx)
	failed := make(chan error, 1)
	go func() { _, err := b.r.Start(gaveUp, b.spec); failed <- err }()
	spawn := <-got
	giveUp(errGaveUp)
	b.Error(<-failed)
	b.NoError(b.r.Remove(b.ctx, "alfa"))

	ended := make(chan string, 2)
	b.x.on("Terminate", func(c *fakeConn, q request) {
		c.behave(q)
		ended <- string(q.Body)
	})
	spawn.c.behave(spawn.q)
	b.Equal(`["alfa",true]`, <-ended)
	b.False(b.x.runs("alfa"))
	_, err := b.r.Inspect(b.ctx, "alfa")
	b.ErrorIs(err, port.ErrNoContainer)
}

func TestAPortThatAnotherHasIsRefused(t *testing.T) {
	b := newBench(t)
	first, err := b.r.Start(b.ctx, b.spec)
	b.NoError(err)
	b.x.mu.Lock()
	b.x.port = b.x.backends["alfa"].port
	b.x.mu.Unlock()
	ended := make(chan string, 2)
	b.x.on("Terminate", func(c *fakeConn, q request) {
		c.behave(q)
		ended <- string(q.Body)
	})
	b.spec.BackendID = "bravo"
	c, err := b.r.Start(b.ctx, b.spec)
	b.NoError(err)
	b.False(c.Running)
	b.Empty(c.Address)
	b.Equal(`["bravo",true]`, <-ended)
	b.Equal(first, b.inspect())
}

// Nothing of what is odd disturbs, and what is malformed ends the connection.
func TestOddLines(t *testing.T) {
	long := `{"id":"x","message":{"Later":"` + strings.Repeat("x", 1<<20) + `"}}`
	for name, test := range map[string]struct {
		line string
		cut  bool
	}{
		"an unknown id":            {line: `{"id":"nope","message":{"TerminateResult":{"Ok":true}}}`},
		"a made-up spawn":          {line: `{"id":"../etc/x","message":{"SpawnResult":{"Ok":{"container_id":"c","port":1}}}}`},
		"an unknown kind":          {line: `{"id":null,"message":{"Later":1}}`},
		"another's end":            {line: `{"id":null,"message":{"TerminateEvent":{"backend_id":"nobody","exit_code":null}}}`},
		"no JSON":                  {line: `{"id":`, cut: true},
		"too long":                 {line: long, cut: true},
		"an answer without an id":  {line: `{"id":null,"message":{"TerminateResult":{"Ok":true}}}`, cut: true},
		"a port that is none":      {line: `{"id":"x","message":{"SpawnResult":{"Ok":{"container_id":"c","port":0}}}}`, cut: true},
		"an end without a backend": {line: `{"id":null,"message":{"TerminateEvent":{"exit_code":1}}}`, cut: true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			before, err := b.r.Start(b.ctx, b.spec)
			b.NoError(err)
			b.x.mu.Lock()
			conn := anyConn(b.x.conns)
			b.x.mu.Unlock()
			conn.say(test.line)
			if test.cut {
				b.gap()
				b.Equal(before, b.inspect())
				return
			}
			b.heard()
			b.Equal(before, b.inspect())
			b.x.mu.Lock()
			defer b.x.mu.Unlock()
			b.Len(b.x.conns, 1)
		})
	}
}

func TestAnAnswerThatIsCutMidLineIsUnclear(t *testing.T) {
	b := newBench(t)
	_, err := b.r.Start(b.ctx, b.spec)
	b.NoError(err)
	b.x.on("Terminate", func(c *fakeConn, q request) {
		c.Write([]byte(`{"id":"` + q.ID + `","message":{"TerminateResult":{"Ok":fal`)) //nolint:errcheck,gosec // test
		c.Close()                                                                      //nolint:errcheck,gosec // test
	})
	b.ErrorContains(b.r.Kill(b.ctx, "alfa"), "ended before it answered")
	b.True(b.inspect().Running)
	b.x.on("Terminate", nil)
	b.NoError(b.r.Kill(b.ctx, "alfa"))
	b.False(b.inspect().Running)
	b.False(b.x.runs("alfa"))
}

// While nobody can be asked, what runs is not known, and what ended is.
func TestWithoutAConnectionOnlyEndsAreKnown(t *testing.T) {
	b := newBench(t)
	b.r.Close()
	b.r = openWith(t, executor.Config{Socket: b.x.path, File: b.file, Patience: 30 * time.Millisecond})
	for _, err := b.r.List(b.ctx); err != nil; { // until it is connected
		_, err = b.r.List(b.ctx)
	}
	_, err := b.r.Start(b.ctx, b.spec)
	b.NoError(err)
	b.spec.BackendID = "over"
	_, err = b.r.Start(b.ctx, b.spec)
	b.NoError(err)
	b.NoError(b.r.Kill(b.ctx, "over"))
	b.exits("over")
	b.x.stop()
	for err == nil { // until that is noticed
		_, err = b.r.List(b.ctx)
	}
	b.ErrorContains(err, "no connection to the executor at "+b.x.path)
	_, err = b.r.Inspect(b.ctx, "alfa")
	b.ErrorContains(err, "whether it runs is not known")
	b.NotErrorIs(err, port.ErrNoContainer)
	over, err := b.r.Inspect(b.ctx, "over")
	b.NoError(err)
	b.Equal(137, *over.ExitCode)
	for what, err := range map[string]error{
		"stop": b.r.Stop(b.ctx, "alfa"), "kill": b.r.Kill(b.ctx, "alfa"), "remove": b.r.Remove(b.ctx, "alfa"),
	} {
		b.ErrorContains(err, "no connection", what)
	}
	b.NoError(b.r.Remove(b.ctx, "over"))

	b.x.listen()
	b.gap()
	b.True(b.inspect().Running)
}

// An executor that comes back without its backends does not keep their keys.
func TestARestartedExecutorHasToVouch(t *testing.T) {
	b := newBench(t)
	_, err := b.r.Start(b.ctx, b.spec)
	b.NoError(err)
	b.spec.BackendID = "bravo"
	alive, err := b.r.Start(b.ctx, b.spec)
	b.NoError(err)
	b.x.stop()
	b.x.lose("alfa")
	b.x.listen()
	b.exits("alfa")
	c := b.inspect()
	b.False(c.Running)
	b.Nil(c.ExitCode, "nobody knows it")
	bravo, err := b.r.Inspect(b.ctx, "bravo")
	b.NoError(err)
	b.Equal(alive, bravo)
	b.True(b.x.runs("bravo"))
}

// An end while the agent was away is learned when it is back.
func TestAnEndThatWasMissedIsFoundByStop(t *testing.T) {
	b := newBench(t)
	b.x.on("WaitForBackend", func(*fakeConn, request) {}) // it does not vouch, nor refuse
	_, err := b.r.Start(b.ctx, b.spec)
	b.NoError(err)
	b.r.Close()
	b.x.lose("alfa")
	b.r = open(t, b.x, b.file)
	list, err := b.r.List(b.ctx)
	b.NoError(err)
	b.Len(list, 1)
	b.True(list[0].Running)
	b.NoError(b.r.Stop(b.ctx, "alfa"))
	b.False(b.inspect().Running)
}

func TestProbesShareOneQuestion(t *testing.T) {
	b := newBench(t)
	got := make(chan request, 2)
	var conn *fakeConn
	b.x.on("WaitForBackend", func(c *fakeConn, q request) { conn = c; got <- q })
	c, err := b.r.Start(b.ctx, b.spec)
	b.NoError(err)
	ctx, cancel := context.WithCancelCause(b.ctx)
	probed := make(chan error, 1)
	go func() { probed <- b.r.Probe(ctx, c.Address) }()
	q := <-got
	cancel(errGaveUp)
	b.ErrorIs(<-probed, errGaveUp)
	b.JSONEq(`["alfa","`+c.Address+`"]`, string(q.Body))
	short, cancelShort := context.WithTimeoutCause(b.ctx, 10*time.Millisecond, errGaveUp)
	defer cancelShort()
	b.ErrorIs(b.r.Probe(short, c.Address), errGaveUp)
	b.NoError(b.r.Pull(b.ctx, b.spec, func(string) {}))
	b.Equal(1, b.x.count("WaitForBackend"), "the first is under way yet")
	conn.answer(q, map[string]any{"Err": "StartupTimeout"})
	b.heard()
	b.x.on("WaitForBackend", func(c *fakeConn, q request) { c.answer(q, map[string]any{"Err": "StartupTimeout"}) })
	b.ErrorContains(b.r.Probe(b.ctx, c.Address), "does not serve: it did not answer HTTP")
	b.x.on("WaitForBackend", nil)
	b.NoError(b.r.Probe(b.ctx, c.Address))
	b.Error(b.r.Probe(b.ctx, "127.0.0.1:1"))
}

func TestMetricsAddUp(t *testing.T) {
	b := newBench(t)
	_, err := b.r.Start(b.ctx, b.spec)
	b.NoError(err)
	b.x.event("MetricsMessage", protocol.BackendMetrics{BackendID: "alfa", MemUsed: 7, MemLimit: 9, CPUUsed: 1000, SysCPU: 1})
	b.heard()
	s, err := b.r.Stats(b.ctx, "alfa")
	b.NoError(err)
	b.Equal(port.Stats{MemUsed: 7, MemLimit: 9, CPU: 1005, SystemCPU: 101}, s)
}

// The lease guard has no more than the socket, and the agent may be dead.
func TestTheGuardKillsOverItsOwnConnection(t *testing.T) {
	b := newBench(t)
	b.spec.Executable = image("stubborn")
	_, err := b.r.Start(b.ctx, b.spec)
	b.NoError(err)
	k := executor.Killer{Socket: b.x.path}
	b.NoError(k.Kill(b.ctx, "alfa"))
	b.False(b.x.runs("alfa"))
	b.exits("alfa") // the agent was told as well
	b.NoError(k.Kill(b.ctx, "alfa"), "a second time")
	b.NoError(k.Kill(b.ctx, "nobody"))

	b.x.on("Terminate", func(c *fakeConn, q request) { c.answer(q, map[string]any{"Err": "stuck"}) })
	b.ErrorContains(k.Kill(b.ctx, "alfa"), "kill alfa: the executor refused Terminate: stuck")
	b.x.stop()
	b.ErrorContains(k.Kill(b.ctx, "alfa"), "kill alfa: ")
}

func TestAnEndToldTwiceIsOneExit(t *testing.T) {
	b := newBench(t)
	_, err := b.r.Start(b.ctx, b.spec)
	b.NoError(err)
	code := 3
	b.x.end("alfa", &code)
	b.exits("alfa")
	b.Equal(3, *b.inspect().ExitCode)
	b.heard()
	done, cancel := context.WithCancelCause(b.ctx)
	cancel(errGaveUp)
	_, err = b.r.Exits(done)
	b.ErrorIs(err, errGaveUp)
}

var errGaveUp = errors.New("gave up")

func anyConn(conns map[*fakeConn]bool) *fakeConn {
	for c := range conns {
		return c
	}
	return nil
}
