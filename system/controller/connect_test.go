package controller_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/backend"
	"plane/system/protocol"
)

func TestConnectRefusesWithTheRightKind(t *testing.T) {
	for _, c := range []struct {
		name, body string
		kind       protocol.ErrorKind
		says       string
	}{
		{"nothing holds the key", `{"key":{"name":"k"}}`, protocol.KeyUnheldNoSpawnConfig, "spawn_config"},
		{"no key and nothing to spawn", `{}`, protocol.KeyUnheldNoSpawnConfig, "spawn_config"},
		{"key without a name", `{"key":{"name":""}}`, protocol.InvalidRequest, "key.name"},
		{"key too long", `{"key":{"name":"` + strings.Repeat("x", 2000) + `"}}`, protocol.InvalidRequest, "key.name: 2000 bytes"},
		{"G8: user too long to be revoked", `{"key":{"name":"k"},"user":"` + strings.Repeat("x", 1025) + `"}`, protocol.InvalidRequest, "user: 1025 bytes"},
		{"user as long as allowed", `{"key":{"name":"k"},"user":"` + strings.Repeat("x", 1024) + `"}`, protocol.KeyUnheldNoSpawnConfig, ""},
		{"bad cluster", `{"spawn_config":{"cluster":"a b","executable":{}}}`, protocol.InvalidClusterName, "a b"},
		{"bad id", `{"spawn_config":{"id":"../x","executable":{}}}`, protocol.InvalidRequest, "spawn_config.id"},
		{"bad subdomain", `{"spawn_config":{"subdomain":"-x","executable":{}}}`, protocol.InvalidRequest, "spawn_config.subdomain"},
		{"no executable", `{"spawn_config":{}}`, protocol.InvalidRequest, "spawn_config.executable"},
		{"executable is no object", `{"spawn_config":{"executable":"ls"}}`, protocol.InvalidRequest, "spawn_config.executable"},
		{"asks for less than nothing", `{"spawn_config":{"executable":{"resource_limits":{"memory_limit_bytes":-1}}}}`, protocol.InvalidRequest, "spawn_config.executable: resource_limits: memory_limit_bytes: want"},
		{"asks for half a percent", `{"spawn_config":{"executable":{"resource_limits":{"cpu_period_percent":0.5}}}}`, protocol.InvalidRequest, "resource_limits: cpu_period_percent"},
		{"negative idle", `{"spawn_config":{"executable":{},"max_idle_seconds":-1}}`, protocol.InvalidRequest, "max_idle_seconds: -1"},
		{"endless lifetime", `{"spawn_config":{"executable":{},"lifetime_limit_seconds":9223372036854775807}}`, protocol.InvalidRequest, "lifetime_limit_seconds"},
		{"auth is no object", `{"key":{"name":"k"},"auth":[1]}`, protocol.InvalidRequest, "auth"},
		{"shortfall 19: user with a static token", `{"user":"u","spawn_config":{"executable":{},"use_static_token":true}}`, protocol.InvalidRequest, "use_static_token"},
		{"shortfall 19: auth with a static token", `{"auth":{},"spawn_config":{"executable":{},"use_static_token":true}}`, protocol.InvalidRequest, "use_static_token"},
		{"no drone", `{"spawn_config":{"executable":{},"pool":"gpu"}}`, protocol.NoDroneAvailable, "no drone is connected in cluster localhost:9090, pool gpu"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inBubble(t, everyHint, func(r *rig) {
				before := r.clock.Now()
				_, err := r.Connect(r.Context(), request(r.T, c.body))
				var refused *protocol.APIError
				require.ErrorAs(t, err, &refused)
				require.Equal(t, c.kind, refused.Kind)
				require.Contains(t, refused.Message, c.says)
				require.Equal(t, before, r.clock.Now(), "at once")
			})
		})
	}
}

func TestRevokeRefusesAUserThatNobodyCanBe(t *testing.T) {
	for says, user := range map[string]string{"user: is missing": "", "user: 3000 bytes": strings.Repeat("x", 3000)} {
		inBubble(t, everyHint, func(r *rig) {
			err := r.Revoke(r.Context(), protocol.RevokeRequest{BackendID: "b", User: user})
			var refused *protocol.APIError
			require.ErrorAs(t, err, &refused)
			require.Equal(t, protocol.InvalidRequest, refused.Kind)
			require.Contains(t, refused.Message, says)
		})
	}
}

func TestABackendGetsWhatItAsksForOrAReason(t *testing.T) {
	inBubble(t, everyHint, func(r *rig) {
		r.droneWith("dr-1", &protocol.Capacity{MaxBackends: 3, MilliCPUs: 4000, MemoryBytes: 8 << 30})
		r.proxy("px-1")
		asking := func(limits string) error {
			_, err := r.Connect(r.Context(), request(r.T, `{"spawn_config":{"executable":{"resource_limits":`+limits+`}}}`))
			return err
		}
		const place = "NoDroneAvailable: no drone in cluster " + cluster + ", the default pool has room: "
		require.NoError(t, asking(`{"cpu_period_percent":250}`))
		require.EqualError(t, asking(`{"cpu_period_percent":200,"memory_limit_bytes":4294967296}`),
			place+"asked for 2 CPUs and 4 GiB; dr-1 has 1.5 CPUs and 8 GiB free")
		require.NoError(t, asking(`{"memory_limit_bytes":8589934592}`))
		require.NoError(t, asking(`null`))
		require.EqualError(t, asking(`null`), place+"dr-1 is full (3 of 3 backends)")
		state, err := r.ClusterState(r.Context(), cluster)
		require.NoError(t, err)
		require.Equal(t, protocol.Resources{MilliCPUs: 2500, MemoryBytes: 8 << 30}, state.Drones[0].Promised)
	})
}

func TestABurstForOneKeyGivesOneBackend(t *testing.T) {
	inBubble(t, everyHint, func(r *rig) {
		r.drone("dr-1")
		answers := make(chan protocol.ConnectResponse, 100)
		for range cap(answers) {
			go func() {
				a, err := r.Connect(r.Context(), request(r.T, spawnBoard))
				if err == nil {
					answers <- a
				}
			}()
		}
		synctest.Wait()
		close(answers)
		ids, spawned, tokens := map[string]bool{}, 0, map[string]bool{}
		for a := range answers {
			ids[a.BackendID], tokens[a.Token] = true, true
			if a.Spawned {
				spawned++
				require.Equal(t, "dr-1", *a.Drone)
			}
		}
		require.Len(t, ids, 1)
		require.Equal(t, 1, spawned)
		require.Len(t, tokens, 100, "each connection has its own token")
	})
}

func TestTheAnswerToAConnect(t *testing.T) {
	inBubble(t, everyHint, func(r *rig) {
		r.drone("dr-1")
		a := r.connect(`{"key":{"name":"k"},"spawn_config":{"id":"my-board","subdomain":"sub","executable":{}}}`)
		require.Equal(t, "my-board", a.BackendID)
		require.Equal(t, backend.Scheduled, a.Status)
		require.Equal(t, "http://sub.localhost:9090/"+a.Token+"/", a.URL)
		require.Equal(t, "http://ctl/pub/b/my-board/status", a.StatusURL)
		require.NotNil(t, a.SecretToken)

		s := r.connect(`{"key":{"name":"static"},"spawn_config":{"executable":{},"use_static_token":true}}`)
		require.True(t, strings.HasPrefix(s.Token, "s."))
		require.Nil(t, s.SecretToken)
		again := r.connect(`{"key":{"name":"static"}}`)
		require.Equal(t, s.Token, again.Token)
		_, err := r.Connect(r.Context(), request(r.T, `{"key":{"name":"static"},"user":"u"}`))
		require.ErrorContains(t, err, "static token", "shortfall 19: also when the static backend is there already")
	})
}

// G12: the store has committed, but the controller sees an error.
func TestConnectAfterALostAnswerGivesTheSameBackend(t *testing.T) {
	inBubble(t, everyHint, func(r *rig) {
		d := r.drone("dr-1")
		r.store.connects.Store(2)
		a := r.connect(spawnBoard)
		require.True(t, a.Spawned)
		require.Len(t, toDrone[protocol.Action](d), 1)
		require.Equal(t, a.BackendID, r.connect(spawnBoard).BackendID)
	})
}

func TestConnectSaysSoWhenTheStoreDoesNotAnswer(t *testing.T) {
	inBubble(t, everyHint, func(r *rig) {
		r.drone("dr-1")
		r.store.connects.Store(100)
		_, err := r.Connect(r.Context(), request(r.T, spawnBoard))
		var refused *protocol.APIError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, protocol.DatabaseError, refused.Kind)
		require.NotContains(t, refused.Message, errUnclear.Error(), "what the store says is for the log")
		require.ErrorIs(t, err, errUnclear)
	})
}

func TestConnectWaitsForAHolderThatIsEnding(t *testing.T) {
	for name, after := range map[string]time.Duration{"it ends in time": 3 * time.Second, "it does not": time.Minute} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, everyHint, func(r *rig) {
				d := r.drone("dr-1")
				first := r.connect(spawnBoard)
				d.report(first.BackendID, ready)
				d.report(first.BackendID, backend.State{Status: backend.Terminating, Last: backend.Ready, Termination: backend.Soft, Reason: backend.External})
				time.AfterFunc(after, func() {
					d.in <- protocol.EncodeFromDrone(protocol.BackendEvent{EventID: 9, BackendID: first.BackendID, State: protocol.State(terminated(backend.External)), Timestamp: protocol.Millis{Time: r.clock.Now()}})
				})
				began := r.clock.Now()
				second, err := r.Connect(r.Context(), request(r.T, spawnBoard))
				if after > 5*time.Second {
					var refused *protocol.APIError
					require.ErrorAs(t, err, &refused)
					require.Equal(t, protocol.KeyHeldUnhealthy, refused.Kind)
					require.Equal(t, 5*time.Second, r.clock.Now().Sub(began))
					return
				}
				require.NoError(t, err)
				require.NotEqual(t, first.BackendID, second.BackendID)
				require.Equal(t, after, r.clock.Now().Sub(began), "as soon as the key is free (G11)")
			})
		})
	}
}

// The end of a holder is heard of at whatever moment it comes, also while the
// store is asked about it.
func TestConnectHearsOfAnEndThatComesWhileItLooks(t *testing.T) {
	for look, want := range []time.Duration{0, 0, time.Second, 2 * time.Second} {
		t.Run(fmt.Sprint("during look ", look+1), func(t *testing.T) {
			inBubble(t, everyHint, func(r *rig) {
				d := r.drone("dr-1")
				first := r.connect(spawnBoard)
				d.report(first.BackendID, ready)
				d.report(first.BackendID, backend.State{Status: backend.Terminating, Last: backend.Ready, Termination: backend.Soft, Reason: backend.External})
				r.store.looks.Store(0)
				r.store.looked = func(n int32) {
					if int(n) == look+1 {
						d.report(first.BackendID, terminated(backend.External))
					}
				}
				began := r.clock.Now()
				second, err := r.Connect(r.Context(), request(r.T, spawnBoard))
				require.NoError(t, err)
				require.NotEqual(t, first.BackendID, second.BackendID)
				require.Equal(t, want, r.clock.Now().Sub(began), "as soon as the key is free (G11)")
			})
		})
	}
}
