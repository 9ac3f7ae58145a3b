package acme

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"

	legoacme "github.com/go-acme/lego/v4/acme"

	"plane/system/port"
)

// account is who we are for the authority. Its key is made first, and kept before
// the authority hears of it: asked again with the same key, it gives the same
// account.
type account struct {
	directory string
	url       string // empty: not known to the authority yet
	key       crypto.Signer
}

// accountFile is an account as it is kept.
type accountFile struct {
	Directory string `json:"directory"`
	URL       string `json:"url"`
	Key       string `json:"key"` // PEM, PKCS #8
}

func (a *account) encode() (port.Secret, error) {
	key, err := encodeKey(a.key)
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent(accountFile{a.directory, a.url, string(key)}, "", "  ")
}

// decodeAccount reads what encode wrote. Its errors show nothing of it.
func decodeAccount(kept port.Secret) (*account, error) {
	var f accountFile
	if err := json.Unmarshal(kept, &f); err != nil {
		return nil, errors.New("it is not JSON")
	}
	block, _ := pem.Decode([]byte(f.Key))
	if block == nil {
		return nil, errors.New("its key is not PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("its key cannot be read")
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, errors.New("its key cannot sign")
	}
	return &account{f.Directory, f.URL, key}, nil
}

// signIn is the authority with our account, which is made if there is none.
func (i *Issuer) signIn(ctx context.Context) (*client, error) {
	if i.account == nil {
		i.account = i.loadAccount(ctx)
	}
	if i.account == nil {
		key, err := P256.generate()
		if err != nil {
			return nil, err
		}
		i.account = &account{directory: i.cfg.Directory, key: key}
		i.saveAccount(ctx)
	}
	c, err := i.dial(ctx, i.account.url, i.account.key)
	if err != nil || i.account.url != "" {
		return c, err
	}
	if i.account.url, err = i.register(c); err != nil {
		return nil, err
	}
	i.cfg.Log.Info("made an account with the certificate authority", "directory", i.cfg.Directory, "account", i.account.url)
	i.saveAccount(ctx)
	return c, nil
}

func (i *Issuer) register(c *client) (string, error) {
	wanted := legoacme.Account{TermsOfServiceAgreed: true, Contact: []string{}}
	if i.cfg.Email != "" {
		wanted.Contact = []string{"mailto:" + i.cfg.Email}
	}
	if i.cfg.EABKeyID == "" && c.GetDirectory().Meta.ExternalAccountRequired {
		return "", fmt.Errorf("%w: it makes accounts only with an external account binding: give its key id and key", port.ErrRefused)
	}
	register := func() (legoacme.ExtendedAccount, error) { return c.Accounts.New(wanted) }
	if i.cfg.EABKeyID != "" {
		register = func() (legoacme.ExtendedAccount, error) {
			return c.Accounts.NewEAB(wanted, i.cfg.EABKeyID, string(i.cfg.EABKey))
		}
	}
	made, err := register()
	switch {
	case err != nil:
		return "", c.wire.explain("make an account", err)
	case made.Location == "":
		return "", fmt.Errorf("make an account: %w: it gives the account no URL", port.ErrRefused)
	}
	return made.Location, nil
}

// loadAccount returns the account that is kept for this authority, or nil.
func (i *Issuer) loadAccount(ctx context.Context) *account {
	kept, err := i.store.Account(ctx)
	if errors.Is(err, port.ErrNotFound) {
		return nil
	}
	var a *account
	if err == nil {
		a, err = decodeAccount(kept)
	}
	if err != nil {
		i.cfg.Log.Warn("the account with the certificate authority that is kept cannot be used; another one will be made", "error", err)
		return nil
	}
	if a.directory != i.cfg.Directory {
		i.cfg.Log.Info("the account that is kept is with another certificate authority; one will be made", "kept", a.directory, "directory", i.cfg.Directory)
		return nil
	}
	return a
}

// saveAccount keeps the account. Should that fail, this process still has it, and
// tries again with the next call. It is done even if the call is to end: the
// authority has the account all the same.
func (i *Issuer) saveAccount(ctx context.Context) {
	kept, err := i.account.encode()
	if err == nil {
		err = i.store.SaveAccount(context.WithoutCancel(ctx), kept)
	}
	i.unsaved = err != nil
	if err != nil {
		i.cfg.Log.Error("cannot keep the account with the certificate authority: after a restart another one would be made; trying again", "error", err)
	}
}

// saveAgain is for an account that could not be kept when it was made.
func (i *Issuer) saveAgain(ctx context.Context) {
	if i.unsaved {
		i.saveAccount(ctx)
	}
}

// forget drops an account that the authority does not know any more; the next
// order makes one.
func (i *Issuer) forget(ctx context.Context) {
	i.cfg.Log.Warn("the certificate authority does not know the account any more; another one will be made", "account", i.account.url)
	i.account.url = ""
	i.saveAccount(ctx)
}

// assemble is a certificate from what the authority gave, and its key.
func assemble(chain []byte, key crypto.Signer) (port.Certificate, error) {
	encoded, err := encodeKey(key)
	if err != nil {
		return port.Certificate{}, err
	}
	if _, err := tls.X509KeyPair(chain, encoded); err != nil {
		return port.Certificate{}, fmt.Errorf("the certificate that was issued is not for the key: %w", err)
	}
	leaf, err := parseLeaf(chain)
	if err != nil {
		return port.Certificate{}, err
	}
	return port.Certificate{
		Chain: chain, Key: encoded, Names: leaf.DNSNames,
		Life: port.Life{NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter},
	}, nil
}
