package route

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"plane/system/name"
)

func cluster(t testing.TB, s string) name.Cluster {
	c, err := name.ParseCluster(s)
	require.NoError(t, err)
	return c
}

func TestMatchHost(t *testing.T) {
	for _, c := range []struct {
		cluster, host string
		match         HostMatch
		label         string
	}{
		{"c.test", "", HostMissing, ""},
		{"c.test", "c.test", HostCluster, ""},
		{"c.test", "C.Test:443", HostCluster, ""},
		{"c.test", "c.test:80", HostForeign, ""},
		{"c.test", "c.test:", HostForeign, ""},
		{"c.test", "c.test:0443", HostCluster, ""},
		{"c.test", "test", HostForeign, ""},
		{"c.test", "xc.test", HostForeign, ""},
		{"c.test", ".c.test", HostForeign, ""},
		{"c.test", "c.test.", HostForeign, ""},
		{"c.test", "room.c.test", HostSub, "room"},
		{"c.test", "ROOM.C.TEST:443", HostSub, "room"},
		{"c.test", "a.room.c.test", HostForeign, ""},
		{"c.test", "ro_om.c.test", HostForeign, ""},
		{"c.test", "c.test/x", HostForeign, ""},
		{"c.test", "c.test@c.test", HostForeign, ""},
		{"localhost:9090", "localhost:9090", HostCluster, ""},
		{"localhost:9090", "room.localhost:9090", HostSub, "room"},
		{"localhost:9090", "localhost", HostForeign, ""},
		{"localhost:9090", "localhost:443", HostForeign, ""},
		{"[::1]:9090", "[::1]:9090", HostCluster, ""},
		{"[::1]", "[::1]", HostCluster, ""},
		{"[::1]", "[::1]:443", HostCluster, ""},
		{"[::1]", "[::2]", HostForeign, ""},
		{"[::1]", "::1", HostForeign, ""},
	} {
		match, label := MatchHost(c.host, cluster(t, c.cluster))
		require.Equal(t, c.match, match, "%s at %s", c.host, c.cluster)
		require.Equal(t, c.label, label, "%s at %s", c.host, c.cluster)
	}
}

func TestHostAllows(t *testing.T) {
	room, none := "Room", ""
	require.True(t, HostAllows(HostCluster, "", nil))
	require.True(t, HostAllows(HostCluster, "", &none))
	require.True(t, HostAllows(HostSub, "room", &room))
	require.False(t, HostAllows(HostCluster, "", &room))
	require.False(t, HostAllows(HostSub, "hall", &room))
	require.False(t, HostAllows(HostSub, "room", nil))
	require.False(t, HostAllows(HostForeign, "", nil))
	require.False(t, HostAllows(HostMissing, "", &none))
}

func FuzzHost(f *testing.F) {
	for _, s := range []string{"c.test", "room.c.test:443", "[::1]:443", "C.TEST.", "c.test:80", "a..c.test"} {
		f.Add(s)
	}
	own := cluster(f, "c.test")
	f.Fuzz(func(t *testing.T, host string) {
		bare := strings.ToLower(host)
		if i := strings.LastIndexByte(bare, ':'); i >= 0 {
			bare = bare[:i]
		}
		switch match, label := MatchHost(host, own); match {
		case HostCluster:
			if bare != "c.test" {
				t.Fatalf("%q passes for the cluster", host)
			}
		case HostSub:
			if bare != label+".c.test" || strings.Contains(label, ".") || name.ValidateSubdomain(label) != nil {
				t.Fatalf("%q passes for subdomain %q", host, label)
			}
		case HostMissing:
			if host != "" {
				t.Fatalf("%q is taken for nothing", host)
			}
		case HostForeign:
			if bare == "c.test" && !strings.Contains(host, ":") {
				t.Fatalf("%q is refused", host)
			}
		}
	})
}
