package main

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestReport(t *testing.T) {
	for _, c := range []struct {
		name, in, want string
		ok             bool
	}{
		{
			name: "all is well, and subtests stand for their parents",
			in: `{"Action":"run","Package":"plane/a","Test":"TestA"}
{"Action":"pass","Package":"plane/a","Test":"TestA/one","Elapsed":0.1}
{"Action":"pass","Package":"plane/a","Test":"TestA/two","Elapsed":12}
{"Action":"pass","Package":"plane/a","Test":"TestA","Elapsed":0.2}
{"Action":"pass","Package":"plane/a","Elapsed":0.25}
{"Action":"skip","Package":"plane/b"}
`,
			want: "  pass  a TestA/two (12s)\nok    plane/a (0.2s)\n2 passed, 0 failed, 0 skipped\n",
			ok:   true,
		},
		{
			name: "skips are named",
			in: `{"Action":"output","Package":"plane/a","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"plane/a","Test":"TestA","Output":"    a_test.go:7: no engine: dial: refused\n"}
{"Action":"output","Package":"plane/a","Test":"TestA","Output":"--- SKIP: TestA (0.00s)\n"}
{"Action":"skip","Package":"plane/a","Test":"TestA"}
{"Action":"skip","Package":"plane/a","Test":"TestB"}
{"Action":"pass","Package":"plane/a","Elapsed":1}
`,
			want: "ok    plane/a (1.0s)\nskipped: a TestA: no engine: dial: refused\n" +
				"skipped: a TestB: no reason given\n0 passed, 0 failed, 2 skipped\n",
			ok: true,
		},
		{
			name: "a failure is told, once",
			in: `{"Action":"output","Package":"plane/a","Test":"TestA/x","Output":"=== RUN   TestA/x\n"}
{"Action":"output","Package":"plane/a","Test":"TestA/x","Output":"    a_test.go:9: wrong\n"}
{"Action":"fail","Package":"plane/a","Test":"TestA/x"}
{"Action":"fail","Package":"plane/a","Test":"TestA"}
{"Action":"output","Package":"plane/a","Output":"FAIL\n"}
{"Action":"fail","Package":"plane/a","Elapsed":1}
`,
			want: "    a_test.go:9: wrong\nFAIL  plane/a (1.0s)\nfailed: a TestA/x\n0 passed, 1 failed, 0 skipped\n",
		},
		{
			name: "a package that does not build",
			in: `{"ImportPath":"plane/a [plane/a.test]","Action":"build-output","Output":"a.go:1: no\n"}
{"ImportPath":"plane/a [plane/a.test]","Action":"build-fail"}
{"Action":"output","Package":"plane/a","Output":"FAIL\tplane/a [build failed]\n"}
{"Action":"fail","Package":"plane/a","FailedBuild":"plane/a [plane/a.test]"}
`,
			want: "a.go:1: no\nFAIL  plane/a (0.0s)\n" +
				"1 packages did not build or did not come to an end\n0 passed, 1 failed, 0 skipped\n",
		},
		{
			name: "a panic takes the test with it",
			in: `{"Action":"output","Package":"plane/a","Test":"TestA","Output":"panic: oh\n"}
{"Action":"output","Package":"plane/a","Output":"exit status 2\n"}
{"Action":"fail","Package":"plane/a","Elapsed":1}
a line that is not JSON
`,
			want: "panic: oh\nexit status 2\nFAIL  plane/a (1.0s)\na line that is not JSON\n" +
				"1 packages did not build or did not come to an end\n0 passed, 1 failed, 0 skipped\n",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			r := newReport(&out)
			require.NoError(t, r.read(strings.NewReader(c.in)))
			require.Equal(t, c.ok, r.finish())
			require.Equal(t, c.want, out.String())
		})
	}
}

func TestSplit(t *testing.T) {
	require.Equal(t, [][]string{{"-race", "a"}, {"b"}}, split([]string{"-race", "a", "++", "b"}))
	require.Equal(t, [][]string{{"a"}}, split([]string{"a"}))
}
