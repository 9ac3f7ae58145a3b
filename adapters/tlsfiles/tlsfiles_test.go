package tlsfiles_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"plane/adapters/tlsfiles"
	"plane/adapters/tlsfiles/certtest"
	"plane/system/name"
)

var (
	cluster = name.Cluster{Host: "c.test", Port: 443}
	covered = []string{"c.test", "*.c.test"}
)

// folder is where the two files are.
type folder struct {
	t         *testing.T
	dir       string
	authority *certtest.Authority
	log       *syncBuffer
}

func newFolder(t *testing.T) *folder {
	t.Helper()
	return &folder{t: t, dir: t.TempDir(), authority: certtest.New(t), log: &syncBuffer{}}
}

func (f *folder) certificate() string { return filepath.Join(f.dir, "tls.crt") }
func (f *folder) key() string         { return filepath.Join(f.dir, "tls.key") }

func (f *folder) write(p certtest.Pair) {
	f.t.Helper()
	require.NoError(f.t, os.WriteFile(f.certificate(), p.Certificate, 0o600))
	require.NoError(f.t, os.WriteFile(f.key(), p.Key, 0o600))
}

func (f *folder) open() (*tlsfiles.Files, error) {
	return tlsfiles.Open(f.certificate(), f.key(), cluster, slog.New(slog.NewTextHandler(f.log, nil)))
}

func serial(t *testing.T, f *tlsfiles.Files) int64 {
	t.Helper()
	c, err := f.Current()
	require.NoError(t, err)
	return c.Leaf.SerialNumber.Int64()
}

func TestWhatIsRefused(t *testing.T) {
	f := newFolder(t)
	valid := func(from, to time.Duration) certtest.Wish {
		return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = time.Now().Add(from), time.Now().Add(to) }
	}
	good := f.authority.Issue(covered)
	for _, c := range []struct {
		name string
		pair certtest.Pair
		want string
	}{
		{"the key of another", certtest.Pair{Certificate: good.Certificate, Key: f.authority.Issue(covered).Key}, "private key does not match"},
		{"a key of another kind", certtest.Pair{Certificate: good.Certificate, Key: f.authority.IssueRSA(covered).Key}, "private key type does not match"},
		{"no certificate", certtest.Pair{Certificate: []byte("hello"), Key: good.Key}, "failed to find any PEM data in certificate input"},
		{"no key", certtest.Pair{Certificate: good.Certificate, Key: []byte("hello")}, "failed to find any PEM data in key input"},
		{"the two swapped", certtest.Pair{Certificate: good.Key, Key: good.Certificate}, `found a certificate rather than a key|failed to find`},
		{"expired", f.authority.Issue(covered, valid(-2*time.Hour, -time.Hour)), "the certificate expired on "},
		{"not yet valid", f.authority.Issue(covered, valid(time.Hour, 2*time.Hour)), "the certificate is not valid before .*; is this machine's clock right"},
		{"without the wildcard", f.authority.Issue([]string{"c.test"}), `is not for \*\.c\.test; it is for c\.test, and has to be for c\.test and \*\.c\.test`},
		{"without the base", f.authority.Issue([]string{"*.c.test"}), `is not for c\.test; it is for \*\.c\.test`},
		{"for others", f.authority.Issue([]string{"else.test", "*.else.test"}), `it is for else\.test, \*\.else\.test`},
		{"for nobody", f.authority.Issue(nil), `no name at all`},
		{"for clients", f.authority.Issue(covered, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), "not for servers"},
		{"an authority's", f.authority.Issue(covered, func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }), "own comes first"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.write(c.pair)
			_, err := f.open()
			require.Error(t, err)
			require.Regexp(t, c.want, err.Error())
			require.Contains(t, err.Error(), f.certificate())
			require.NotContains(t, err.Error(), strings.Split(string(good.Key), "\n")[1], "G15")

			f.write(good)
			files, err := f.open()
			require.NoError(t, err)
			before := serial(t, files)
			f.write(c.pair)
			changed, err := files.Reload()
			require.Error(t, err)
			require.Regexp(t, c.want, err.Error())
			require.False(t, changed)
			require.Equal(t, before, serial(t, files), "the old one stays")
		})
	}
}

func TestMissingFilesAreNamed(t *testing.T) {
	f := newFolder(t)
	_, err := f.open()
	require.ErrorContains(t, err, "read the certificate: open "+f.certificate())
	f.write(f.authority.Issue(covered))
	require.NoError(t, os.Remove(f.key()))
	_, err = f.open()
	require.ErrorContains(t, err, "read the private key: open "+f.key())
}

func TestAClusterThatIsAnAddressNeedsNoWildcard(t *testing.T) {
	a := certtest.New(t)
	leaf := func(names ...string) *x509.Certificate { return a.TLS(a.Issue(names)).Leaf }
	require.NoError(t, tlsfiles.Check(leaf(covered...), cluster, time.Now()))
	address := leaf()
	address.IPAddresses = append(address.IPAddresses, []byte{10, 0, 0, 1})
	require.NoError(t, tlsfiles.Check(address, name.Cluster{Host: "10.0.0.1", Port: 443}, time.Now()))
	require.ErrorContains(t, tlsfiles.Check(address, name.Cluster{Host: "10.0.0.2", Port: 443}, time.Now()), "it is for 10.0.0.1")
}

// As the kubelet and cert-manager do it: a link to a directory is replaced.
func TestASwappedLinkIsNoticed(t *testing.T) {
	f := newFolder(t)
	base := f.dir
	version := func(dir string, p certtest.Pair) {
		f.dir = filepath.Join(base, dir)
		require.NoError(t, os.Mkdir(f.dir, 0o700))
		f.write(p)
		f.dir = base
		link := filepath.Join(base, "data.new")
		require.NoError(t, os.Symlink(dir, link))
		require.NoError(t, os.Rename(link, filepath.Join(base, "data")))
	}
	version("one", f.authority.Issue(covered))
	for _, file := range []string{"tls.crt", "tls.key"} {
		require.NoError(t, os.Symlink(filepath.Join("data", file), filepath.Join(base, file)))
	}
	files, err := f.open()
	require.NoError(t, err)
	before := serial(t, files)
	changed, err := files.Reload()
	require.NoError(t, err)
	require.False(t, changed)
	version("two", f.authority.Issue(covered))
	changed, err = files.Reload()
	require.NoError(t, err)
	require.True(t, changed)
	require.Greater(t, serial(t, files), before)
}

func TestAKeyThatOthersCanReadIsWarnedOf(t *testing.T) {
	f := newFolder(t)
	f.write(f.authority.Issue(covered))
	_, err := f.open()
	require.NoError(t, err)
	require.Empty(t, f.log.String())
	require.NoError(t, os.Chmod(f.key(), 0o644))
	_, err = f.open()
	require.NoError(t, err)
	require.Contains(t, f.log.String(), "can be read by every user")
	require.Contains(t, f.log.String(), f.key())
}

func TestBothInOneFile(t *testing.T) {
	f := newFolder(t)
	file := filepath.Join(f.dir, "c.json")
	write := func(v any) {
		text, err := json.Marshal(v)
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(file, text, 0o600))
	}
	form := func(p certtest.Pair) map[string]string {
		return map[string]string{"cert": string(p.Certificate), "key": string(p.Key), "more": "is skipped"}
	}
	good := f.authority.Issue(covered)
	write(form(good))
	files, err := tlsfiles.OpenOne(file, cluster, slog.New(slog.NewTextHandler(f.log, nil)))
	require.NoError(t, err)
	before := serial(t, files)
	for want, content := range map[string]any{
		"want a JSON object":                    "hello",
		"want a JSON object, {":                 map[string]any{"cert": 1, "key": string(good.Key)},
		"failed to find any PEM data":           map[string]string{"key": string(good.Key)},
		"private key does not match":            map[string]string{"cert": string(good.Certificate), "key": string(f.authority.Issue(covered).Key)},
		"the certificate is not for *.c.test":   form(f.authority.Issue([]string{"c.test"})),
		"the certificate is not valid before 2": form(f.authority.Issue(covered, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour) })),
	} {
		write(content)
		changed, err := files.Reload()
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, file+": ")
		require.NotContains(t, err.Error(), strings.Split(string(good.Key), "\n")[1], "G15")
		require.False(t, changed)
		require.Equal(t, before, serial(t, files), "the old one stays")
	}
	write(form(f.authority.Issue(covered)))
	changed, err := files.Reload()
	require.NoError(t, err)
	require.True(t, changed)
	require.Greater(t, serial(t, files), before)
}

// run runs the test in a bubble, beside files that are looked after.
func run(t *testing.T, f *folder, test func(files *tlsfiles.Files, reload chan<- os.Signal, sleep func(time.Duration))) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f.t = t
		f.authority = certtest.New(t) // on the bubble's clock
		f.write(f.authority.Issue(covered))
		files, err := f.open()
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		reload := make(chan os.Signal)
		ended := make(chan error)
		go func() { ended <- files.Run(ctx, reload) }()
		test(files, reload, func(d time.Duration) {
			time.Sleep(d) //nolint:forbidigo // the time of the bubble
			synctest.Wait()
		})
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	})
}

func TestRunTakesUpWhatIsNewAndComplainsOnce(t *testing.T) {
	f := newFolder(t)
	run(t, f, func(files *tlsfiles.Files, reload chan<- os.Signal, sleep func(time.Duration)) {
		first := serial(t, files)
		f.write(f.authority.Issue(covered))
		sleep(2 * time.Second)
		require.Greater(t, serial(t, files), first)
		require.Equal(t, 1, f.log.count("serving a new certificate"))

		// The key comes a moment after its certificate: nothing to complain of.
		next := f.authority.Issue(covered)
		require.NoError(t, os.WriteFile(f.certificate(), next.Certificate, 0o600))
		sleep(2 * time.Second)
		f.write(next)
		sleep(2 * time.Second)
		require.Equal(t, 2, f.log.count("serving a new certificate"))
		require.Zero(t, f.log.count("refused"))

		require.NoError(t, os.WriteFile(f.key(), []byte("broken"), 0o600))
		sleep(time.Minute)
		require.Equal(t, 1, f.log.count("a new certificate is refused; the old one stays"))
		reload <- syscall.SIGHUP
		sleep(0)
		require.Equal(t, 2, f.log.count("a new certificate is refused"), "whoever asks is told again")
		f.write(next)
		sleep(2 * time.Second)
		reload <- syscall.SIGHUP
		sleep(0)
		require.Equal(t, 1, f.log.count("the certificate has not changed"))
	})
}

func TestASignalIsNotWaitedFor(t *testing.T) {
	f := newFolder(t)
	run(t, f, func(files *tlsfiles.Files, reload chan<- os.Signal, sleep func(time.Duration)) {
		first := serial(t, files)
		f.write(f.authority.Issue(covered))
		reload <- syscall.SIGHUP
		sleep(0)
		require.Greater(t, serial(t, files), first)
	})
}

func TestTheEndOfACertificateIsToldInTime(t *testing.T) {
	f := newFolder(t)
	run(t, f, func(files *tlsfiles.Files, _ chan<- os.Signal, sleep func(time.Duration)) {
		sleep(30 * time.Minute) // of two hours, one had passed at first
		require.Zero(t, f.log.count("expires soon"))
		sleep(10 * time.Minute)
		require.Equal(t, 1, f.log.count("expires soon"))
		_, err := files.Current()
		require.NoError(t, err)
		sleep(21 * time.Minute)
		require.Equal(t, 1, f.log.count("has expired"))
		c, err := files.Current()
		require.ErrorContains(t, err, "expired on")
		require.NotContains(t, err.Error(), f.dir, "everybody can read it on /ready")
		require.IsType(t, (*tls.Certificate)(nil), c)
		require.NotNil(t, c, "there is no better one")
	})
}

// syncBuffer is a log that can be read while it is written.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *syncBuffer) count(text string) int { return strings.Count(b.String(), text) }
