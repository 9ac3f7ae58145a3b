package controller_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/backend"
	"plane/system/protocol"
)

func TestBackendsAreListedPageByPage(t *testing.T) {
	inBubble(t, everyHint, func(r *rig) {
		d := r.drone("dr-1")
		r.proxy("px-1")
		for i := range 5 {
			r.connect(fmt.Sprintf(`{"key":{"name":"k%d","namespace":"n","tag":"v"},"spawn_config":{"id":"b%d","executable":{}}}`, i, i))
		}
		created := r.clock.Now()
		pass(time.Second)
		failed, code := true, 3
		end := terminated(backend.External)
		end.ExitCode, end.Message = &code, "segmentation fault"
		d.report("b1", ready)
		d.report("b3", end)

		var pages [][]string
		req := protocol.BackendsRequest{Limit: 2}
		for {
			page, err := r.Backends(r.Context(), cluster, req)
			require.NoError(t, err)
			var ids []string
			for _, b := range page.Backends {
				ids = append(ids, b.ID+" "+b.Status.String())
			}
			pages = append(pages, ids)
			if page.Next == nil {
				break
			}
			req.After = *page.Next
		}
		require.Equal(t, [][]string{{"b0 scheduled", "b1 ready"}, {"b2 scheduled", "b3 terminated"}, {"b4 scheduled"}}, pages)

		req = protocol.BackendsRequest{Limit: 2, Statuses: []backend.Status{backend.Ready, backend.Terminated}}
		page, err := r.Backends(r.Context(), "LOCALHOST:9090", req)
		require.NoError(t, err)
		require.Nil(t, page.Next, "a page that is just full is the last one")
		now := protocol.Millis{Time: time.UnixMilli(r.clock.Now().UnixMilli())}
		of := func(i int, address string, e protocol.StatusEntry) protocol.BackendEntry {
			key := protocol.Key{Name: fmt.Sprint("k", i), Namespace: "n", Tag: "v"}
			return protocol.BackendEntry{ID: fmt.Sprint("b", i), Key: key, Drone: "dr-1", CreatedAt: protocol.Millis{Time: created}, Address: address, StatusEntry: e}
		}
		require.Equal(t, []protocol.BackendEntry{
			of(1, "127.0.0.1:8000", protocol.StatusEntry{Status: backend.Ready, Time: now}),
			of(3, "", protocol.StatusEntry{
				Status: backend.Terminated, TerminationReason: backend.External, TerminationKind: backend.Soft,
				ExitError: &failed, Time: now, ExitCode: &code, Message: "segmentation fault",
			}),
		}, page.Backends)

		page, err = r.Backends(r.Context(), "other.test", protocol.BackendsRequest{Limit: 1})
		require.NoError(t, err)
		require.Equal(t, protocol.BackendsPage{Backends: []protocol.BackendEntry{}}, page)
	})
}

func TestAListIsRefusedByTheNameOfTheParameter(t *testing.T) {
	inBubble(t, everyHint, func(r *rig) {
		for says, ask := range map[string]struct {
			cluster string
			req     protocol.BackendsRequest
		}{
			`InvalidClusterName: `:         {"a b", protocol.BackendsRequest{Limit: 1}},
			`InvalidRequest: limit: 0 is`:  {cluster, protocol.BackendsRequest{}},
			`InvalidRequest: limit: 1001 `: {cluster, protocol.BackendsRequest{Limit: 1001}},
			`InvalidRequest: after: `:      {cluster, protocol.BackendsRequest{Limit: 1, After: "../x"}},
			`InvalidRequest: drone: `:      {cluster, protocol.BackendsRequest{Limit: 1, Drone: "px-1"}},
		} {
			_, err := r.Backends(r.Context(), ask.cluster, ask.req)
			require.ErrorContains(t, err, says)
		}
	})
}
