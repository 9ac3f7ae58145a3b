package route

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParsePath(t *testing.T) {
	for _, c := range []struct {
		target string
		want   Path
	}{
		{"/", Path{"", "/", "/", "", false}},
		{"/?", Path{"", "/", "/", "", true}},
		{"/tok", Path{"tok", "/tok", "/", "", false}},
		{"/tok/", Path{"tok", "/tok/", "/", "", false}},
		{"/tok?a=b", Path{"tok", "/tok", "/", "a=b", true}},
		{"/tok/a/b?c?d", Path{"tok", "/tok/a/b", "/a/b", "c?d", true}},
		{"/tok//a", Path{"tok", "/tok//a", "//a", "", false}},
		{"/tok/a%2Fb/../c", Path{"tok", "/tok/a%2Fb/../c", "/a%2Fb/../c", "", false}},
		{"/to%2Fk/a", Path{"to%2Fk", "/to%2Fk/a", "/a", "", false}},
		{"//tok/a", Path{"", "//tok/a", "/tok/a", "", false}},
		{"/s.tok", Path{"s.tok", "/s.tok", "/s.tok/", "", false}},
		{"/s.tok/", Path{"s.tok", "/s.tok/", "/s.tok/", "", false}},
		{"/s.tok/a?b", Path{"s.tok", "/s.tok/a", "/s.tok/a", "b", true}},
		{"/tok/http://x/y", Path{"tok", "/tok/http://x/y", "/http://x/y", "", false}},
		{"/tok/a#f?g", Path{"tok", "/tok/a", "/a", "", false}},
		{"http://host/tok/a?b", Path{"tok", "/tok/a", "/a", "b", true}},
		{"HTTPS://host:1/tok", Path{"tok", "/tok", "/", "", false}},
		{"http://host", Path{"", "/", "/", "", false}},
		{"http://host?a", Path{"", "/", "/", "a", true}},
	} {
		got, ok := ParsePath(c.target)
		require.True(t, ok, c.target)
		require.Equal(t, c.want, got, c.target)
	}
	for _, target := range []string{"", "*", "host:443", "tok/a", "?a://b", "a/b://c"} {
		_, ok := ParsePath(target)
		require.False(t, ok, target)
	}
}

func FuzzPath(f *testing.F) {
	for _, s := range []string{"/tok/a%2F?b", "/s.tok", "http://h/tok", "//", "*", "/a#b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, target string) {
		p, ok := ParsePath(target)
		if !ok {
			return
		}
		if p.Rest == "" || p.Rest[0] != '/' || p.Original == "" || p.Original[0] != '/' {
			t.Fatalf("%q: %+v: a path begins with a slash", target, p)
		}
		if strings.ContainsAny(p.Token, "/?#") || strings.ContainsAny(p.Rest+p.Original, "?#") {
			t.Fatalf("%q: %+v: parts run into each other", target, p)
		}
		joined := "/" + p.Token + p.Rest
		if strings.HasPrefix(p.Token, "s.") {
			joined = p.Rest
		}
		if joined != p.Original && joined != p.Original+"/" {
			t.Fatalf("%q: %+v: the parts do not make the whole", target, p)
		}
		if p.Query != "" && !p.HasQuery || !strings.Contains(target, p.Original) && p.Original != "/" {
			t.Fatalf("%q: %+v: something was changed", target, p)
		}
	})
}
