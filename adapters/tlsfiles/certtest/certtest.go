// Package certtest is a certificate authority for tests. It keeps nothing but
// its key, in memory.
package certtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"sync/atomic"
	"testing"
	"time"
)

// Authority issues certificates.
type Authority struct {
	t      testing.TB
	key    *ecdsa.PrivateKey
	root   *x509.Certificate
	serial atomic.Int64
}

// New makes an authority with a root of its own.
func New(t testing.TB) *Authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	check(t, err)
	root, err := x509.ParseCertificate(der)
	check(t, err)
	a := &Authority{t: t, key: key, root: root}
	a.serial.Store(1)
	return a
}

// Pool trusts the authority.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.root)
	return pool
}

// Root is the authority's own certificate as files have it.
func (a *Authority) Root() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.root.Raw})
}

// Wish changes what is issued.
type Wish func(*x509.Certificate)

// Pair is a certificate and its key as files have them.
type Pair struct{ Certificate, Key []byte }

// Issue makes a certificate for the names: valid from an hour ago for two
// hours, with an ECDSA key.
func (a *Authority) Issue(names []string, wishes ...Wish) Pair {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(a.t, err)
	return a.issue(key, names, wishes)
}

// IssueRSA is Issue with an RSA key.
func (a *Authority) IssueRSA(names []string, wishes ...Wish) Pair {
	a.t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	check(a.t, err)
	return a.issue(key, names, wishes)
}

func (a *Authority) issue(key crypto.Signer, names []string, wishes []Wish) Pair {
	a.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.serial.Add(1)), DNSNames: names, KeyUsage: x509.KeyUsageDigitalSignature,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, wish := range wishes {
		wish(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.root, key.Public(), a.key)
	check(a.t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	check(a.t, err)
	return Pair{
		Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:         pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
	}
}

// TLS is the pair as a server uses it.
func (a *Authority) TLS(p Pair) *tls.Certificate {
	a.t.Helper()
	pair, err := tls.X509KeyPair(p.Certificate, p.Key)
	check(a.t, err)
	return &pair
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
