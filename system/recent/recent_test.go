package recent_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/recent"
)

var epoch = time.UnixMilli(1_900_000_000_000)

func at(seconds int) time.Time { return epoch.Add(time.Duration(seconds) * time.Second) }

func TestTheLatestValueOfANameIsKept(t *testing.T) {
	table := recent.New[int](10, time.Minute)
	_, ok := table.Get("a", at(0))
	require.False(t, ok)
	table.Put("a", 1, at(0))
	table.Put("b", 2, at(1))
	table.Put("a", 3, at(2))
	kept, ok := table.Get("a", at(5))
	require.True(t, ok)
	require.Equal(t, recent.Kept[int]{Value: 3, At: at(2), Number: 3}, kept)
	require.Equal(t, 2, table.Len())
}

func TestWhatIsNotRenewedIsForgotten(t *testing.T) {
	table := recent.New[int](10, time.Minute)
	table.Put("a", 1, at(0))
	table.Put("b", 2, at(1))
	table.Put("a", 3, at(30))
	_, ok := table.Get("b", at(60))
	require.True(t, ok)
	_, ok = table.Get("b", at(61))
	require.False(t, ok, "too old, though nothing has taken it away yet")
	table.Put("c", 4, at(62))
	require.Equal(t, 2, table.Len(), "b is gone")
	_, ok = table.Get("a", at(62))
	require.True(t, ok)
}

func TestThereAreNeverMoreThanTheMost(t *testing.T) {
	table := recent.New[int](3, time.Hour)
	for i := range 100 {
		table.Put(fmt.Sprint(i), i, at(i))
		table.Put("0", 0, at(i))
		require.LessOrEqual(t, table.Len(), 3)
	}
	for name, want := range map[string]bool{"0": true, "99": true, "98": true, "97": false} {
		_, ok := table.Get(name, at(100))
		require.Equal(t, want, ok, name)
	}
}
