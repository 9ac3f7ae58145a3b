package postgres

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/postgres/pgtest"
	"plane/migrations"
)

// certificate makes a self-signed one for this machine, and its key.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "db"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	require.NoError(t, err)
	der2, err := x509.MarshalECPrivateKey(private)
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der2}))
}

func TestTheServerHasToProveWhoItIs(t *testing.T) {
	cert, key := certificate(t)
	other, _ := certificate(t)
	server := pgtest.Server(t, pgtest.Options{Certificate: cert, Key: key})
	plain := server.URL()
	require.NoError(t, Migrate(t.Context(), Config{URL: plain}))
	with := func(parameters string) Config {
		return Config{URL: strings.Replace(plain, "sslmode=disable", parameters, 1)}
	}
	s := openStore(t, with("sslmode=verify-full&sslrootcert="+write(t, cert)))
	var encrypted bool
	require.NoError(t, s.pool.QueryRow(t.Context(), "select ssl from pg_stat_ssl where pid = pg_backend_pid()").Scan(&encrypted))
	require.True(t, encrypted)
	listen(t, s)
	for _, parameters := range []string{
		"sslmode=verify-full", // by the machine's own roots
		"sslmode=verify-full&sslrootcert=" + write(t, other),
		"sslmode=verify-ca&sslrootcert=" + write(t, other),
	} {
		_, err := Open(t.Context(), with(parameters))
		require.ErrorContains(t, err, "certificate", parameters)
		require.NotErrorIs(t, err, migrations.ErrOlder)
	}
}
