package name_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"plane/system/name"
)

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		kind name.Kind
		s    string
		want string // "" when it is fine
	}{
		{name.Drone, "dr-a1", ""},
		{name.Drone, "dr-" + strings.Repeat("x", 42), ""},
		{name.Drone, "dr-" + strings.Repeat("x", 43), "longer than 45"},
		{name.Drone, "px-a1", `begin with "dr-"`},
		{name.Drone, "dr-", "empty"},
		{name.Drone, "dr-A", `not "A"`},
		{name.Drone, "dr-a_b", `not "_"`},
		{name.Drone, "dr-\x00", "are allowed"},
		{name.Backend, "my-board", ""},
		{name.Backend, "", "empty"},
		{name.Backend, "../etc", `not "."`},
		{name.Backend, "ü", "are allowed"},
	} {
		err := name.Validate(c.kind, c.s)
		if c.want == "" {
			require.NoError(t, err, c.s)
			continue
		}
		require.ErrorContains(t, err, c.want, c.s)
	}
}

func TestMadeUpNamesAndTokensAreValid(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	seen := map[string]bool{}
	for range 1000 {
		for _, kind := range []name.Kind{name.Controller, name.Drone, name.Proxy, name.DNS, name.Action, name.Backend} {
			n := name.New(kind, rnd)
			require.NoError(t, name.Validate(kind, n))
			require.Len(t, n, len(kind)+14)
			require.False(t, seen[n])
			seen[n] = true
		}
		token, static := name.NewToken(rnd), name.NewStaticToken(rnd)
		require.True(t, name.ValidToken(token))
		require.True(t, name.ValidToken(static))
		require.Len(t, token, 43)
		require.True(t, strings.HasPrefix(static, "s."))
	}
}

func TestValidTokenRefusesJunk(t *testing.T) {
	for _, junk := range []string{
		"", "s.", "favicon.ico", strings.Repeat("a", 42), strings.Repeat("a", 44), strings.Repeat("=", 43),
		"s.s." + strings.Repeat("A", 43), strings.Repeat("A", 42) + "B", // trailing bits that no encoder writes
	} {
		require.False(t, name.ValidToken(junk), junk)
	}
}

func TestCluster(t *testing.T) {
	for _, c := range []struct {
		in   string
		want string
		tls  bool
		url  string
	}{
		{"c1.example.com", "c1.example.com", true, "https://sub.c1.example.com/T/"},
		{"C1.Example.com:443", "c1.example.com", true, "https://sub.c1.example.com/T/"},
		{"localhost:9090", "localhost:9090", false, "http://sub.localhost:9090/T/"},
		{"[::1]:9090", "[::1]:9090", false, "http://sub.[::1]:9090/T/"},
		{"127.0.0.1:80", "127.0.0.1:80", false, "http://sub.127.0.0.1:80/T/"},
	} {
		got, err := name.ParseCluster(c.in)
		require.NoError(t, err, c.in)
		require.Equal(t, c.want, got.String())
		require.Equal(t, c.tls, got.TLS())
		require.Equal(t, c.url, got.URL("sub", "T"))
	}
	for _, bad := range []string{"", ":80", "a b", "a:0", "a:65536", "a:-1", "a:x", "a..b", "-a", "a/b", "[::1", "[1.2.3.4]:80", "::1", strings.Repeat("a.", 130) + "a"} {
		_, err := name.ParseCluster(bad)
		require.Error(t, err, bad)
	}
}

func FuzzParseCluster(f *testing.F) {
	for _, s := range []string{"localhost:9090", "[::1]:1", "a.b.c", "A:443", "a:b:c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := name.ParseCluster(s)
		if err != nil {
			return
		}
		again, err := name.ParseCluster(c.String())
		require.NoError(t, err)
		require.Equal(t, c, again)
	})
}

func FuzzValidToken(f *testing.F) {
	f.Add(name.NewStaticToken(rand.New(rand.NewPCG(1, 2))))
	f.Add("../..")
	f.Fuzz(func(t *testing.T, s string) {
		if name.ValidToken(s) && strings.ContainsAny(s, "/?#%\x00 \"") {
			t.Errorf("token %q could change the meaning of a path", s)
		}
	})
}
