package scenarios

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

var planeBinary = flag.String("plane", "", "the plane binary to test; built when left out")

// atOnce is how many scenarios run at the same time. They wait far more than
// they compute.
const atOnce = "8"

// portsDB is shared by the drones of all scenarios, and by nobody else's: those
// that are killed leave their rows behind.
var portsDB string

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "scenarios:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		if err := flag.Set("test.parallel", atOnce); err != nil {
			return 0, err
		}
	}
	dir, err := os.MkdirTemp("", "plane-scenarios")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	portsDB = filepath.Join(dir, "ports.db")
	if *planeBinary == "" {
		*planeBinary = filepath.Join(dir, "plane")
		build := exec.Command("go", "build", "-trimpath", "-o", *planeBinary, "plane/cmd/plane")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("build plane: %w\n%s", err, out)
		}
	}
	if *planeBinary, err = filepath.Abs(*planeBinary); err != nil {
		return 0, err
	}
	return m.Run(), nil
}
