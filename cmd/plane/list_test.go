package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/backend"
	"plane/system/protocol"
)

// listServer has three backends, and serves them two a page whatever the limit.
func listServer(t *testing.T, asked *[]string) string {
	at := func(second int) protocol.Millis {
		return protocol.Millis{Time: time.Date(2026, 5, 4, 3, 2, second, 0, time.Local)}
	}
	failed, code := true, 137
	entries := []protocol.BackendEntry{
		{ID: "b1", Key: protocol.Key{Name: "board"}, Drone: "dr-1", CreatedAt: at(1), Address: "10.0.0.5:20001", StatusEntry: protocol.StatusEntry{Status: backend.Ready, Time: at(2)}},
		{ID: "b2", Key: protocol.Key{Name: "evil\x1b[2J", Namespace: "n", Tag: "v2"}, Drone: "dr-2", CreatedAt: at(3), StatusEntry: protocol.StatusEntry{
			Status: backend.Terminated, TerminationReason: backend.Swept, TerminationKind: backend.Hard, ExitError: &failed, ExitCode: &code, OOM: true, Time: at(4),
		}},
		{ID: "b3", Key: protocol.Key{Name: "k"}, Drone: "dr-1", CreatedAt: at(5), StatusEntry: protocol.StatusEntry{Status: backend.Scheduled, Time: at(5)}},
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*asked = append(*asked, r.URL.RequestURI())
		page := protocol.BackendsPage{Backends: entries[:2], Next: &entries[1].ID}
		if r.URL.Query().Get("after") == "b2" {
			page = protocol.BackendsPage{Backends: entries[2:]}
		}
		if r.URL.Query().Get("key") == "none" {
			page = protocol.BackendsPage{Backends: []protocol.BackendEntry{}}
		}
		if err := json.NewEncoder(w).Encode(page); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func TestList(t *testing.T) {
	const heading = "BACKEND  KEY                   STATUS      SINCE                CREATED              DRONE  ADDRESS         WHY\n"
	const first = heading +
		"b1       board                 ready       2026-05-04 03:02:02  2026-05-04 03:02:01  dr-1   10.0.0.5:20001  \n" +
		"b2       n/\"evil\\x1b[2J\" (v2)  terminated  2026-05-04 03:02:04  2026-05-04 03:02:03  dr-2                   idle or past its lifetime, hard termination, out of memory, exit code 137\n"
	for flags, want := range map[string]struct{ out, errs, asked string }{
		"": {first, "there are more: --after b2 has the next page, --all all of them\n", "limit=100&live=true"},
		"--after b2 --limit 7 --ended": {"BACKEND  KEY  STATUS     SINCE                CREATED              DRONE  ADDRESS  WHY\n" +
			"b3       k    scheduled  2026-05-04 03:02:05  2026-05-04 03:02:05  dr-1            \n", "", "after=b2&limit=7"},
		"--all": {first + "b3       k                     scheduled   2026-05-04 03:02:05  2026-05-04 03:02:05  dr-1                   \n", "", "limit=1000&live=true after=b2&limit=1000&live=true"},
		"--key none --status ready,waiting --status terminated --drone dr-1 --namespace=": {"no backends\n", "",
			"drone=dr-1&key=none&limit=100&namespace=&status=ready&status=waiting&status=terminated"},
	} {
		t.Run(flags, func(t *testing.T) {
			var asked []string
			line := "admin list --cluster a.test --controller " + listServer(t, &asked) + " " + flags
			var out, errs bytes.Buffer
			require.Zero(t, run(strings.Fields(line), &out, &errs), errs.String())
			require.Equal(t, want.out, out.String())
			require.Equal(t, want.errs, errs.String())
			require.Equal(t, want.asked, strings.ReplaceAll(strings.Join(asked, " "), "/ctrl/c/a.test/backends?", ""))
		})
	}
}

func TestListForPrograms(t *testing.T) {
	for flags, want := range map[string]string{"": "2 b2", "--all": "3 null"} {
		var asked []string
		line := "admin list --json --cluster a.test --controller " + listServer(t, &asked) + " " + flags
		var out, errs bytes.Buffer
		require.Zero(t, run(strings.Fields(line), &out, &errs), errs.String())
		require.Empty(t, errs.String())
		var page protocol.BackendsPage
		require.NoError(t, json.Unmarshal(out.Bytes(), &page))
		next := "null"
		if page.Next != nil {
			next = *page.Next
		}
		require.Equal(t, want, fmt.Sprint(len(page.Backends), " ", next))
	}
}
