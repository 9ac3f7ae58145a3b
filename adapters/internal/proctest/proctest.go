// Package proctest does to processes what tests need done to them.
package proctest

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// Freeze stops a process and returns once all its threads stand still, which a
// signal alone does not wait for. It goes on when the test ends, if not before.
func Freeze(t *testing.T, pid int) {
	t.Helper()
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
	for frozen := false; !frozen; runtime.Gosched() {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		require.NoError(t, err)
		require.NotEmpty(t, threads, "the process is gone")
		frozen = !slices.ContainsFunc(threads, running)
	}
}

// running reports whether the thread with this stat file does not stand still.
// One that has ended does.
func running(statFile string) bool {
	stat, err := os.ReadFile(statFile)
	if err != nil {
		return false
	}
	_, state, found := strings.Cut(string(stat), ") ")
	return !found || state[0] != 'T'
}
