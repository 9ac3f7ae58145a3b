package porttest

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"plane/system/backend"
	"plane/system/placement"
	"plane/system/port"
)

// listed asks for the names of what passes, in pages of two.
func (s *store) listed(q port.BackendQuery) []string {
	s.Helper()
	q.Cluster, q.Limit = cluster, 2
	ids := []string{}
	for {
		page, err := s.Store.Backends(s.Context(), q)
		s.ok(err)
		require.LessOrEqual(s, len(page), 2)
		for _, b := range page {
			ids = append(ids, b.ID)
		}
		if len(page) < 2 {
			return ids
		}
		q.After = page[1].ID
	}
}

var listTests = []storeTest{
	{name: "a list passes its filters", run: filters},
}

// filters makes backends b0 to b7 on two drones: those from b4 on of namespace n,
// b0 and b4 of key "k", b1 ready, b2 terminating and b3 terminated.
func filters(s *store) {
	drones := map[string]port.NodeID{}
	for _, name := range []string{"dr-0", "dr-1"} {
		drones[name] = s.droneWith(name, placement.Capacity{MaxBackends: 4})
	}
	homes := map[string]string{}
	for i := range 8 {
		p := s.spawn(fmt.Sprint("k", i), fmt.Sprint("b", i))
		if i%4 == 0 {
			p.Key.Name = "k"
		}
		if i >= 4 {
			p.Key.Namespace = "n"
		}
		homes[p.Spawn.BackendID] = s.connect(p).Drone
	}
	s.to(drones[homes["b1"]], "b1", backend.Ready)
	s.to(drones[homes["b2"]], "b2", backend.Terminating)
	s.to(drones[homes["b3"]], "b3", backend.Terminated)
	on := func(drone string) []string {
		ids := []string{}
		for i := range 8 {
			if id := fmt.Sprint("b", i); homes[id] == drone {
				ids = append(ids, id)
			}
		}
		return ids
	}
	none, n := "", "n"
	for name, test := range map[string]struct {
		q    port.BackendQuery
		want []string
	}{
		"all":                    {port.BackendQuery{}, []string{"b0", "b1", "b2", "b3", "b4", "b5", "b6", "b7"}},
		"live":                   {port.BackendQuery{Live: true}, []string{"b0", "b1", "b2", "b4", "b5", "b6", "b7"}},
		"a status":               {port.BackendQuery{Statuses: []backend.Status{backend.Ready}}, []string{"b1"}},
		"some statuses":          {port.BackendQuery{Statuses: []backend.Status{backend.Terminated, backend.Terminating, backend.Ready}}, []string{"b1", "b2", "b3"}},
		"a status, live":         {port.BackendQuery{Statuses: []backend.Status{backend.Terminated, backend.Ready}, Live: true}, []string{"b1"}},
		"a drone":                {port.BackendQuery{Drone: "dr-0"}, on("dr-0")},
		"the other drone":        {port.BackendQuery{Drone: "dr-1"}, on("dr-1")},
		"an unknown drone":       {port.BackendQuery{Drone: "dr-9"}, []string{}},
		"a key, any namespace":   {port.BackendQuery{Key: "k"}, []string{"b0", "b4"}},
		"a key of a namespace":   {port.BackendQuery{Key: "k", Namespace: &n}, []string{"b4"}},
		"a key of no namespace":  {port.BackendQuery{Key: "k", Namespace: &none}, []string{"b0"}},
		"a namespace":            {port.BackendQuery{Namespace: &n}, []string{"b4", "b5", "b6", "b7"}},
		"a namespace after some": {port.BackendQuery{Namespace: &n, After: "b5"}, []string{"b6", "b7"}},
		"nothing passes":         {port.BackendQuery{Namespace: &n, Statuses: []backend.Status{backend.Ready}}, []string{}},
	} {
		s.Run(name, func(t *testing.T) {
			sub := *s
			sub.T = t
			require.Equal(t, test.want, sub.listed(test.q))
		})
	}
}
