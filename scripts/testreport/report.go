package main

import (
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// slow is from when on, in seconds, a test gets a line of its own, so that it
// can be seen that a long run goes on.
const slow = 10

// event is one line of go test -json; see go doc test2json.
type event struct {
	Action      string
	Package     string
	ImportPath  string
	Test        string
	Output      string
	Elapsed     float64
	FailedBuild string
}

type result struct {
	pkg, test string
	action    string // pass, fail or skip
	reason    string
	parent    bool // its subtests are counted instead
}

// report is one summary of any number of runs.
type report struct {
	out     io.Writer
	output  map[string][]string // by package and test, of what is not finished
	builds  map[string][]string // by import path
	results map[string]*result
	broken  int // packages that failed for another reason than a test
}

func newReport(out io.Writer) *report {
	return &report{
		out: out, output: make(map[string][]string), builds: make(map[string][]string),
		results: make(map[string]*result),
	}
}

func (r *report) printf(format string, a ...any) { _, _ = fmt.Fprintf(r.out, format, a...) }

func (r *report) take(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "output":
		r.output[key] = append(r.output[key], e.Output)
	case "build-output":
		r.builds[e.ImportPath] = append(r.builds[e.ImportPath], e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			r.pkg(e, r.output[key])
		} else {
			r.test(e, key)
		}
		delete(r.output, key)
	}
}

func (r *report) test(e event, key string) {
	res := r.result(e.Package, e.Test)
	res.action = e.Action
	for i := strings.LastIndexByte(e.Test, '/'); i > 0; i = strings.LastIndexByte(e.Test[:i], '/') {
		r.result(e.Package, e.Test[:i]).parent = true
	}
	switch e.Action {
	case "fail":
		for _, line := range r.output[key] {
			if !noise(line) {
				r.printf("%s", line)
			}
		}
	case "skip":
		res.reason = reason(r.output[key])
	}
	if e.Elapsed >= slow {
		r.printf("  %-5s %s (%.0fs)\n", e.Action, name(e.Package, e.Test), e.Elapsed)
	}
}

func (r *report) result(pkg, test string) *result {
	key := pkg + " " + test
	if r.results[key] == nil {
		r.results[key] = &result{pkg: pkg, test: test}
	}
	return r.results[key]
}

func (r *report) pkg(e event, output []string) {
	switch e.Action {
	case "skip": // no test files
	case "pass":
		r.printf("ok    %s (%.1fs)\n", e.Package, e.Elapsed)
	case "fail":
		failed := false
		for _, res := range r.results {
			failed = failed || res.pkg == e.Package && res.action == "fail"
		}
		for _, line := range r.builds[e.FailedBuild] {
			r.printf("%s", line)
		}
		r.unfinished(e.Package)
		for _, line := range output {
			if !noise(line) {
				r.printf("%s", line)
			}
		}
		if !failed {
			r.broken++
		}
		r.printf("FAIL  %s (%.1fs)\n", e.Package, e.Elapsed)
	}
}

// unfinished prints what the tests have said that a panic, an exit or a
// time-out has cut off.
func (r *report) unfinished(pkg string) {
	for _, key := range slices.Sorted(maps.Keys(r.output)) {
		if test, ok := strings.CutPrefix(key, pkg+" "); ok && test != "" {
			r.printf("%s", strings.Join(r.output[key], ""))
			delete(r.output, key)
		}
	}
}

// finish prints the end of the report and says whether all is well.
func (r *report) finish() bool {
	var failed, skipped []string
	passed := 0
	for _, key := range slices.Sorted(maps.Keys(r.results)) {
		switch res := r.results[key]; {
		case res.parent && res.action != "fail":
		case res.action == "pass":
			passed++
		case res.action == "fail" && !res.parent:
			failed = append(failed, "failed: "+name(res.pkg, res.test))
		case res.action == "fail": // with it its subtests, or else it alone
			if !r.childFailed(res) {
				failed = append(failed, "failed: "+name(res.pkg, res.test))
			}
		case res.action == "skip":
			skipped = append(skipped, "skipped: "+name(res.pkg, res.test)+": "+res.reason)
		}
	}
	for _, line := range append(skipped, failed...) {
		r.printf("%s\n", line)
	}
	if r.broken > 0 {
		r.printf("%d packages did not build or did not come to an end\n", r.broken)
	}
	r.printf("%d passed, %d failed, %d skipped\n", passed, len(failed)+r.broken, len(skipped))
	return len(failed)+r.broken == 0
}

func (r *report) childFailed(parent *result) bool {
	for _, res := range r.results {
		if res.action == "fail" && res.pkg == parent.pkg && strings.HasPrefix(res.test, parent.test+"/") {
			return true
		}
	}
	return false
}

var where = regexp.MustCompile(`^\s*\S+\.go:\d+: (.*)`)

// reason is what t.Skip has said.
func reason(output []string) string {
	for _, line := range slices.Backward(output) {
		if m := where.FindStringSubmatch(line); m != nil {
			return strings.TrimSpace(m[1])
		}
	}
	return "no reason given"
}

// noise is what go test says that the report says better.
func noise(line string) bool {
	return noisy.MatchString(line)
}

var noisy = regexp.MustCompile(`^(=== |(FAIL|PASS|ok)\s|exit status 1$)`)
