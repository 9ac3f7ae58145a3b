package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// testReference is a test in docs/shortfalls.md: `package/path.TestName`, and
// after a slash the name of a subtest as the code has it.
var testReference = regexp.MustCompile("`([a-z][a-z/]*)\\.(Test\\w+)(?:/([^`]+))?`")

// TestShortfallsNameTestsThatExist holds docs/shortfalls.md to the tests that
// there are: a renamed or deleted one has to be put right there, too.
func TestShortfallsNameTestsThatExist(t *testing.T) {
	text, err := os.ReadFile("../../docs/shortfalls.md")
	require.NoError(t, err)
	for _, number := range []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16", "17", "18", "19"} {
		rows := regexp.MustCompile(`(?m)^\| `+number+` \|.*$`).FindAllString(string(text), -1)
		require.NotEmpty(t, rows, "shortfall %s has no row", number)
		for _, row := range rows {
			references := testReference.FindAllStringSubmatch(row, -1)
			require.NotEmpty(t, references, "no test is named in: %s", row)
			for _, r := range references {
				requireTest(t, r[1], r[2], r[3])
			}
		}
	}
}

func requireTest(t *testing.T, pkg, test, subtest string) {
	t.Helper()
	functions, texts := declared(t, filepath.Join("../..", pkg, "*_test.go"))
	require.Contains(t, functions, test, "there is no test %s in %s", test, pkg)
	if subtest == "" {
		return
	}
	_, suites := declared(t, "../../system/porttest/*.go")
	for name := range strings.SplitSeq(subtest, "/") {
		if texts[name] || suites[name] {
			continue
		}
		t.Errorf("%s.%s: there is no subtest %q", pkg, test, name)
	}
}

// declared returns the functions and the string literals of some files.
func declared(t *testing.T, pattern string) (functions, texts map[string]bool) {
	t.Helper()
	functions, texts = map[string]bool{}, map[string]bool{}
	files, err := filepath.Glob(pattern)
	require.NoError(t, err)
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		require.NoError(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				functions[n.Name.Name] = true
			case *ast.BasicLit:
				if n.Kind == token.STRING {
					text, err := strconv.Unquote(n.Value)
					require.NoError(t, err)
					texts[text] = true
				}
			}
			return true
		})
	}
	return functions, texts
}
