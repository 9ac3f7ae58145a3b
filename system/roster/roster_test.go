package roster_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"plane/system/roster"
)

func TestANameIsGivenOnce(t *testing.T) {
	var r roster.Roster[int]
	got, added := r.Add("b", 1)
	require.True(t, added)
	require.Equal(t, 1, got)

	got, added = r.Add("b", 2)
	require.False(t, added)
	require.Equal(t, 1, got)

	r.Remove("b")
	r.Remove("b")
	_, found := r.Get("b")
	require.False(t, found)
}

func TestAllComesInOrderOfName(t *testing.T) {
	var r roster.Roster[string]
	require.Empty(t, r.All())
	for _, n := range []string{"c", "a", "b"} {
		r.Add(n, n)
	}
	require.Equal(t, []string{"a", "b", "c"}, r.All())
}
