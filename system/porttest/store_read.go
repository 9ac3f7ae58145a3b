package porttest

import (
	"fmt"

	"github.com/stretchr/testify/require"

	"plane/system/backend"
	"plane/system/port"
)

var readTests = []storeTest{
	{name: "it answers", run: func(s *store) { s.ok(s.Store.Health(s.Context())) }},
	{name: "a cluster's backends come in pages, in order of name", run: func(s *store) {
		s.drone("dr-1")
		for i, id := range []string{"d", "b", "e", "a", "c"} {
			s.connect(s.spawn(fmt.Sprint("k", i), id))
		}
		page := func(cluster, after string, limit int) []string {
			backends, err := s.Store.Backends(s.Context(), port.BackendQuery{Cluster: cluster, After: after, Limit: limit})
			s.ok(err)
			ids := []string{}
			for _, b := range backends {
				one, err := s.Store.Backend(s.Context(), b.ID)
				s.ok(err)
				require.Equal(s, one, b)
				ids = append(ids, b.ID)
			}
			return ids
		}
		require.Equal(s, []string{"a", "b"}, page(cluster, "", 2))
		require.Equal(s, []string{"c", "d"}, page(cluster, "b", 2))
		require.Equal(s, []string{"e"}, page(cluster, "d", 2))
		require.Empty(s, page(cluster, "e", 2))
		require.Equal(s, []string{"c", "d", "e"}, page(cluster, "bb", 10), "after a name that is gone")
		require.Empty(s, page("other", "", 10))
	}},
	{name: "the statuses of many backends at once", run: func(s *store) {
		d := s.ready("b")
		s.connect(s.spawn("k2", "b2"))
		s.connect(s.spawn("k3", "b3"))
		s.to(d, "b3", backend.Terminated)
		statuses, err := s.Store.Statuses(s.Context(), []string{"b2", "unknown", "b", "b3", "b2", "\x00"})
		s.ok(err)
		require.Equal(s, []backend.Status{
			backend.Scheduled, backend.Terminated, backend.Ready, backend.Terminated, backend.Scheduled, backend.Terminated,
		}, statuses)
		statuses, err = s.Store.Statuses(s.Context(), nil)
		s.ok(err)
		require.Empty(s, statuses)
	}},
	{name: "an unknown backend", run: func(s *store) {
		_, err := s.Store.Backend(s.Context(), "unknown")
		require.ErrorIs(s, err, port.ErrNotFound)
	}},
}
