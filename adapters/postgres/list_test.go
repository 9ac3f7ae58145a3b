package postgres_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
)

// A filter that few of those in a long history pass, or none, costs what it
// finds, and not a look at all of them.
func TestFiltersDoNotReadTheWholeHistory(t *testing.T) {
	const history = 20_000
	d := open(t)
	d.drone("dr-1")
	other := d.drone("dr-2")
	d.exec(`insert into plane.ended (id, namespace, name, tag, cluster, drone, made_at, ended, history)
		select 'b' || n, '', 'k' || n, '', 'c', 1, plane.wall(), now(), array[row(70, now(), '', 50, 'soft', 'external', 0, false, '')::plane.step]
		from generate_series(1, $1) n`, history)
	d.exec("update plane.ended set drone = $1, namespace = 'rare' where id = 'b19000'", int64(other))
	d.exec("vacuum analyze plane.ended")
	for filter, found := range map[string]int{
		"p_key => 'unknown'": 0, "p_key => 'k19000'": 1,
		"p_namespace => 'unknown'": 0, "p_namespace => 'rare'": 1, "p_namespace => ''": 100,
		"p_drone => 'dr-unknown'": 0, "p_drone => 'dr-2'": 1, "p_drone => 'dr-1'": 100,
		"p_drone => 'dr-1', p_namespace => 'rare'": 0,
	} {
		list := fmt.Sprintf("select count(*) from plane.backends(p_cluster => 'c', p_ended => true, %s)", filter)
		require.Equal(t, found, d.number(list), filter)
		var text []byte
		require.NoError(t, d.conn.QueryRow(t.Context(), "explain (analyze, buffers, format json) "+list).Scan(&text))
		var plan []struct {
			Plan struct {
				Hit  int `json:"Shared Hit Blocks"`
				Read int `json:"Shared Read Blocks"`
			}
		}
		require.NoError(t, json.Unmarshal(text, &plan))
		require.Less(t, plan[0].Plan.Hit+plan[0].Plan.Read, 600, filter)
	}
}
