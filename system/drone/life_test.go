package drone_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/backend"
	"plane/system/placement"
	"plane/system/port"
	"plane/system/protocol"
)

func TestASpawnBecomesReadyInOrder(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.ready("b")
		require.Equal(t, []string{"loading", "starting", "waiting", "ready"}, r.statuses("b"))
		require.Equal(t, "10.0.0.1:5001", r.last("b").Address)
		require.Equal(t, 1, r.acks("ak-spawn-b"))

		for _, order := range [][2]int{
			{r.at("put loading", "b"), r.at("send", "protocol.AckAction")},
			{r.at("put loading", "b"), r.at("send", "protocol.BackendEvent")},
			{r.at("pull", "b"), r.at("acquire", "b")},
			{r.at("put starting", "b"), r.at("guard", "b")},
			{r.at("guard", "b"), r.at("start", "b")},
			{r.at("start", "b"), r.at("put waiting", "b")},
			{r.at("put waiting", "b"), r.at("probe", "10.0.0.1:5001")},
		} {
			require.Less(t, order[0], order[1])
		}
		require.Equal(t, r.look().records["b"].Deadlines.HardTerminateAt, r.look().guards["b"], "the guard has the hard deadline (shortfall 1)")
		require.NotContains(t, string(r.look().records["b"].Spec.Executable), "hush", "registry credentials are gone once pulled")
	})
}

func TestAControllerIsToldWhatTheDroneHas(t *testing.T) {
	for name, test := range map[string]struct {
		has  placement.Capacity
		says *protocol.Capacity
	}{
		"limits":    {placement.Capacity{MaxBackends: 3, MilliCPUs: 1500, MemoryBytes: 1 << 30}, &protocol.Capacity{MaxBackends: 3, MilliCPUs: 1500, MemoryBytes: 1 << 30}},
		"no limits": {placement.Capacity{}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.cfg.Capacity = test.has
				r.start()
				require.Equal(t, protocol.Handshake{Name: "dr-test", Capacity: test.says}, r.greeting())
			})
		})
	}
}

func TestASpawnHandedOverAgainHasNoSecondEffect(t *testing.T) { // shortfall 17, G6
	inBubble(t, func(t *testing.T, r *rig) {
		r.start()
		again := spawnAction("b", r.deadlines())
		r.send(again)
		r.pass(time.Second)
		r.send(again)
		require.Equal(t, 2, r.acks("ak-spawn-b"))
		require.Equal(t, 1, r.look().starts["b"])

		r.exit("b", 0, false)
		r.pass(time.Second)
		require.Equal(t, "terminated", r.last("b").Status.String())
		r.send(again)
		r.crash()
		r.start()
		r.send(again)
		r.pass(time.Second)
		require.Equal(t, 1, r.look().starts["b"], "not even after its end was recorded, and a restart")
		require.Equal(t, 4, r.acks("ak-spawn-b"))

		r.pass(time.Minute)
		require.Empty(t, r.look().records, "it is remembered for as long as the spawn could be obeyed")
		require.Empty(t, r.look().events)
		r.send(again)
		r.pass(time.Second)
		require.Equal(t, 1, r.look().starts["b"])
	})
}

func TestABadExecutableEndsWithItsReason(t *testing.T) { // shortfall 19
	bad := fmt.Errorf("%w: mount: this drone has no mount base", port.ErrBadExecutable)
	check := func(t *testing.T, r *rig) {
		end := r.last("b")
		require.Equal(t, backend.Terminated, end.Status)
		require.Equal(t, backend.InternalError, end.Reason)
		require.Contains(t, end.Message, "mount base")
		require.Equal(t, 1, r.acks("ak-spawn-b"))
		require.Empty(t, r.look().containers)
	}
	t.Run("refused before anything is done", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			r.reject = bad
			r.start()
			r.spawn("b")
			r.pass(time.Second)
			check(t, r)
			require.Zero(t, r.called("pull", "b"))
		})
	})
	t.Run("refused by the engine", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			r.runtime = strict{engine{r}, bad}
			r.start()
			r.spawn("b")
			r.pass(time.Second)
			check(t, r)
			require.Equal(t, 1, r.called("pull", "b"))
		})
	})
}

// strict is an engine that refuses to start anything.
type strict struct {
	engine
	err error
}

func (s strict) Start(context.Context, port.ContainerSpec) (port.Container, error) {
	return port.Container{}, s.err
}

func TestHowABackendEndsByItself(t *testing.T) {
	for name, c := range map[string]struct {
		code    int
		oom     bool
		message string
	}{
		"in good order":       {0, false, "exit code 0"},
		"with an error":       {3, false, "exit code 3"},
		"killed from outside": {137, false, "killed from outside"},
		"out of memory":       {137, true, "out of memory"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, r *rig) {
				r.ready("b")
				r.exit("b", c.code, c.oom)
				end := r.last("b")
				require.Equal(t, backend.Terminated, end.Status)
				require.Equal(t, c.code, *end.ExitCode)
				require.Equal(t, c.oom, end.OOM)
				require.Contains(t, end.Message, c.message)
				require.Empty(t, end.Reason)
				r.pass(time.Second)
				require.Empty(t, r.look().containers)
				require.Empty(t, r.look().guards)
			})
		})
	}
}

func TestAnExitThatTheEngineDidNotTellIsSeenAllTheSame(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.mute = true
		r.ready("b")
		r.exit("b", 1, false)
		require.Equal(t, "ready", r.last("b").Status.String())
		r.pass(31 * time.Second)
		require.Equal(t, "terminated", r.last("b").Status.String())
	})
}

func TestSoftTerminationGivesTimeThenKills(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.stubborn = true
		r.ready("b")
		r.terminate("b", backend.Soft)
		r.terminate("b", backend.Soft)
		require.Equal(t, 2, r.acks("ak-soft-b"))
		require.Equal(t, 1, r.called("stop", "b"))
		r.pass(29 * time.Second)
		require.True(t, r.running("b"))
		r.pass(2 * time.Second)
		require.False(t, r.running("b"))
		require.Equal(t, []string{"loading", "starting", "waiting", "ready", "terminating", "hard-terminating", "terminated"}, r.statuses("b"))
		end := r.last("b")
		require.Equal(t, backend.External, end.Reason)
		require.Equal(t, backend.Ready, end.Last)
		require.Equal(t, 137, *end.ExitCode)
	})
}

func TestHardMayFollowSoft(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.stubborn = true
		r.ready("b")
		r.terminate("b", backend.Soft)
		r.pass(time.Second)
		r.terminate("b", backend.Hard)
		r.pass(time.Second)
		require.False(t, r.running("b"))
		require.Equal(t, "terminated", r.last("b").Status.String())
		require.Equal(t, 1, r.acks("ak-hard-b"))
	})
}

func TestTerminationDuringThePull(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.slowPull = 20 * time.Second
		r.start()
		r.spawn("b")
		r.pass(time.Second)
		r.terminate("b", backend.Soft)
		r.pass(time.Second)
		require.Equal(t, []string{"loading", "terminating", "terminated"}, r.statuses("b"))
		require.Zero(t, r.look().starts["b"])
	})
}

func TestTerminationOfAnUnknownBackendIsAcknowledged(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.start()
		r.terminate("nobody", backend.Hard)
		require.Equal(t, 1, r.acks("ak-hard-nobody"))
		require.Empty(t, r.look().records)
	})
}

func TestABackendThatNeverAnswersEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.deaf = true
		r.start()
		r.spawn("b")
		r.pass(299 * time.Second)
		require.Equal(t, "waiting", r.last("b").Status.String())
		r.pass(2 * time.Second)
		end := r.last("b")
		require.Equal(t, backend.Terminated, end.Status)
		require.Equal(t, backend.StartupTimeout, end.Reason)
		require.Equal(t, backend.Hard, end.Termination)
		require.False(t, r.running("b"))
	})
}

func TestThePortIsGivenBackOnceTheEndIsRecorded(t *testing.T) { // G7
	inBubble(t, func(t *testing.T, r *rig) {
		r.ready("b")
		r.set(func() { r.hoarding = true })
		r.exit("b", 0, false)
		r.pass(3 * time.Minute)
		require.Contains(t, r.look().ports, "b", "proxies may be given the route until then")
		r.set(func() { r.hoarding = false })
		r.cut(0)
		r.pass(time.Minute)
		require.NotContains(t, r.look().ports, "b")
		require.Empty(t, r.look().records)
	})
}

func TestATakenPortIsReplaced(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.runtime = &crowded{engine{r}, 3}
		r.start()
		r.spawn("b")
		r.pass(time.Minute)
		require.Equal(t, "ready", r.last("b").Status.String())
		require.Equal(t, "10.0.0.1:5004", r.last("b").Address)
		require.Equal(t, 5004, r.look().records["b"].Port)
	})
	t.Run("but not for ever", func(t *testing.T) {
		inBubble(t, func(t *testing.T, r *rig) {
			r.runtime = &crowded{engine{r}, 1000}
			r.start()
			r.spawn("b")
			r.pass(2 * time.Minute)
			require.Equal(t, backend.InternalError, r.last("b").Reason)
			require.Contains(t, r.last("b").Message, "no free port")
		})
	})
}

// The agent died over a start that took effect after its next one was refused
// (G6, G10).
func TestAStartThatTookEffectAfterAllIsNotUndone(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.runtime = &belated{engine: engine{r}}
		r.start()
		r.spawn("b")
		r.pass(time.Minute)
		require.Equal(t, []string{"loading", "starting", "waiting", "ready"}, r.statuses("b"))
		require.Equal(t, 1, r.look().starts["b"])
		require.Zero(t, r.called("remove", "b"))
	})
}

// belated is an engine that starts a container and says that its port is taken.
type belated struct {
	engine
	told bool
}

func (e *belated) Start(ctx context.Context, spec port.ContainerSpec) (port.Container, error) {
	c, err := e.engine.Start(ctx, spec)
	if !e.told {
		e.told = true
		return port.Container{}, port.ErrPortTaken
	}
	return c, err
}

// crowded is an engine on which the first ports are taken.
type crowded struct {
	engine
	taken int
}

func (c *crowded) Start(ctx context.Context, spec port.ContainerSpec) (port.Container, error) {
	if c.taken > 0 {
		c.taken--
		return port.Container{}, port.ErrPortTaken
	}
	return c.engine.Start(ctx, spec)
}

func TestMetricsCoverTheTimeSinceTheLast(t *testing.T) {
	inBubble(t, func(t *testing.T, r *rig) {
		r.stats = port.Stats{MemUsed: 5, CPU: time.Hour}
		r.ready("b")
		r.pass(10 * time.Second)
		r.set(func() { r.stats.CPU += 3 * time.Second })
		r.pass(10 * time.Second)
		require.Equal(t, 1, count(r, func(m protocol.BackendMetrics) bool {
			return m.BackendID == "b" && m.MemUsed == 5 && m.CPUUsed == uint64(3*time.Second)
		}))
	})
}
