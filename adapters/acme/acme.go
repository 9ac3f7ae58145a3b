// Package acme is port.Issuer on lego's ACME client: it makes an account with a
// certificate authority once and keeps it, and orders certificates by DNS-01
// challenges.
//
// It speaks to the authority through lego's protocol layer (signatures, nonces
// and their repetition, account binding, renewal information); the steps of an
// order are its own, so that every wait ends with its context and every answer is
// told apart: lego's own solver waits blindly, asks the DNS by itself and takes
// no context. A private key is made for each order, and is in nothing but its
// result. The account's key is in the CertStore.
//
// An Issuer keeps no connection and no state but the account between calls, which
// are made one at a time. When the authority is away at the beginning of an order,
// or refuses, the order fails with the error that says so, and what it asked the
// authority to look at is given up. When it is away later, it is asked again until
// the context ends: from then on another order would count against its limits.
package acme

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	stdlog "log"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"

	legoacme "github.com/go-acme/lego/v4/acme"
	"github.com/go-acme/lego/v4/acme/api"
	"github.com/go-acme/lego/v4/certificate"
	legolog "github.com/go-acme/lego/v4/log"

	"plane/system/port"
)

// LetsEncrypt is the directory of the authority that is asked where nobody says
// another.
const LetsEncrypt = "https://acme-v02.api.letsencrypt.org/directory"

// Config is which authority to ask, and as whom.
type Config struct {
	Directory string // URL
	Email     string // for the authority's messages; may be empty
	// EABKeyID and EABKey (base64url) bind the account to one that the authority
	// has by other means; empty where it does not ask for that.
	EABKeyID string
	EABKey   port.Secret
	KeyType  KeyType
	Profile  string // empty: the authority's default
	// Settle is how long challenges are shown before the authority is asked to
	// look; see DefaultSettle. 0: not at all.
	Settle time.Duration
	// Roots, where not nil, are whom to trust that the authority is who it says.
	Roots *x509.CertPool
	// Insecure trusts everybody with that. For tests.
	Insecure  bool
	UserAgent string
	Log       *slog.Logger
}

// DefaultSettle is longer than anybody has a challenge's name as it was before:
// a resolver may keep it for a second, and the receiver that told it, when it is
// flooded with questions, for nearly another one.
const DefaultSettle = 2 * time.Second

// Validate says what is wrong.
func (c Config) Validate() error {
	u, err := url.Parse(c.Directory)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("ACME directory %q: want an https URL", c.Directory)
	}
	if (c.EABKeyID == "") != (len(c.EABKey) == 0) {
		return errors.New("external account binding: a key id and a key belong together")
	}
	if _, err := decodeBase64URL(string(c.EABKey)); err != nil {
		return errors.New("external account binding: the key is not base64url") // without the value
	}
	return c.KeyType.Validate()
}

func decodeBase64URL(s string) ([]byte, error) {
	if b, err := base64.RawURLEncoding.DecodeString(s); err == nil {
		return b, nil
	}
	return base64.URLEncoding.DecodeString(s)
}

// Issuer implements port.Issuer.
type Issuer struct {
	cfg       Config
	store     port.CertStore
	transport http.RoundTripper
	account   *account // nil: not known yet
	unsaved   bool     // the account is not on disk as it is here
}

var _ port.Issuer = (*Issuer)(nil)

func init() {
	// The library logs to standard error on its own. What matters is in what it
	// returns.
	legolog.Logger = stdlog.New(io.Discard, "", 0)
}

// New makes an Issuer that keeps its account in the store. It asks nobody yet.
func New(cfg Config, store port.CertStore) (*Issuer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout:   15 * time.Second,
		ResponseHeaderTimeout: 45 * time.Second,
		IdleConnTimeout:       30 * time.Second,
		ForceAttemptHTTP2:     true,
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS12, RootCAs: cfg.Roots,
			InsecureSkipVerify: cfg.Insecure, //nolint:gosec // asked for by name, for tests
		},
	}
	return &Issuer{cfg: cfg, store: store, transport: transport}, nil
}

// callTimeout bounds one request to the authority.
const callTimeout = time.Minute

// client is the authority, as asked by one call.
type client struct {
	*api.Core
	wire *wire
}

// dial fetches the authority's directory. Requests end with the context. key and
// kid are the account's, where it is known.
func (i *Issuer) dial(ctx context.Context, kid string, key crypto.Signer) (*client, error) {
	w := &wire{ctx: ctx, next: i.transport}
	core, err := api.New(&http.Client{Transport: w, Timeout: callTimeout}, i.cfg.UserAgent, i.cfg.Directory, kid, key)
	if err != nil {
		return nil, w.explain("read the directory", err)
	}
	return &client{core, w}, nil
}

// Order implements port.Issuer.
func (i *Issuer) Order(ctx context.Context, o port.Order, challenges port.Challenges) (port.Certificate, error) {
	oneAtATime, err := challenges.OneAtATime(ctx) // before the authority is asked for anything
	if err != nil {
		return port.Certificate{}, fmt.Errorf("wait for a controller: %w", err)
	}
	defer i.saveAgain(ctx)
	c, err := i.signIn(ctx)
	if err != nil {
		return port.Certificate{}, err
	}
	if err := c.hasProfile(i.cfg.Profile); err != nil {
		return port.Certificate{}, err
	}
	order, err := i.place(ctx, c, o)
	if err != nil {
		return port.Certificate{}, err
	}
	s := &solver{client: c, challenges: challenges, oneAtATime: oneAtATime, settle: i.cfg.Settle}
	if err := s.solve(ctx, order.Authorizations); err != nil {
		return port.Certificate{}, err
	}
	return c.finish(ctx, order, o.Names, i.cfg.KeyType)
}

// place places the order. That it says which certificate it replaces is a
// courtesy, which may lift a rate limit; an authority that does not know that
// certificate, another one's perhaps, refuses the order for it, and so it is
// placed once more without.
func (i *Issuer) place(ctx context.Context, c *client, o port.Order) (legoacme.ExtendedOrder, error) {
	options := &api.OrderOptions{Profile: i.cfg.Profile}
	if o.Replaces != nil {
		id, err := renewalID(*o.Replaces)
		if err != nil {
			i.cfg.Log.Debug("the order does not say what it replaces", "error", err)
		}
		options.ReplacesCertID = id
	}
	order, err := c.Orders.NewWithOptions(o.Names, options)
	if err != nil && options.ReplacesCertID != "" && c.wire.isAboutTheOrder(err) {
		i.cfg.Log.Info("the authority refuses an order that says what it replaces; ordering without", "error", problemOf(err))
		options.ReplacesCertID = ""
		order, err = c.Orders.NewWithOptions(o.Names, options)
	}
	if isUnknownAccount(err) {
		i.forget(ctx)
	}
	if err != nil {
		return legoacme.ExtendedOrder{}, c.wire.explain("order", err)
	}
	return order, nil
}

// hasProfile refuses a profile that the authority does not have.
func (c *client) hasProfile(profile string) error {
	profiles := c.GetDirectory().Meta.Profiles
	if _, ok := profiles[profile]; ok || profile == "" {
		return nil
	}
	return fmt.Errorf("%w: it has no profile %q; it has %s", port.ErrRefused, profile, listed(profiles))
}

// Suggest implements port.Issuer.
func (i *Issuer) Suggest(ctx context.Context, cert port.Certificate) (port.Suggestion, error) {
	i.saveAgain(ctx)
	leaf, err := parseLeaf(cert.Chain)
	if err != nil {
		return port.Suggestion{}, err
	}
	if len(leaf.AuthorityKeyId) == 0 {
		return port.Suggestion{}, fmt.Errorf("%w: the certificate does not name its issuer's key", port.ErrNoSuggestion)
	}
	key, err := P256.generate() // nothing is signed with it
	if err != nil {
		return port.Suggestion{}, err
	}
	c, err := i.dial(ctx, "", key)
	if err != nil {
		return port.Suggestion{}, err
	}
	certifier := certificate.NewCertifier(c.Core, nil, certificate.CertifierOptions{})
	info, err := certifier.GetRenewalInfo(certificate.RenewalInfoRequest{Cert: leaf})
	switch window := info; {
	case errors.Is(err, api.ErrNoARI):
		return port.Suggestion{}, port.ErrNoSuggestion
	case err != nil:
		return port.Suggestion{}, c.wire.explain("ask when to renew", err)
	case c.wire.status >= http.StatusBadRequest:
		return port.Suggestion{}, c.wire.explain("ask when to renew", fmt.Errorf("its status is %d", c.wire.status))
	case window.SuggestedWindow.Start.IsZero() || window.SuggestedWindow.End.Before(window.SuggestedWindow.Start):
		return port.Suggestion{}, errors.New("ask when to renew: the authority's window is none")
	}
	return port.Suggestion{Start: info.SuggestedWindow.Start, End: info.SuggestedWindow.End, AskAgain: info.RetryAfter}, nil
}

func renewalID(c port.Certificate) (string, error) {
	leaf, err := parseLeaf(c.Chain)
	if err != nil {
		return "", err
	}
	if len(leaf.AuthorityKeyId) == 0 {
		return "", errors.New("the certificate does not name its issuer's key")
	}
	return certificate.MakeARICertID(leaf)
}
