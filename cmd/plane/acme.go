package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/spf13/cobra"

	"plane/adapters/acme"
	"plane/adapters/certstore"
	"plane/adapters/clock"
	"plane/system/certificate"
	"plane/system/name"
	"plane/system/port"
	"plane/system/proxy"
)

// acmeSettings are what flags and configuration files say of how a proxy gets a
// certificate by itself.
type acmeSettings struct {
	CertPath        string // empty: kept in memory only; without an authority, what is served
	Endpoint, Email string
	KID, HMACKey    string
	KeyType         string // empty: ec256
	Profile         string
	CAFile          string
	Insecure        bool
}

func (a *acmeSettings) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&a.CertPath, "cert-path", "", "file to keep the certificate that an authority gives, with its key; the account is kept beside it (default: nowhere, and each start orders another one). Without an authority: a certificate of your own in that form, {\"cert\":\"PEM chain\",\"key\":\"PEM key\"}, which is only read")
	f.StringVar(&a.Endpoint, "acme-endpoint", "", "ACME directory of the certificate authority (default with --acme-email: "+acme.LetsEncrypt+")")
	f.StringVar(&a.Email, "acme-email", "", "where the authority can reach you; to give this or --acme-endpoint is to agree to its terms of service")
	f.StringVar(&a.KID, "acme-eab-kid", "", "key id of an account that the authority knows by other means")
	f.StringVar(&a.HMACKey, "acme-eab-hmac-key", "", "its key, base64url; better given as PLANE_ACME_EAB_HMAC_KEY")
	f.StringVar(&a.KeyType, "acme-key-type", string(acme.P256), "kind of private key: "+string(acme.P256)+" or "+string(acme.RSA2048))
	f.StringVar(&a.Profile, "acme-profile", "", "which of the authority's certificate profiles to ask for (default: its own)")
	f.StringVar(&a.CAFile, "acme-ca-file", "", "PEM file with roots by which to know a private authority's own HTTPS, besides the machine's")
}

// wanted reports whether an authority is to be asked.
func (a acmeSettings) wanted() bool { return a.Endpoint != "" || a.Email != "" }

// validate refuses settings that have no effect.
func (a acmeSettings) validate(s servingSettings) error {
	a.KeyType = "" // has a default
	given := a != (acmeSettings{})
	switch {
	case given && !s.HTTPS:
		return usage("--cert-path and --acme-… need --https")
	case given && s.Cert != "":
		return usage("--tls-cert, --cert-path and --acme-…: want a certificate of your own, or one from an authority, not both")
	case given && !a.wanted() && a != (acmeSettings{CertPath: a.CertPath}):
		return usage("--acme-eab-… and the like: give --acme-email or --acme-endpoint, too")
	}
	return nil
}

// keep makes what gets a certificate for the cluster and renews it, with the
// proxy's session as the way to show challenges.
func (a acmeSettings) keep(cluster name.Cluster, role *proxy.Proxy, log *slog.Logger) (certificates, error) {
	if _, err := netip.ParseAddr(cluster.Host); err == nil {
		return nil, usage("--https: an authority gives no certificate for %s by DNS: a cluster has to have a name, or a certificate by --tls-cert", cluster.Host)
	}
	cfg := acme.Config{
		Directory: cmp.Or(a.Endpoint, acme.LetsEncrypt), Email: a.Email, EABKeyID: a.KID, EABKey: port.Secret(a.HMACKey),
		KeyType: acme.KeyType(cmp.Or(a.KeyType, string(acme.P256))), Profile: a.Profile, Insecure: a.Insecure,
		Settle:    acme.DefaultSettle,
		UserAgent: "plane/" + planeVersion, Log: log,
	}
	if a.CAFile != "" {
		roots, err := readRoots(a.CAFile)
		if err != nil {
			return nil, usage("--acme-ca-file: %w", err)
		}
		cfg.Roots = roots
	}
	if err := cfg.Validate(); err != nil {
		return nil, usage("--acme-…: %w", err)
	}
	store, closer, err := a.store(log)
	if err != nil {
		return nil, err
	}
	issuer, err := acme.New(cfg, store)
	if err != nil {
		return nil, errors.Join(err, closer.Close())
	}
	keeper, err := certificate.New(certificate.Config{
		Names: []string{cluster.Host, "*." + cluster.Host}, OrderTimeout: certificate.DefaultOrderTimeout, Log: log,
		Terms: port.Terms{Directory: cfg.Directory, KeyType: string(cfg.KeyType), Profile: cfg.Profile},
	}, certificate.World{
		Clock: clock.New(), Wall: clock.Wall{}, Rand: clock.Rand{}, Issuer: issuer, Challenges: role, Store: store,
	})
	if err != nil {
		return nil, errors.Join(err, closer.Close())
	}
	return &keptCertificates{keeper: keeper, store: closer}, nil
}

// store is where the certificate is kept.
func (a acmeSettings) store(log *slog.Logger) (port.CertStore, io.Closer, error) {
	if a.CertPath == "" {
		log.Warn("without --cert-path every start orders a certificate; authorities allow a few a week")
		return &certstore.Memory{}, io.NopCloser(nil), nil
	}
	if info, err := os.Stat(filepath.Dir(a.CertPath)); err != nil || !info.IsDir() {
		return nil, nil, usage("--cert-path: %s is not a directory that is there", filepath.Dir(a.CertPath))
	}
	files, err := certstore.Open(a.CertPath)
	if err != nil {
		return nil, nil, usage("--cert-path: %w", err)
	}
	return files, files, nil
}

func readRoots(file string) (*x509.CertPool, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: there is no certificate in it", file)
	}
	return roots, nil
}

// keptCertificates is a Keeper's certificate as a TLS server wants it.
type keptCertificates struct {
	keeper *certificate.Keeper
	store  io.Closer
	parsed atomic.Pointer[parsedCertificate]
}

// parsedCertificate is the last one that was parsed.
type parsedCertificate struct {
	chain []byte
	tls   tls.Certificate
}

// Run gets and renews the certificate until the context ends.
func (k *keptCertificates) Run(ctx context.Context) error {
	err := k.keeper.Run(ctx)
	if closing := k.store.Close(); closing != nil {
		return errors.Join(err, closing)
	}
	return err
}

// Current implements httpproxy.Certificates.
func (k *keptCertificates) Current() (*tls.Certificate, error) {
	c, err := k.keeper.Current()
	if len(c.Chain) == 0 {
		return nil, err
	}
	if p := k.parsed.Load(); p != nil && bytes.Equal(p.chain, c.Chain) {
		return &p.tls, err
	}
	pair, broken := tls.X509KeyPair(c.Chain, c.Key)
	if broken != nil {
		return nil, errors.Join(err, broken)
	}
	p := &parsedCertificate{c.Chain, pair}
	k.parsed.Store(p)
	return &p.tls, err
}
