// Package testprogram builds the test backend for tests that run it, as a
// process or in an image. It is built once per test process, statically, and to
// the same bytes each time, so that an image made from it is made once per
// machine.
package testprogram

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// Path returns where the program is, and fails the test if it does not build.
func Path(t testing.TB) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatalf("build the test backend: %v", err)
	}
	return path
}

// build leaves the program in the user's cache, under a name that the next
// build replaces at once and whole: other test processes may be running it.
var build = sync.OnceValues(func() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "plane-test")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	fresh := filepath.Join(dir, fmt.Sprintf("testbackend.%d", os.Getpid()))
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", fresh, "plane/scenarios/testbackend")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	path := filepath.Join(dir, "testbackend")
	return path, os.Rename(fresh, path)
})
