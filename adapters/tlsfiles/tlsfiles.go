// Package tlsfiles serves a certificate that somebody else looks after: a
// certificate chain and its key in two PEM files, or in one of the form that Plane
// keeps its own in, {"cert":"PEM chain","key":"PEM key"}. They may be replaced at
// any time, in place, by renaming, or by swapping a symbolic link above them.
//
// It promises that only a pair is taken up that a client of the cluster would
// accept: the key belongs to the certificate, which is valid now and covers the
// cluster's host and the names one below. Anything else is refused with the
// reason, and the pair before it stays. Connections that are open keep the
// certificate that they began with. The key is in no error and in no log.
//
// Current may be called from anywhere at any time; Reload and Run not at once.
package tlsfiles

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"plane/system/name"
)

// pollEvery is how often the files are read to see whether they have changed.
// That works on every file system, however the files are replaced.
const pollEvery = 2 * time.Second

// Files is a certificate kept in two files, or in one.
type Files struct {
	certificate, key string // the same where it is one
	cluster          name.Cluster
	log              *slog.Logger
	current          atomic.Pointer[tls.Certificate]
	seen             [sha256.Size]byte // of what was read last
	refused          [sha256.Size]byte // of what was last complained about
	warned           string            // what was last said of the current one's age
}

// OpenOne reads the pair from one file, which has to be good.
func OpenOne(file string, cluster name.Cluster, log *slog.Logger) (*Files, error) {
	return Open(file, file, cluster, log)
}

// Open reads the pair, which has to be good.
func Open(certificate, key string, cluster name.Cluster, log *slog.Logger) (*Files, error) {
	f := &Files{certificate: certificate, key: key, cluster: cluster, log: log.With("certificate", certificate)}
	if _, err := f.Reload(); err != nil {
		return nil, err
	}
	if info, err := os.Stat(key); err == nil && info.Mode().Perm()&0o007 != 0 {
		f.log.Warn("the private key can be read by every user of this machine; take that right away", "file", key, "mode", info.Mode().Perm())
	}
	return f, nil
}

// Current returns the certificate, and once it has expired an error that everybody
// may read.
func (f *Files) Current() (*tls.Certificate, error) {
	c := f.current.Load()
	if now := time.Now(); now.After(c.Leaf.NotAfter) {
		return c, fmt.Errorf("it expired on %s UTC", c.Leaf.NotAfter.UTC().Format(time.DateTime))
	}
	return c, nil
}

// read reads chain and key.
func (f *Files) read() (chain, key []byte, err error) {
	if chain, err = os.ReadFile(f.certificate); err != nil {
		return nil, nil, fmt.Errorf("read the certificate: %w", err)
	}
	if f.key == f.certificate {
		return chain, chain, nil
	}
	if key, err = os.ReadFile(f.key); err != nil {
		return nil, nil, fmt.Errorf("read the private key: %w", err)
	}
	return chain, key, nil
}

// Reload reads the files. It reports whether a new pair was taken up, and why
// one was not.
func (f *Files) Reload() (changed bool, err error) {
	chain, key, err := f.read()
	if err != nil {
		return false, err
	}
	sum := sha256.Sum256(slices.Concat(chain, []byte{0}, key))
	if f.current.Load() != nil && sum == f.seen {
		return false, nil
	}
	pair, err := f.parse(chain, key)
	if err != nil {
		return false, &refusal{sum, err}
	}
	f.seen = sum
	f.current.Store(pair)
	return true, nil
}

// refusal is an error that lasts until the content of the files changes.
type refusal struct {
	sum [sha256.Size]byte
	err error
}

func (r *refusal) Error() string { return r.err.Error() }
func (r *refusal) Unwrap() error { return r.err }

func (f *Files) parse(chain, key []byte) (*tls.Certificate, error) {
	place := f.certificate + " and " + f.key
	if f.key == f.certificate {
		place = f.certificate
		var both struct{ Cert, Key string }
		if err := json.Unmarshal(chain, &both); err != nil { // which would show a part of it
			return nil, fmt.Errorf(`%s: want a JSON object, {"cert":"PEM chain","key":"PEM key"}`, place)
		}
		chain, key = []byte(both.Cert), []byte(both.Key)
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, fmt.Errorf("%s: %s", place, strings.TrimPrefix(err.Error(), "tls: "))
	}
	if err := Check(pair.Leaf, f.cluster, time.Now()); err != nil {
		return nil, fmt.Errorf("%s: %w", f.certificate, err)
	}
	return &pair, nil
}

// Check says why a client of the cluster would not accept the certificate at
// that time; who has signed it is not looked at.
func Check(leaf *x509.Certificate, cluster name.Cluster, now time.Time) error {
	when := func(t time.Time) string { return t.UTC().Format(time.DateTime) + " UTC" }
	switch {
	case now.After(leaf.NotAfter):
		return fmt.Errorf("the certificate expired on %s", when(leaf.NotAfter))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("the certificate is not valid before %s; is this machine's clock right?", when(leaf.NotBefore))
	case leaf.IsCA:
		return errors.New("the first certificate of the file is an authority's; the server's own comes first")
	case len(leaf.ExtKeyUsage) > 0 && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny):
		return errors.New("the certificate is not for servers (its extended key usage lacks serverAuth)")
	}
	wanted := []string{cluster.Host}
	if net.ParseIP(strings.Trim(cluster.Host, "[]")) == nil {
		wanted = append(wanted, "*."+cluster.Host)
	}
	for _, host := range wanted {
		// Any name below will do: only a wildcard matches one that nobody chose.
		if err := leaf.VerifyHostname(strings.Replace(host, "*", "plane-needs-a-wildcard", 1)); err != nil {
			return fmt.Errorf("the certificate is not for %s; it is for %s, and has to be for %s", host, names(leaf), strings.Join(wanted, " and "))
		}
	}
	return nil
}

func names(leaf *x509.Certificate) string {
	all := slices.Clone(leaf.DNSNames)
	for _, ip := range leaf.IPAddresses {
		all = append(all, ip.String())
	}
	if len(all) == 0 {
		return "no name at all (a common name does not count)"
	}
	return strings.Join(all, ", ")
}

// Run looks for changes until ctx ends, and at once when something comes from
// reload.
func (f *Files) Run(ctx context.Context, reload <-chan os.Signal) error {
	poll := time.NewTicker(pollEvery)
	defer poll.Stop()
	var last [sha256.Size]byte
	for {
		asked := false
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-poll.C:
		case <-reload:
			asked = true
		}
		last = f.look(asked, last)
	}
}

// look reloads, and logs what came of it. A pair that is bad is complained of
// once, when it was so twice in a row (the two files are seldom replaced at
// the same instant) or somebody has asked; last is what was bad the last time.
func (f *Files) look(asked bool, last [sha256.Size]byte) [sha256.Size]byte {
	changed, err := f.Reload()
	bad := sumOf(err)
	switch {
	case changed:
		leaf := f.current.Load().Leaf
		f.log.Info("serving a new certificate", "serial", leaf.SerialNumber.Text(16), "expires", leaf.NotAfter)
		f.refused, f.warned = [sha256.Size]byte{}, ""
	case err == nil && asked:
		f.log.Info("the certificate has not changed")
	case err != nil && (asked || bad == last && bad != f.refused):
		f.refused = bad
		f.log.Error("a new certificate is refused; the old one stays", "error", err, "expires", f.current.Load().Leaf.NotAfter)
	}
	f.age(time.Now())
	return bad
}

// sumOf tells one reason to refuse from another.
func sumOf(err error) [sha256.Size]byte {
	var r *refusal
	switch {
	case errors.As(err, &r):
		return r.sum
	case err != nil:
		return sha256.Sum256([]byte(err.Error()))
	}
	return [sha256.Size]byte{}
}

// age warns once when less than a fifth of the certificate's life is left, and
// once when it has expired.
func (f *Files) age(now time.Time) {
	leaf := f.current.Load().Leaf
	said := ""
	switch left := leaf.NotAfter.Sub(now); {
	case left < 0:
		said = "expired"
	case left < leaf.NotAfter.Sub(leaf.NotBefore)/5:
		said = "expires soon"
	}
	if said == f.warned {
		return
	}
	f.warned = said
	switch said {
	case "expired":
		f.log.Error("the certificate has expired; replace the files", "expired", leaf.NotAfter)
	case "expires soon":
		f.log.Warn("the certificate expires soon; replace the files", "expires", leaf.NotAfter)
	}
}
