package main

import (
	"crypto/tls"
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"plane/adapters/tlsfiles/certtest"
)

// As with 0.5.x: without an authority, --cert-path is the certificate to serve.
func TestACertificateFileWithoutAnAuthorityIsServed(t *testing.T) {
	authority := certtest.New(t)
	pair := authority.Issue([]string{acmeCluster, "*." + acmeCluster})
	text, err := json.Marshal(map[string]string{"cert": string(pair.Certificate), "key": string(pair.Key)})
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "cert.json")
	require.NoError(t, os.WriteFile(file, text, 0o600))
	plain, encrypted := freePort(t), freePort(t)
	r := &acmeRig{T: t, settings: proxySettings{
		ControllerURL: "http://127.0.0.1:1", Cluster: acmeCluster, Host: "127.0.0.1",
		Serving: servingSettings{HTTPS: true, HTTPPort: &plain, HTTPSPort: &encrypted},
		ACME:    acmeSettings{CertPath: file},
	}}
	r.proxy()
	conn, err := tls.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(encrypted))), &tls.Config{
		RootCAs: authority.Pool(), ServerName: "x." + acmeCluster,
	})
	require.NoError(t, err)
	require.NoError(t, conn.Close())
	after, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, text, after)
	entries, err := os.ReadDir(filepath.Dir(file))
	require.NoError(t, err)
	require.Len(t, entries, 1, "it is only read")

	r.settings.Cluster = "else.test"
	_, err = prepareProxy(t.Context(), r.settings, slog.New(slog.DiscardHandler))
	require.ErrorContains(t, err, "the certificate is not for else.test")
}
