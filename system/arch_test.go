package system_test

import (
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// layers is which packages of Plane a package may import: those in layers below
// its own, and those named beside it. Outside packages are for adapters, tests
// and commands.
var layers = []struct {
	name     string
	packages []string
	peers    bool // its packages may import each other
}{
	{"pure rules", []string{
		"system/backend", "system/challenge", "system/inquiry", "system/lease", "system/lifecycle", "system/mount", "system/name",
		"system/placement", "system/queue", "system/recent", "system/roster", "system/route", "system/watch", "system/zone",
	}, true},
	{"protocol", []string{"system/protocol"}, false},
	{"port", []string{"system/port"}, false},
	{"over ports", []string{"system/ledger", "system/session"}, false},
	{"roles", []string{"system/certificate", "system/controller", "system/dns", "system/drone", "system/proxy"}, false},
}

// replayable are the packages whose code runs in the simulator's kernel and must
// do the same in every run of a seed.
var replayable = []string{
	"system/certificate", "system/controller", "system/dns", "system/drone", "system/proxy", "system/session", "system/ledger",
	"sim/fake", "sim/check", "sim/cluster", "sim/fault", "sim/world",
}

var bannedCalls = map[string]string{
	"time.Now": "use port.Clock", "time.Since": "use port.Clock", "time.Until": "use port.Clock",
	"time.Sleep": "use port.Clock", "time.After": "use port.Clock", "time.AfterFunc": "use port.Clock",
	"time.NewTimer": "use port.Clock", "time.NewTicker": "use port.Clock", "time.Tick": "use port.Clock",
	"context.WithTimeout": "use port.WithTimeout", "context.WithDeadline": "use port.Clock",
	"context.AfterFunc": "starts a goroutine", "context.Background": "take the caller's context",
	"context.TODO": "take the caller's context",
}

var bannedImports = []string{"math/rand", "math/rand/v2", "crypto/rand", "os", "net"}

// allowed are exceptions, each with its reason.
var allowed = map[string]string{
	"sim/world: imports math/rand/v2": "it makes the seeded streams that all else draws from",
	"sim/cluster: time.Now":           "Run measures the wall time of a run, outside the kernel",
	"sim/cluster: time.Since":         "Run measures the wall time of a run, outside the kernel",
}

func TestReplayableCodeKeepsTheRules(t *testing.T) {
	used := map[string]bool{}
	for _, pkg := range replayable {
		for _, f := range inspect(t, filepath.Join("..", pkg)) {
			if key := pkg + ": " + f.rule; allowed[key] != "" {
				used[key] = true
				continue
			}
			t.Errorf("%s: %s: %s", f.at, f.rule, f.why)
		}
	}
	for key := range allowed {
		require.True(t, used[key], "the exception %q is not needed any more", key)
	}
}

func TestEveryRuleBites(t *testing.T) {
	want := wanted(t, "testdata/bad/bad.go")
	got := map[string]string{}
	for _, f := range inspect(t, "testdata/bad") {
		got[f.at] = f.rule
	}
	require.Equal(t, want, got)
	for call := range bannedCalls {
		require.Contains(t, values(want), call, "testdata/bad does not show that this rule bites")
	}
}

func TestLayers(t *testing.T) {
	placed := map[string]int{}
	for n, l := range layers {
		for _, pkg := range l.packages {
			placed["plane/"+pkg] = n
		}
	}
	for _, dir := range packages(t, ".") {
		pkg := "plane/system/" + dir
		if dir == "porttest" {
			continue // tests for adapters and fakes; imports testing libraries
		}
		n, ok := placed[pkg]
		require.True(t, ok, "%s has no layer; see the table above", pkg)
		for _, path := range imports(t, dir) {
			if !strings.HasPrefix(path, "plane/") {
				require.NotContains(t, strings.Split(path, "/")[0], ".", "%s imports %s: only adapters import third parties", pkg, path)
				continue
			}
			m, ok := placed[path]
			require.True(t, ok && (m < n || m == n && layers[n].peers), "%s (%s) must not import %s", pkg, layers[n].name, path)
		}
	}
}

func TestAdaptersAndSimulatorKnowNoRoles(t *testing.T) {
	roles := []string{"plane/system/controller", "plane/system/dns", "plane/system/drone", "plane/system/proxy"}
	for _, root := range []string{"../adapters", "../sim"} {
		for _, dir := range packages(t, root) {
			if root == "../sim" && dir == "cluster" {
				continue // the one that puts roles into worlds
			}
			for _, path := range imports(t, filepath.Join(root, dir)) {
				require.NotContains(t, roles, path, "%s/%s imports a role", root, dir)
				adapter, found := strings.CutPrefix(path, "plane/adapters/")
				inner := strings.HasPrefix(adapter, "internal/") || strings.HasPrefix(adapter, strings.Split(dir, "/")[0])
				require.True(t, !found || inner || root == "../sim", "adapter %s imports adapter %s", dir, path)
			}
		}
	}
}

// finding is a broken rule.
type finding struct {
	at   string // file:line
	rule string
	why  string
}

type inspector struct {
	fset     *token.FileSet
	info     *types.Info
	self     string // the package's path
	seesPort bool
	found    []finding
}

func inspect(t *testing.T, dir string) []finding {
	t.Helper()
	in := &inspector{fset: token.NewFileSet(), info: &types.Info{Uses: map[*ast.Ident]types.Object{}, Types: map[ast.Expr]types.TypeAndValue{}}}
	files := parse(t, in.fset, dir, 0)
	conf := types.Config{Importer: shared, Error: func(error) {}}
	in.self = "plane/" + strings.TrimPrefix(filepath.ToSlash(dir), "../")
	if _, err := conf.Check(in.self, in.fset, files, in.info); err != nil && !strings.Contains(dir, "testdata") {
		t.Fatal(err)
	}
	for _, f := range files {
		for _, spec := range f.Imports {
			in.seesPort = in.seesPort || path(spec) == "plane/system/port"
		}
	}
	for _, f := range files {
		for _, spec := range f.Imports {
			in.importSpec(spec)
		}
		sorted := map[ast.Node]bool{}
		ast.Inspect(f, func(n ast.Node) bool { in.node(n, sorted); return true })
	}
	return in.found
}

func (in *inspector) say(n ast.Node, rule, why string) {
	p := in.fset.Position(n.Pos())
	in.found = append(in.found, finding{fmt.Sprintf("%s:%d", filepath.Base(p.Filename), p.Line), rule, why})
}

func (in *inspector) importSpec(spec *ast.ImportSpec) {
	p := path(spec)
	if slices.Contains(bannedImports, p) {
		in.say(spec, "imports "+p, "what differs from run to run comes from ports")
	}
	isRole := slices.Contains([]string{"plane/system/controller", "plane/system/drone", "plane/system/proxy"}, p)
	if isRole && in.self != "plane/sim/cluster" {
		in.say(spec, "imports another role", "roles meet on the wire only")
	}
}

func (in *inspector) node(n ast.Node, sorted map[ast.Node]bool) {
	switch n := n.(type) {
	case *ast.GoStmt:
		in.say(n, "go statement", "use port.Tasks")
	case *ast.SelectStmt:
		in.say(n, "select", "block in a port")
	case *ast.ChanType:
		in.say(n, "channel", "use a queue and port.EventCount")
	case *ast.RangeStmt:
		in.ranged(n)
	case *ast.CallExpr:
		in.call(n, sorted)
	case *ast.SelectorExpr:
		in.selector(n, sorted)
	}
}

func (in *inspector) ranged(n *ast.RangeStmt) {
	switch in.info.Types[n.X].Type.Underlying().(type) {
	case *types.Map:
		in.say(n, "range over a map", "use slices.Sorted(maps.Keys(m))")
	case *types.Chan:
		in.say(n, "receives from a channel", "use a queue and port.EventCount")
	}
}

func (in *inspector) call(n *ast.CallExpr, sorted map[ast.Node]bool) {
	if id, ok := n.Fun.(*ast.Ident); ok && id.Name == "recover" {
		in.say(n, "recover", "it would swallow a simulated crash")
	}
	if name := in.qualified(n.Fun); name == "slices.Sorted" || name == "slices.SortedFunc" {
		for _, arg := range n.Args {
			if inner, ok := arg.(*ast.CallExpr); ok {
				sorted[inner.Fun] = true
			}
		}
	}
}

func (in *inspector) selector(n *ast.SelectorExpr, sorted map[ast.Node]bool) {
	name := in.qualified(n)
	if why, ok := bannedCalls[name]; ok {
		in.say(n, name, why)
	}
	switch name {
	case "maps.Keys", "maps.Values", "maps.All":
		if !sorted[n] {
			in.say(n, "unsorted "+name, "use slices.Sorted(maps.Keys(m))")
		}
	case "sync.Mutex", "sync.RWMutex":
		if in.seesPort {
			in.say(n, "mutex beside port", "a type with a mutex lives in a package that cannot call ports")
		}
	}
}

// qualified is the name of a package's function or type, or "".
func (in *inspector) qualified(e ast.Expr) string {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	o := in.info.Uses[sel.Sel]
	if o == nil || o.Pkg() == nil || o.Parent() != o.Pkg().Scope() {
		return ""
	}
	return o.Pkg().Path() + "." + o.Name()
}

// shared type-checks imports from source, each once.
var shared = importer.ForCompiler(token.NewFileSet(), "source", nil)

func path(spec *ast.ImportSpec) string {
	p, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		panic(err)
	}
	return p
}

// parse reads a package's files without its tests.
func parse(t *testing.T, fset *token.FileSet, dir string, mode parser.Mode) []*ast.File {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var files []*ast.File
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".go") && !strings.HasSuffix(e.Name(), "_test.go") {
			f, err := parser.ParseFile(fset, filepath.Join(dir, e.Name()), nil, mode)
			require.NoError(t, err)
			files = append(files, f)
		}
	}
	return files
}

func imports(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	for _, f := range parse(t, token.NewFileSet(), dir, parser.ImportsOnly) {
		for _, spec := range f.Imports {
			all = append(all, path(spec))
		}
	}
	return all
}

// packages lists the directories under root that hold Go code.
func packages(t *testing.T, root string) []string {
	t.Helper()
	var dirs []string
	err := filepath.WalkDir(root, func(p string, e os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && e.Name() == "testdata" {
			return filepath.SkipDir
		}
		if !e.IsDir() && strings.HasSuffix(p, ".go") && !strings.HasSuffix(p, "_test.go") {
			if rel, err := filepath.Rel(root, filepath.Dir(p)); err == nil && !slices.Contains(dirs, rel) {
				dirs = append(dirs, rel)
			}
		}
		return nil
	})
	require.NoError(t, err)
	return dirs
}

// wanted reads, from the comments of a file, which line breaks which rule.
func wanted(t *testing.T, file string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	want := map[string]string{}
	for i, line := range strings.Split(string(text), "\n") {
		if code, rule, ok := strings.Cut(line, " // "); ok && strings.TrimSpace(code) != "" {
			want[fmt.Sprintf("%s:%d", filepath.Base(file), i+1)] = strings.TrimSpace(rule)
		}
	}
	return want
}

func values(m map[string]string) []string {
	var all []string
	for _, v := range m {
		all = append(all, v)
	}
	return all
}
