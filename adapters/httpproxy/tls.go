package httpproxy

import (
	"crypto/tls"

	"plane/system/name"
	"plane/system/route"
)

// Certificates is where a server gets its certificate from.
type Certificates interface {
	// Current returns the certificate to serve now, nil when there is none, and
	// an error that says in words what is wrong with that: why there is none, or
	// why the one that there is should not be relied upon. Everybody can read it on
	// /ready. It does not block, and may be called at any time, from anywhere.
	Current() (*tls.Certificate, error)
}

// suites are those of TLS 1.2 that give forward secrecy and authenticated
// encryption; TLS 1.3 has no others. Go puts them in order.
var suites = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305,
}

// TLSConfig serves a cluster: TLS 1.2 and 1.3, HTTP/2 and HTTP/1.1, session
// tickets under keys that change daily and never leave the process. A client
// that asks for a name outside the cluster is told unrecognized_name, one that
// asks for none (such as a balancer that looks whether the proxy lives) is
// served; whose requests are whose is decided by their Host. While there is no
// certificate, handshakes fail.
func TLSConfig(cluster name.Cluster, certificates Certificates) *tls.Config {
	// It has no certificate at all, which is what makes crypto/tls say so. New
	// sessions and resumed ones are refused alike.
	foreign := &tls.Config{MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true}
	return &tls.Config{
		MinVersion:   tls.VersionTLS12,
		CipherSuites: suites,
		NextProtos:   []string{"h2", "http/1.1"},
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			match, _ := route.MatchHost(hello.ServerName, cluster)
			if match == route.HostForeign {
				return foreign, nil
			}
			return nil, nil
		},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			certificate, err := certificates.Current()
			if certificate == nil {
				return nil, err
			}
			return certificate, nil
		},
	}
}
