package mount_test

import (
	"path"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"plane/system/mount"
)

func TestPath(t *testing.T) {
	rel := func(s string) *string { return &s }
	for _, test := range []struct {
		name, base, key string
		rel             *string
		want            string // empty: refused
		wantErr         string
	}{
		{name: "named after the key", base: "/data", key: "room-1", want: "/data/room-1"},
		{name: "a path instead of the key", base: "/data", key: "room-1", rel: rel("shared/all"), want: "/data/shared/all"},
		{name: "a base that ends with a slash", base: "/data/", key: "k", want: "/data/k"},
		{name: "the root as base", base: "/", key: "k", want: "/k"},
		{name: "a key with slashes", base: "/data", key: "org/doc", want: "/data/org/doc"},
		{name: "spaces, dots and colons are plain characters", base: "/data", key: "a b:c...d", want: "/data/a b:c...d"},
		{name: "three dots are a name", base: "/data", key: "...", want: "/data/..."},
		{name: "other scripts", base: "/data", key: "größe/部屋", want: "/data/größe/部屋"},
		{name: "the longest component", base: "/data", key: strings.Repeat("x", 255), want: "/data/" + strings.Repeat("x", 255)},

		{name: "no mount base", base: "", key: "k", wantErr: "--mount-base"},
		{name: "a relative base", base: "data", key: "k", wantErr: "not an absolute path"},
		{name: "a key that leaves the base", base: "/data", key: "../../etc", wantErr: "under the mount base"},
		{name: "a key that leaves and comes back", base: "/data", key: "../data/k", wantErr: "under the mount base"},
		{name: "a key that leaves in the middle", base: "/data", key: "a/../../etc", wantErr: "under the mount base"},
		{name: "a key that leaves at its end", base: "/data", key: "a/..", wantErr: "under the mount base"},
		{name: "the base itself", base: "/data", key: ".", wantErr: "under the mount base"},
		{name: "a dot in the middle", base: "/data", key: "a/./b", wantErr: "under the mount base"},
		{name: "an absolute key", base: "/data", key: "/etc/passwd", wantErr: "absolute"},
		{name: "an empty key", base: "/data", key: "", wantErr: "empty"},
		{name: "an empty path", base: "/data", key: "k", rel: rel(""), wantErr: "empty"},
		{name: "a path that leaves the base", base: "/data", key: "k", rel: rel("../x"), wantErr: "under the mount base"},
		{name: "an absolute path", base: "/data", key: "k", rel: rel("/data/x"), wantErr: "absolute"},
		{name: "a double slash", base: "/data", key: "a//b", wantErr: "empty component"},
		{name: "a slash at the end", base: "/data", key: "a/", wantErr: "empty component"},
		{name: "NUL", base: "/data", key: "a\x00/../../etc", wantErr: "NUL"},
		{name: "not UTF-8", base: "/data", key: "a\xff", wantErr: "UTF-8"},
		{name: "too long a component", base: "/data", key: strings.Repeat("x", 256), wantErr: "256 bytes"},
		{name: "too long a path", base: "/data", key: strings.Repeat("x/", 2100) + "x", wantErr: "too long"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := mount.Path(test.base, test.key, test.rel)
			if test.wantErr != "" {
				require.ErrorContains(t, err, test.wantErr)
				require.Empty(t, got)
				return
			}
			require.NoError(t, err)
			require.Equal(t, test.want, got)
		})
	}
}

func TestNoBaseHasItsOwnError(t *testing.T) {
	_, err := mount.Path("", "k", nil)
	require.ErrorIs(t, err, mount.ErrNoBase)
}

func FuzzPath(f *testing.F) {
	for _, s := range []string{"k", "../../etc", "/etc", "a/b", "a/../b", ".", "", "a\x00b", "a//b", "...", "..\\x"} {
		f.Add("/data/plane", s, true)
		f.Add("/", s, false)
	}
	f.Fuzz(func(t *testing.T, base, name string, byKey bool) {
		key, rel := name, (*string)(nil)
		if !byKey {
			key, rel = "key", &name
		}
		got, err := mount.Path(base, key, rel)
		if err != nil {
			return
		}
		if got != path.Clean(got) || !path.IsAbs(got) || strings.ContainsRune(got, 0) {
			t.Fatalf("%q is no clean absolute path", got)
		}
		under := strings.TrimSuffix(path.Clean(base), "/") + "/"
		below, ok := strings.CutPrefix(got, under)
		if !ok || below != name {
			t.Fatalf("Path(%q, %q) = %q is not the name under the base", base, name, got)
		}
	})
}
