package certstore_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/certstore"
	"plane/system/port"
	"plane/system/porttest"
)

func open(t *testing.T, path string) *certstore.Store {
	t.Helper()
	s, err := certstore.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() }) // some tests close it themselves
	return s
}

func TestFiles(t *testing.T) {
	porttest.CertStore(t, func(t *testing.T) (port.CertStore, func() port.CertStore) {
		path := filepath.Join(t.TempDir(), "cert.json")
		s := open(t, path)
		return s, func() port.CertStore {
			require.NoError(t, s.Close())
			return open(t, path)
		}
	})
}

func TestMemory(t *testing.T) {
	porttest.CertStore(t, func(*testing.T) (port.CertStore, func() port.CertStore) { return &certstore.Memory{}, nil })
}

// The form is that of 0.5.x; nobody else may read the files (G15).
func TestTheFilesAreAsPlane05HasThemAndClosedToOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cert.json")
	s := open(t, path)
	c := porttest.NewCertificate(t, time.Hour, "a.example")
	require.NoError(t, s.Save(t.Context(), c))
	require.NoError(t, s.SaveAccount(t.Context(), port.Secret("secret")))
	require.NoError(t, s.SavePause(t.Context(), port.Pause{}))
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	var form map[string]string
	require.NoError(t, json.Unmarshal(text, &form))
	want := map[string]string{"cert": string(c.Chain), "key": string(c.Key)}
	require.Equal(t, want, form)
	c.Terms = port.Terms{Directory: "https://ca.example/dir", KeyType: "ec256", Profile: "short"}
	require.NoError(t, s.Save(t.Context(), c))
	text, err = os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &form))
	want["acme_endpoint"], want["acme_key_type"], want["acme_profile"] = "https://ca.example/dir", "ec256", "short"
	require.Equal(t, want, form, "what 0.5.x reads is as before")
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 4)
	for _, e := range entries {
		info, err := e.Info()
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), e.Name())
	}

	require.NoError(t, os.Chmod(path, 0o644))
	_, err = s.Load(t.Context())
	require.NoError(t, err)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm(), "one that was open to others is closed")
}

func TestABrokenFileIsTold(t *testing.T) {
	good := porttest.NewCertificate(t, time.Hour, "a.example")
	other := porttest.NewCertificate(t, time.Hour, "a.example")
	form := func(cert, key []byte) string {
		text, err := json.Marshal(map[string]string{"cert": string(cert), "key": string(key)})
		require.NoError(t, err)
		return string(text)
	}
	for name, text := range map[string]string{
		"empty":                "",
		"not JSON":             "-----BEGIN CERTIFICATE-----",
		"nothing in it":        "{}",
		"no key":               form(good.Chain, nil),
		"another key":          form(good.Chain, other.Key),
		"half a chain":         form(good.Chain[:100], good.Key),
		"written half":         form(good.Chain, good.Key)[:300],
		"cert is not a string": `{"cert":1,"key":2}`,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "cert.json")
			require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
			_, err := open(t, path).Load(t.Context())
			require.ErrorIs(t, err, port.ErrBroken)
			require.ErrorContains(t, err, path)
			require.NotContains(t, err.Error(), "PRIVATE KEY-----")
		})
	}
}

// G15: a crash while a file is written leaves no private key behind for good.
func TestWhatACrashHasLeftIsRemoved(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "cert.json")
	others := []string{".cert.json.old", ".cert.json.", "cert.json.1", ".cert.jsonx.1", ".other.json.1"}
	for _, name := range append([]string{".cert.json.123", ".cert.json.account.45", ".cert.json.pause.6"}, others...) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("a key"), 0o600))
	}
	open(t, path)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	require.ElementsMatch(t, append(others, "cert.json.lock"), left)
}

func TestABrokenPauseIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cert.json")
	require.NoError(t, os.WriteFile(path+".pause", []byte(`{"until":"tomorrow"}`), 0o600))
	_, err := open(t, path).Pause(t.Context())
	require.ErrorIs(t, err, port.ErrBroken)
}

func TestTwoProxiesCannotShareAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cert.json")
	s := open(t, path)
	_, err := certstore.Open(path)
	require.ErrorContains(t, err, "another proxy uses it")
	require.NoError(t, s.Close())
	open(t, path)
}

// G15.
func TestAPrintedCertificateShowsNoKey(t *testing.T) {
	c := porttest.NewCertificate(t, time.Hour, "a.example")
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		require.NotContains(t, fmt.Sprintf(verb, c.Key), string(c.Key[40:60]), verb)
		require.Contains(t, fmt.Sprintf(verb, c), "[secret]", verb)
	}
	text, err := json.Marshal(c)
	require.NoError(t, err)
	require.Contains(t, string(text), `"Key":"[secret]"`)
}
