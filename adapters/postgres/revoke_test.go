package postgres_test

import (
	"crypto/rand"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"plane/system/port"
)

// G8: whoever can connect can be revoked: users of the length that controllers
// allow, of which nothing can be compressed, or each byte takes two.
func TestLongUsersCanBeRevoked(t *testing.T) {
	random := make([]byte, 512)
	_, err := rand.Read(random)
	require.NoError(t, err)
	d := open(t)
	d.drone("dr-1")
	for _, user := range []string{hex.EncodeToString(random), strings.Repeat("\x00\x01", 512)} {
		p := spawning("k", strings.Repeat("b", 45))
		p.User, p.Token = &user, hex.EncodeToString([]byte(user[:5]))
		_, err := d.Connect(t.Context(), p)
		require.NoError(t, err)
		require.NoError(t, d.Revoke(t.Context(), p.Spawn.BackendID, user))
		_, err = d.RouteToken(t.Context(), p.Token)
		require.ErrorIs(t, err, port.ErrNotFound)
	}
}
