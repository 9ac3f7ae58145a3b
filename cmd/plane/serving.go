package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"plane/adapters/httpproxy"
	"plane/adapters/proxyprotocol"
	"plane/adapters/tlsfiles"
	"plane/system/name"
)

// The ports of a proxy without --https, and with it.
const (
	defaultProxyPort = 9090
	httpPort         = 80
	httpsPort        = 443
)

// servingSettings are what flags and configuration files say of how a proxy
// meets its clients.
type servingSettings struct {
	HTTPS         bool
	HTTPPort      *uint16 // nil: 9090, or 80 with HTTPS
	HTTPSPort     *uint16 // nil: 443
	Cert, Key     string  // files; empty: not given
	HSTSSeconds   int64   // 0: none
	ProxyProtocol string  // sources, separated by commas; empty: none
}

// flags adds the flags; what they say is there once read has been called.
func (s *servingSettings) flags(cmd *cobra.Command) (read func()) {
	f := cmd.Flags()
	f.BoolVar(&s.HTTPS, "https", false, "serve HTTPS; the cluster has no port in its name then")
	plain := f.Uint16("http-port", defaultProxyPort, "port for plain HTTP; with --https it leads to https, and is 80")
	encrypted := f.Uint16("https-port", httpsPort, "port for HTTPS; to give it is to give --https")
	f.StringVar(&s.Cert, "tls-cert", "", "PEM file with a certificate chain of your own; read again when it changes, and on SIGHUP")
	f.StringVar(&s.Key, "tls-key", "", "PEM file with its private key")
	f.Int64Var(&s.HSTSSeconds, "hsts-seconds", 0, "tell browsers to come by https only, for so long (default: not told)")
	f.StringVar(&s.ProxyProtocol, "proxy-protocol", "", "addresses or networks, separated by commas, of balancers that speak the PROXY protocol")
	return func() {
		if f.Changed("http-port") {
			s.HTTPPort = plain
		}
		if f.Changed("https-port") {
			s.HTTPSPort = encrypted
			s.HTTPS = s.HTTPS || !f.Changed("https")
		}
	}
}

// ports are those to listen on; https is 0 without HTTPS.
func (s servingSettings) ports() (plain, encrypted uint16) {
	if !s.HTTPS {
		return or(s.HTTPPort, defaultProxyPort), 0
	}
	return or(s.HTTPPort, httpPort), or(s.HTTPSPort, httpsPort)
}

func (s servingSettings) validate(cluster name.Cluster) error {
	switch {
	case !s.HTTPS && (s.Cert != "" || s.Key != "" || s.HTTPSPort != nil || s.HSTSSeconds != 0):
		return usage("--tls-cert, --tls-key, --https-port and --hsts-seconds need --https")
	case s.HTTPS && !cluster.TLS():
		return usage("--https: URLs of the cluster %s begin with http:// because its name has a port; call it %s", cluster, cluster.Host)
	case (s.Cert == "") != (s.Key == ""):
		return usage("--tls-cert and --tls-key: want both files, or neither")
	case s.HSTSSeconds < 0 || s.HSTSSeconds > 10*365*24*3600:
		return usage("--hsts-seconds: want 0 to 315360000 (ten years), not %d", s.HSTSSeconds)
	}
	return nil
}

// certificates is where a proxy's certificate comes from.
type certificates interface {
	httpproxy.Certificates
	// Run looks after the certificate until the context ends.
	Run(ctx context.Context) error
}

// given are certificates that somebody else looks after.
type given struct{ *tlsfiles.Files }

// Run looks for new ones, also at SIGHUP.
func (g given) Run(ctx context.Context) error {
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	defer signal.Stop(reload)
	return g.Files.Run(ctx, reload)
}

func (s servingSettings) given(cluster name.Cluster, log *slog.Logger) (certificates, error) {
	files, err := tlsfiles.Open(s.Cert, s.Key, cluster, log)
	if err != nil {
		return nil, usage("--tls-cert and --tls-key: %w", err)
	}
	return given{files}, nil
}

// givenInOne is a certificate in the form in which one from an authority is kept.
func givenInOne(file string, cluster name.Cluster, log *slog.Logger) (certificates, error) {
	files, err := tlsfiles.OpenOne(file, cluster, log)
	if err != nil {
		return nil, usage("--cert-path, which without --acme-email or --acme-endpoint is a certificate of your own: %w", err)
	}
	return given{files}, nil
}

// doors are the listeners of a proxy.
type doors struct {
	plain, encrypted net.Listener // encrypted is nil without HTTPS
}

func (s servingSettings) listen(ctx context.Context, host, portFlag string) (d doors, err error) {
	var sources []netip.Prefix
	if s.ProxyProtocol != "" {
		if sources, err = proxyprotocol.ParseSources(s.ProxyProtocol); err != nil {
			return d, usage("--proxy-protocol: %w", err)
		}
	}
	open := func(port uint16, flag string) (net.Listener, error) {
		l, err := listen(ctx, net.JoinHostPort(host, strconv.Itoa(int(port))), flag)
		if err == nil && len(sources) > 0 {
			l = proxyprotocol.Listen(l, sources, httpproxy.DefaultLimits().Header)
		}
		return l, err
	}
	plain, encrypted := s.ports()
	if d.plain, err = open(plain, cmp.Or(portFlag, "--http-port")); err != nil || !s.HTTPS {
		return d, err
	}
	if d.encrypted, err = open(encrypted, "--https-port"); err != nil {
		return doors{}, errors.Join(err, d.close())
	}
	return d, nil
}

func (d doors) close() error {
	err := ignoreClosed(d.plain.Close())
	if d.encrypted != nil {
		err = errors.Join(err, ignoreClosed(d.encrypted.Close()))
	}
	return err
}

func (d doors) String() string {
	all := []string{d.plain.Addr().String()}
	if d.encrypted != nil {
		all = append(all, d.encrypted.Addr().String())
	}
	return strings.Join(all, " ")
}

func (s servingSettings) hsts() time.Duration { return time.Duration(s.HSTSSeconds) * time.Second }
