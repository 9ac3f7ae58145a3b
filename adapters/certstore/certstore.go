// Package certstore is port.CertStore on files: the certificate with its key in
// the form of Plane 0.5.x, {"cert":"PEM chain","key":"PEM key"}, with what it was
// ordered by, and beside it, with ".account" and ".pause" after its name, the
// account with the certificate authority and for how long to leave that alone.
//
// A Store owns these files for as long as it is open: another process that would
// use them, and so share a private key, is refused. They are replaced whole, are
// on disk when a method returns nil, and are readable by their owner only. Methods
// are called one at a time; a write takes milliseconds and is not given up half
// way, so that contexts are looked at before it only.
//
// Memory is a store that ends with the process.
package certstore

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"plane/adapters/internal/durable"
	"plane/system/port"
)

// Store implements port.CertStore.
type Store struct {
	path string
	lock *os.File
}

var _ port.CertStore = (*Store)(nil)

// Open takes the files that belong to path. Neither needs to be there.
func Open(path string) (*Store, error) {
	lock, err := durable.Lock(path + ".lock")
	if errors.Is(err, durable.ErrLocked) {
		return nil, fmt.Errorf("%s: another proxy uses it; each needs a file, and a private key, of its own", path)
	}
	if err != nil {
		return nil, err
	}
	s := &Store{path, lock}
	for _, file := range []string{s.path, s.accountPath(), s.pausePath()} {
		if err := durable.Sweep(file); err != nil { // there may be a private key in it
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// Close lets another process use the files.
func (s *Store) Close() error { return durable.Unlock(s.lock) }

// file is the form on disk. What it was ordered by is ours: 0.5.x skips it, and does
// not write it.
type file struct {
	Cert      string `json:"cert"`
	Key       string `json:"key"`
	Directory string `json:"acme_endpoint,omitempty"`
	KeyType   string `json:"acme_key_type,omitempty"`
	Profile   string `json:"acme_profile,omitempty"`
}

// Load implements port.CertStore.
func (s *Store) Load(ctx context.Context) (port.Certificate, error) {
	text, err := s.read(ctx, s.path)
	if err != nil {
		return port.Certificate{}, err
	}
	var f file
	if err := json.Unmarshal(text, &f); err != nil {
		return port.Certificate{}, fmt.Errorf("%s: %w: it is not a JSON object with cert and key", s.path, port.ErrBroken)
	}
	c, err := Parse([]byte(f.Cert), []byte(f.Key))
	if err != nil {
		return port.Certificate{}, fmt.Errorf("%s: %w: %w", s.path, port.ErrBroken, err)
	}
	c.Terms = port.Terms{Directory: f.Directory, KeyType: f.KeyType, Profile: f.Profile}
	return c, nil
}

// Parse makes a certificate of a PEM chain and its PEM key. Its errors show
// nothing of either.
func Parse(chain, key []byte) (port.Certificate, error) {
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return port.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return port.Certificate{}, err
	}
	return port.Certificate{
		Chain: chain, Key: key, Names: leaf.DNSNames,
		Life: port.Life{NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter},
	}, nil
}

// Save implements port.CertStore.
func (s *Store) Save(ctx context.Context, c port.Certificate) error {
	text, err := json.Marshal(file{string(c.Chain), string(c.Key), c.Terms.Directory, c.Terms.KeyType, c.Terms.Profile})
	if err != nil {
		return err
	}
	return s.write(ctx, s.path, text)
}

func (s *Store) accountPath() string { return s.path + ".account" }

// Account implements port.CertStore.
func (s *Store) Account(ctx context.Context) (port.Secret, error) {
	return s.read(ctx, s.accountPath())
}

// SaveAccount implements port.CertStore.
func (s *Store) SaveAccount(ctx context.Context, account port.Secret) error {
	return s.write(ctx, s.accountPath(), account)
}

func (s *Store) pausePath() string { return s.path + ".pause" }

// pauseFile is a pause on disk; times are RFC 3339.
type pauseFile struct {
	Directory string    `json:"acme_endpoint"`
	Since     time.Time `json:"since"`
	Until     time.Time `json:"until"`
}

// Pause implements port.CertStore.
func (s *Store) Pause(ctx context.Context) (port.Pause, error) {
	text, err := s.read(ctx, s.pausePath())
	if err != nil {
		return port.Pause{}, err
	}
	var f pauseFile
	if err := json.Unmarshal(text, &f); err != nil {
		return port.Pause{}, fmt.Errorf("%s: %w: %w", s.pausePath(), port.ErrBroken, err)
	}
	return port.Pause(f), nil
}

// SavePause implements port.CertStore.
func (s *Store) SavePause(ctx context.Context, p port.Pause) error {
	text, err := json.Marshal(pauseFile(p))
	if err != nil {
		return err
	}
	return s.write(ctx, s.pausePath(), text)
}

// read reads a file, and closes it to others should it be open to them.
func (s *Store) read(ctx context.Context, path string) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	info, err := os.Stat(path)
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		err = os.Chmod(path, 0o600)
	}
	var text []byte
	if err == nil {
		text, err = os.ReadFile(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", path, port.ErrNotFound)
	}
	return text, err
}

func (s *Store) write(ctx context.Context, path string, text []byte) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return durable.WriteFile(path, text)
}

// Memory is a CertStore that is lost with the process. The zero value is empty.
type Memory struct {
	certificate *port.Certificate
	account     port.Secret
	pause       *port.Pause
}

var _ port.CertStore = (*Memory)(nil)

// Load implements port.CertStore.
func (m *Memory) Load(context.Context) (port.Certificate, error) {
	if m.certificate == nil {
		return port.Certificate{}, port.ErrNotFound
	}
	return *m.certificate, nil
}

// Save implements port.CertStore.
func (m *Memory) Save(_ context.Context, c port.Certificate) error {
	m.certificate = &c
	return nil
}

// Account implements port.CertStore.
func (m *Memory) Account(context.Context) (port.Secret, error) {
	if m.account == nil {
		return nil, port.ErrNotFound
	}
	return m.account, nil
}

// SaveAccount implements port.CertStore.
func (m *Memory) SaveAccount(_ context.Context, account port.Secret) error {
	m.account = account
	return nil
}

// Pause implements port.CertStore.
func (m *Memory) Pause(context.Context) (port.Pause, error) {
	if m.pause == nil {
		return port.Pause{}, port.ErrNotFound
	}
	return *m.pause, nil
}

// SavePause implements port.CertStore.
func (m *Memory) SavePause(_ context.Context, p port.Pause) error {
	m.pause = &p
	return nil
}
