package porttest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/port"
)

// CertStore holds an implementation of port.CertStore to its comments. open gives
// an empty store, and what opens it again after the process has ended; nil where
// nothing is left then.
func CertStore(t *testing.T, open func(t *testing.T) (port.CertStore, func() port.CertStore)) {
	t.Run("nothing is kept at first", func(t *testing.T) {
		s, _ := open(t)
		_, err := s.Load(t.Context())
		require.ErrorIs(t, err, port.ErrNotFound)
		_, err = s.Account(t.Context())
		require.ErrorIs(t, err, port.ErrNotFound)
		_, err = s.Pause(t.Context())
		require.ErrorIs(t, err, port.ErrNotFound)
	})
	t.Run("what was saved last is kept", func(t *testing.T) {
		s, reopen := open(t)
		first, second := NewCertificate(t, time.Hour, "a.example"), NewCertificate(t, 6*24*time.Hour, "a.example", "*.a.example")
		second.Terms = port.Terms{Directory: "https://ca.example/dir", KeyType: "rsa2048", Profile: "short"}
		for _, c := range []port.Certificate{first, first, second} {
			require.NoError(t, s.Save(t.Context(), c))
		}
		require.NoError(t, s.SaveAccount(t.Context(), port.Secret("one")))
		require.NoError(t, s.SaveAccount(t.Context(), port.Secret("two")))
		pause := port.Pause{Directory: "https://ca.example/dir", Since: second.NotBefore, Until: second.NotAfter}
		require.NoError(t, s.SavePause(t.Context(), port.Pause{Directory: "https://ca.example/dir"}))
		require.NoError(t, s.SavePause(t.Context(), pause))
		holds := func(s port.CertStore) {
			c, err := s.Load(t.Context())
			require.NoError(t, err)
			require.Equal(t, second, c)
			account, err := s.Account(t.Context())
			require.NoError(t, err)
			require.Equal(t, port.Secret("two"), account)
			kept, err := s.Pause(t.Context())
			require.NoError(t, err)
			require.Equal(t, pause, kept)
		}
		holds(s)
		if reopen != nil {
			holds(reopen())
		}
	})
}

// NewCertificate makes a certificate that it has signed itself, valid from now.
func NewCertificate(t *testing.T, life time.Duration, names ...string) port.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	from := time.Now().UTC().Truncate(time.Second)
	leaf := &x509.Certificate{SerialNumber: big.NewInt(from.UnixNano()), DNSNames: names, NotBefore: from, NotAfter: from.Add(life)}
	der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, key.Public(), key)
	require.NoError(t, err)
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	return port.Certificate{
		Chain: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:   pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}),
		Names: names, Life: port.Life{NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter},
	}
}
