package acme

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"plane/system/port"
)

// KeyType is the kind of private key that a certificate is for.
type KeyType string

// The kinds that there are.
const (
	P256    KeyType = "ec256"
	RSA2048 KeyType = "rsa2048"
)

// Validate says what is wrong.
func (k KeyType) Validate() error {
	if k != P256 && k != RSA2048 {
		return fmt.Errorf("key type %q: want %s or %s", string(k), P256, RSA2048)
	}
	return nil
}

func (k KeyType) generate() (crypto.Signer, error) {
	if k == RSA2048 {
		return rsa.GenerateKey(rand.Reader, 2048)
	}
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// encodeKey is the key as PEM, PKCS #8, which Plane 0.5.x reads as well.
func encodeKey(key crypto.Signer) (port.Secret, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func signingRequest(key crypto.Signer, names []string) ([]byte, error) {
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: names}, key)
	if err != nil {
		return nil, fmt.Errorf("make a signing request: %w", err)
	}
	return request, nil
}

func parseLeaf(chain []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(chain)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("the certificate chain is not PEM")
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read the certificate: %w", err)
	}
	return leaf, nil
}
