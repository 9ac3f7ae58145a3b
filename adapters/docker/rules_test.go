package docker

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/stretchr/testify/require"

	"plane/system/port"
	"plane/system/protocol"
)

func TestRefusal(t *testing.T) {
	for text, want := range map[string]error{
		"driver failed programming external connectivity on endpoint plane-x (1f): Bind for 127.0.0.1:4000 failed: port is already allocated":                                         port.ErrPortTaken,
		"driver failed programming external connectivity on endpoint plane-x (1f): Error starting userland proxy: listen tcp4 127.0.0.1:4000: bind: address already in use":           port.ErrPortTaken,
		"failed to set up container networking: driver failed programming external connectivity: failed to bind host port 127.0.0.1:4000:172.17.0.2:8080/tcp: address already in use": port.ErrPortTaken,
		"--storage-opt is supported only for overlay over xfs with 'pquota' mount option":                                                                                             port.ErrBadExecutable,
		"invalid: exec: \"/no\": no such file or directory: unknown":                                                                                                                  nil,
		"i/o timeout": nil,
	} {
		err := refusal(fmt.Errorf("Error response from daemon: %s", text), "")
		require.ErrorContains(t, err, text)
		require.Equal(t, errors.Is(want, port.ErrPortTaken), isPortTaken(err), text)
		require.Equal(t, errors.Is(want, port.ErrBadExecutable), isBad(err), text)
	}
	require.True(t, isBad(refusal(fmt.Errorf("no such program: %w", errdefs.ErrInvalidArgument), "")))
	require.True(t, isBad(refusal(fmt.Errorf("network x not found: %w", errdefs.ErrNotFound), "x")))
	require.False(t, isBad(refusal(fmt.Errorf("No such image: %w", errdefs.ErrNotFound), "x")), "it may be pulled again")
}

func isBad(err error) bool       { return errors.Is(err, port.ErrBadExecutable) }
func isPortTaken(err error) bool { return errors.Is(err, port.ErrPortTaken) }

func TestMeasuredUnderBothCgroupVersions(t *testing.T) {
	want := port.Stats{
		MemUsed: 700, MemTotal: 1000, MemActive: 110, MemInactive: 330, MemUnevictable: 5, MemLimit: 5000,
		CPU: 3 * time.Second, SystemCPU: 9 * time.Second,
	}
	for version, stats := range map[string]string{
		"v1": `{"active_file":1,"total_active_anon":100,"total_active_file":10,"total_inactive_anon":30,"total_inactive_file":300,"total_unevictable":5}`,
		"v2": `{"active_anon":100,"active_file":10,"inactive_anon":30,"inactive_file":300,"unevictable":5}`,
	} {
		var s container.StatsResponse
		require.NoError(t, json.Unmarshal([]byte(`{"cpu_stats":{"cpu_usage":{"total_usage":3000000000},"system_cpu_usage":9000000000},
			"memory_stats":{"usage":1000,"limit":5000,"stats":`+stats+`}}`), &s))
		require.Equal(t, want, measured(s), version)
	}
}

// Shortfalls 4 and 19: a mount is under the mount base, or the spawn fails with
// the reason; it is never left out.
func TestMountsThatCannotBeGivenAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ base, key, mount, want string }{
		"no mount base":                      {"", "board", `true`, "mount base"},
		"no mount base, path given":          {"", "board", `"data"`, "mount base"},
		"key that leaves the base":           {"/srv/plane", "../../etc", `true`, "../../etc"},
		"path that leaves the base":          {"/srv/plane", "board", `"../other"`, "../other"},
		"absolute key":                       {"/srv/plane", "/etc", `true`, "/etc"},
		"key that names the base, not in it": {"/srv/plane", ".", `true`, "stay under the mount base"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Runtime{cfg: Config{MountBase: c.base}}
			spec := port.ContainerSpec{
				BackendID: "b", Executable: json.RawMessage(`{"image":"board","mount":` + c.mount + `}`),
				Key: protocol.Key{Name: c.key},
			}
			err := r.Validate(spec)
			require.ErrorIs(t, err, port.ErrBadExecutable)
			require.ErrorContains(t, err, c.want)
		})
	}
	r := &Runtime{cfg: Config{MountBase: "/srv/plane"}}
	_, dir, err := r.parse(port.ContainerSpec{Executable: json.RawMessage(`{"image":"board","mount":true}`), Key: protocol.Key{Name: "board"}})
	require.NoError(t, err)
	require.Equal(t, "/srv/plane/board", dir)
}
