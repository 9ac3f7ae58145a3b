package kernel

import (
	"fmt"
	"runtime"
	"strings"
	"time"
)

// DefaultHang is how long, in real time, a task may run without entering a
// port before the run counts as hung.
const DefaultHang = 20 * time.Second

// hangWatch finds the task that blocks the whole simulation: one that waits for
// a mutex which another task holds over a port call, or that never ends.
type hangWatch struct {
	after  time.Duration
	report func(task string)
}

// OnHang replaces what happens when a task hangs, and after how long.
func (k *Kernel) OnHang(after time.Duration, report func(task string)) {
	k.hang = hangWatch{after, report}
}

// start watches until the returned function is called.
func (h hangWatch) start(k *Kernel) (stop func()) {
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(h.after)
		defer tick.Stop()
		var last uint64
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			beat := k.beat.Load()
			if beat == last && beat%2 == 1 {
				h.report(*k.running.Load())
			}
			last = beat
		}
	}()
	return func() { close(done); <-ended }
}

func panicWithStacks(task string) {
	panic(fmt.Sprintf("kernel: task %q does not come back: does it wait for a mutex that is held over a port call?\n%s", task, busyStacks()))
}

// busyStacks are the stacks of the goroutines that are not parked coroutines.
func busyStacks() string {
	buf := make([]byte, 16<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var busy []string
	for stack := range strings.SplitSeq(string(buf), "\n\n") {
		if head, _, _ := strings.Cut(stack, "\n"); !strings.Contains(head, "[coroutine") {
			busy = append(busy, stack)
		}
	}
	return strings.Join(busy, "\n\n")
}
