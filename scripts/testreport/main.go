// Command testreport runs go test and reports on it in few lines: a line for
// each package, all that a failed test has printed, then the name and the
// reason of every test that was skipped, and the figures.
//
// Its arguments are those of go test. Several runs, one after the other and
// with one report, are separated by "++". It exits with 1 when a test or a run
// has failed.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

func main() {
	r := newReport(os.Stdout)
	ok := true
	for _, arguments := range split(os.Args[1:]) {
		ok = run(r, arguments) && ok
	}
	if !r.finish() || !ok {
		os.Exit(1)
	}
}

func split(arguments []string) [][]string {
	var runs [][]string
	for {
		i := slices.Index(arguments, "++")
		if i < 0 {
			return append(runs, arguments)
		}
		runs, arguments = append(runs, arguments[:i]), arguments[i+1:]
	}
}

func run(r *report, arguments []string) bool {
	cmd := exec.Command("go", append([]string{"test", "-json"}, arguments...)...) //nolint:noctx // ends with us
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
		return false
	}
	if err := r.read(out); err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
		_ = cmd.Process.Kill()
	}
	return cmd.Wait() == nil
}

// read takes in what one go test -json writes, a line at a time. What is not
// JSON is passed on.
func (r *report) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if text := bytes.TrimSpace(line); len(text) > 0 {
			var e event
			if json.Unmarshal(text, &e) == nil && e.Action != "" {
				r.take(e)
			} else {
				r.printf("%s\n", text)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read go test: %w", err)
		}
	}
}

// name is how a test is called in the report.
func name(pkg, test string) string {
	return strings.TrimPrefix(pkg, "plane/") + " " + test
}
