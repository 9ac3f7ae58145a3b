package porttest

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	"plane/system/port"
)

func (t *runtimeTest) stops() {
	t.serving("stop", t.Serving)
	t.NoError(t.Runtime.Stop(t.ctx, t.Prefix+"stop"))
	t.NoError(t.Runtime.Stop(t.ctx, t.Prefix+"stop"), "a second time")
	c := t.ended("stop")
	t.Equal(0, *c.ExitCode)
	t.NoError(t.Runtime.Stop(t.ctx, t.Prefix+"stop"), "once it has ended")
}

func (t *runtimeTest) stopsWithoutWaiting() {
	before := t.serving("stubborn", t.Stubborn)
	for range 3 {
		t.NoError(t.Runtime.Stop(t.ctx, t.Prefix+"stubborn"))
	}
	t.NoError(t.AwaitServing(t.ctx, before.Address))
	c, err := t.Runtime.Inspect(t.ctx, t.Prefix+"stubborn")
	t.NoError(err)
	t.Equal(before, c)
}

func (t *runtimeTest) kills() {
	t.serving("kill", t.Stubborn)
	t.NoError(t.Runtime.Kill(t.ctx, t.Prefix+"kill"))
	c, err := t.Runtime.Inspect(t.ctx, t.Prefix+"kill")
	t.NoError(err)
	t.False(c.Running)
	t.True(c.Started)
	t.NotNil(c.ExitCode)
	t.NotEqual(0, *c.ExitCode)
	t.False(c.OOM)
	t.NoError(t.Runtime.Kill(t.ctx, t.Prefix+"kill"), "a second time")
}

func (t *runtimeTest) keepsExitCode() {
	for id, code := range map[string]int{"exit-zero": 0, "exit-seven": 7} {
		t.start(id, t.Exiting(code))
		c := t.ended(id)
		t.NotNil(c.ExitCode)
		t.Equal(code, *c.ExitCode)
		t.False(c.OOM)
	}
}

func (t *runtimeTest) tellsOutOfMemory() {
	if t.Hungry == nil {
		t.Skip("no memory limit here")
	}
	t.start("hungry", t.Hungry)
	c := t.ended("hungry")
	t.True(c.OOM)
	t.NotNil(c.ExitCode)
	t.NotEqual(0, *c.ExitCode)
}

func (t *runtimeTest) tellsGone() {
	t.serving("gone", t.Serving)
	t.NoError(t.Runtime.Kill(t.ctx, t.Prefix+"gone"))
	_, err := t.Runtime.Stats(t.ctx, t.Prefix+"gone")
	t.ErrorIs(err, port.ErrNoContainer, "ended")
	t.NoError(t.Runtime.Remove(t.ctx, t.Prefix+"gone"))
	for _, id := range []string{"gone", "never-was"} {
		_, err := t.Runtime.Inspect(t.ctx, t.Prefix+id)
		t.ErrorIs(err, port.ErrNoContainer)
		_, err = t.Runtime.Stats(t.ctx, t.Prefix+id)
		t.ErrorIs(err, port.ErrNoContainer)
		t.ErrorIs(t.Runtime.Stop(t.ctx, t.Prefix+id), port.ErrNoContainer)
		t.ErrorIs(t.Runtime.Kill(t.ctx, t.Prefix+id), port.ErrNoContainer)
		t.NoError(t.Runtime.Remove(t.ctx, t.Prefix+id))
	}
}

func (t *runtimeTest) removesRunning() {
	c := t.serving("remove", t.Stubborn)
	t.NoError(t.Runtime.Remove(t.ctx, t.Prefix+"remove"))
	_, err := t.Runtime.Inspect(t.ctx, t.Prefix+"remove")
	t.ErrorIs(err, port.ErrNoContainer)
	again := t.start("remove", t.Serving)
	t.NotEqual(c.ID, again.ID)
}

func (t *runtimeTest) lists() {
	for _, id := range []string{"bravo", "charlie", "alfa"} {
		t.start(id, t.Serving)
	}
	t.NoError(t.Runtime.Kill(t.ctx, t.Prefix+"charlie"))
	list, err := t.Runtime.List(t.ctx)
	t.NoError(err)
	var ids []string
	for _, c := range list {
		ids = append(ids, c.BackendID)
		seen, err := t.Runtime.Inspect(t.ctx, c.BackendID)
		t.NoError(err)
		t.Equal(seen, c)
	}
	t.Equal([]string{t.Prefix + "alfa", t.Prefix + "bravo", t.Prefix + "charlie"}, ids)
	t.False(list[2].Running)
}

func (t *runtimeTest) outlivesAgent() {
	before := t.serving("adopted", t.Serving)
	again := t.Again(t.T)
	list, err := again.List(t.ctx)
	t.NoError(err)
	t.Equal([]port.Container{before}, list)
	t.NoError(t.AwaitServing(t.ctx, before.Address))
	t.NoError(again.Kill(t.ctx, t.Prefix+"adopted"))
	c, err := again.Inspect(t.ctx, t.Prefix+"adopted")
	t.NoError(err)
	t.False(c.Running)
}

func (t *runtimeTest) keepsApart() {
	if t.Sibling == nil {
		t.Skip("there cannot be another drone here")
	}
	mine := t.serving("mine", t.Serving)
	list, err := t.Sibling.List(t.ctx)
	t.NoError(err)
	t.Empty(list)
	_, err = t.Sibling.Inspect(t.ctx, t.Prefix+"mine")
	t.ErrorIs(err, port.ErrNoContainer)
	_, err = t.Sibling.Stats(t.ctx, t.Prefix+"mine")
	t.ErrorIs(err, port.ErrNoContainer)
	t.ErrorIs(t.Sibling.Stop(t.ctx, t.Prefix+"mine"), port.ErrNoContainer)
	t.ErrorIs(t.Sibling.Kill(t.ctx, t.Prefix+"mine"), port.ErrNoContainer)
	t.NoError(t.Sibling.Remove(t.ctx, t.Prefix+"mine"))
	seen, err := t.Runtime.Inspect(t.ctx, t.Prefix+"mine")
	t.NoError(err)
	t.Equal(mine, seen)
}

// tellsExits ends containers until Exits, which may miss some, tells of one.
func (t *runtimeTest) tellsExits() {
	told := make(chan string, 1)
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel()
	go func() {
		defer close(told)
		for {
			id, err := t.Runtime.Exits(ctx)
			if ctx.Err() != nil {
				return
			}
			if err == nil && strings.HasPrefix(id, t.Prefix+"exits-") {
				told <- id
				return
			}
		}
	}()
	for i := 0; ; i++ {
		id := "exits-" + strconv.Itoa(i)
		t.start(id, t.Exiting(0))
		t.ended(id)
		select {
		case got, ok := <-told:
			t.True(ok, "no exit was told")
			c, err := t.Runtime.Inspect(t.ctx, got)
			t.NoError(err)
			t.False(c.Running)
			return
		default:
			t.NoError(t.Clock.Sleep(t.ctx, 50*time.Millisecond), "no exit was told")
		}
	}
}

func (t *runtimeTest) exitsObeysContext() {
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.ctx)
	ended := make(chan error, 1)
	go func() {
		_, err := t.Runtime.Exits(ctx)
		ended <- err
	}()
	cancel(why)
	t.ErrorIs(<-ended, why)
}

func (t *runtimeTest) measures() {
	t.serving("stats", t.Serving)
	first, err := t.Runtime.Stats(t.ctx, t.Prefix+"stats")
	t.NoError(err)
	t.Positive(first.MemUsed)
	t.GreaterOrEqual(first.MemTotal, first.MemUsed)
	second, err := t.Runtime.Stats(t.ctx, t.Prefix+"stats")
	t.NoError(err)
	t.GreaterOrEqual(second.CPU, first.CPU)
	t.GreaterOrEqual(second.SystemCPU, first.SystemCPU)
	t.Positive(second.SystemCPU)
}

func (t *runtimeTest) prunes() {
	before := t.serving("used", t.Serving)
	t.NoError(t.Runtime.Prune(t.ctx))
	after, err := t.Runtime.Inspect(t.ctx, t.Prefix+"used")
	t.NoError(err)
	t.Equal(before, after)
	t.start("next", t.Serving)
}

func (t *runtimeTest) obeysContext() {
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.ctx)
	cancel(why)
	spec := t.spec("context", t.Serving)
	_, start := t.Runtime.Start(ctx, spec)
	_, inspect := t.Runtime.Inspect(ctx, t.Prefix+"context")
	_, list := t.Runtime.List(ctx)
	_, stats := t.Runtime.Stats(ctx, t.Prefix+"context")
	for method, err := range map[string]error{
		"Start": start, "Inspect": inspect, "List": list, "Stats": stats,
		"Stop": t.Runtime.Stop(ctx, t.Prefix+"context"), "Kill": t.Runtime.Kill(ctx, t.Prefix+"context"),
		"Remove": t.Runtime.Remove(ctx, t.Prefix+"context"),
	} {
		t.ErrorIs(err, why, method)
	}
}
