package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

func runConfigCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "run-config FILE.json",
		Short: "Run the process that a configuration file describes",
		Long: `Run the process that a configuration file describes: a JSON object with one key,
Controller, Drone, Proxy or Dns. "-" reads it from standard input. docs/operations.md has
an example of each.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, files []string) error {
			text, err := readConfig(cmd.InOrStdin(), files[0])
			if err != nil {
				return usageError{err}
			}
			run, err := parseConfig(text)
			if err != nil {
				return usage("%s: %w", files[0], err)
			}
			log, err := newLogger(cmd.ErrOrStderr(), slog.LevelInfo)
			if err != nil {
				return err
			}
			return run(cmd.Context(), log)
		},
	}
}

func readConfig(stdin io.Reader, file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(io.LimitReader(stdin, 1<<20))
	}
	return os.ReadFile(file)
}

// fileController is a controller in a configuration file, and so on.
type fileController struct {
	DB                string  `json:"db_url"`
	DBPasswordFile    string  `json:"db_password_file"`
	DBListen          string  `json:"db_listen_url"`
	DBMaxConnections  int     `json:"db_max_connections"`
	PeerURL           string  `json:"peer_url"`
	Bind              *string `json:"bind_addr"`
	ID                string  `json:"id"`
	URL               string  `json:"controller_url"`
	DefaultCluster    string  `json:"default_cluster"`
	CleanupMinAgeDays *int64  `json:"cleanup_min_age_days"`
	CleanupBatch      *int    `json:"cleanup_batch_size"`
	ForwardAuth       string  `json:"forward_auth"`
	BestOf            *int    `json:"best_of"`
}

type fileDrone struct {
	Name          string         `json:"name"`
	Executor      *fileExecutors `json:"executor_config"`
	ControllerURL string         `json:"controller_url"`
	Cluster       string         `json:"cluster"`
	Pool          string         `json:"pool"`
	IP            *string        `json:"ip"`
	DB            string         `json:"db_path"`

	MaxBackends int64       `json:"max_backends"`
	CPUs        json.Number `json:"cpus"`
	Memory      *int64      `json:"memory_bytes"`
}

type fileExecutors struct {
	Docker     *fileDocker `json:"docker"`
	UnixSocket *fileSocket `json:"unix_socket"`
}

type fileDocker struct {
	Runtime       string          `json:"runtime"`
	LogConfig     json.RawMessage `json:"log_config"`
	MountBase     string          `json:"mount_base"`
	AutoPrune     bool            `json:"auto_prune"`
	CleanupMinAge *int64          `json:"cleanup_min_age"` // seconds
}

type fileSocket struct {
	Path string `json:"socket_path"`
}

type fileProxy struct {
	Name            string    `json:"name"`
	ControllerURL   string    `json:"controller_url"`
	Cluster         string    `json:"cluster"`
	CertPath        string    `json:"cert_path"`
	Ports           filePorts `json:"port_config"`
	ACME            *fileACME `json:"acme_config"`
	RootRedirectURL string    `json:"root_redirect_url"`
	// Ours.
	TLSCert       string `json:"tls_cert"`
	TLSKey        string `json:"tls_key"`
	HSTSSeconds   int64  `json:"hsts_seconds"`
	ProxyProtocol string `json:"proxy_protocol"`
}

type filePorts struct {
	HTTP  *uint16 `json:"http_port"`
	HTTPS *uint16 `json:"https_port"`
}

type fileACME struct {
	Endpoint string   `json:"endpoint"`
	Email    string   `json:"mailto_email"`
	EAB      *fileEAB `json:"acme_eab_keypair"`
	Insecure bool     `json:"accept_insecure_certs_for_testing"`
	// Ours.
	KeyType string `json:"key_type"`
	Profile string `json:"profile"`
	CAFile  string `json:"ca_file"`
}

type fileEAB struct {
	KeyID string `json:"key_id"`
	Key   string `json:"key"`
}

type fileDNS struct {
	Name          string  `json:"name"`
	ControllerURL string  `json:"controller_url"`
	Port          *uint16 `json:"port"`
	Zone          string  `json:"zone"`
	// Ours.
	Bind      string   `json:"bind"`
	Servers   []string `json:"ns"`
	Addresses []string `json:"ns_addresses"`
	Contact   string   `json:"contact"`
	RateLimit *int     `json:"rate_limit"`
}

// runner runs one process until the context ends.
type runner func(ctx context.Context, log *slog.Logger) error

// parseConfig reads a configuration file: nothing that it does not know is
// accepted, as it would be a mistake.
func parseConfig(text []byte) (runner, error) {
	var kinds map[string]json.RawMessage
	if err := decodeStrictly("", text, &kinds); err != nil {
		return nil, err
	}
	if len(kinds) != 1 {
		return nil, fmt.Errorf("want one of Controller, Drone, Proxy and Dns, have %d keys", len(kinds))
	}
	for kind, body := range kinds {
		switch kind {
		case "Controller":
			return parseController(body)
		case "Drone":
			return parseDrone(body)
		case "Proxy":
			return parseProxy(body)
		case "Dns":
			return parseDNS(body)
		default:
			return nil, fmt.Errorf("%q: want Controller, Drone, Proxy or Dns", kind)
		}
	}
	panic("a map of one has no element")
}

func parseController(body json.RawMessage) (runner, error) {
	var c fileController
	if err := decodeStrictly("Controller", body, &c); err != nil {
		return nil, err
	}
	s := controllerSettings{
		Name: c.ID, PeerURL: c.PeerURL,
		DB:   databaseSettings{URL: c.DB, PasswordFile: c.DBPasswordFile, ListenURL: c.DBListen, MaxConnections: c.DBMaxConnections},
		Bind: or(c.Bind, "127.0.0.1:8080"), URL: c.URL, DefaultCluster: c.DefaultCluster,
		CleanupMinAgeDays: c.CleanupMinAgeDays, CleanupBatch: or(c.CleanupBatch, defaultCleanupBatch),
		ForwardAuth: c.ForwardAuth, BestOf: or(c.BestOf, 2),
	}
	return func(ctx context.Context, log *slog.Logger) error { return runController(ctx, s, log) }, nil
}

func parseDrone(body json.RawMessage) (runner, error) {
	var d fileDrone
	if err := decodeStrictly("Drone", body, &d); err != nil {
		return nil, err
	}
	s := droneSettings{
		Name: d.Name, ControllerURL: d.ControllerURL, Cluster: d.Cluster, Pool: d.Pool,
		IP: or(d.IP, "127.0.0.1"), DB: d.DB, Runtime: dockerRuntime,
		Capacity: capacitySettings{MaxBackends: d.MaxBackends, CPUs: d.CPUs.String()},
	}
	if d.Memory != nil {
		s.Capacity.Memory = strconv.FormatInt(*d.Memory, 10)
	}
	switch x := d.Executor; {
	case x == nil:
	case x.UnixSocket != nil && x.Docker != nil:
		return nil, errors.New("executor_config: want docker or unix_socket, not both")
	case x.UnixSocket != nil && x.UnixSocket.Path == "":
		return nil, errors.New("executor_config: unix_socket: socket_path is missing")
	case x.UnixSocket != nil:
		s.ExecutorSocket = x.UnixSocket.Path
	case x.Docker != nil:
		s.DockerRuntime, s.MountBase, s.PruneImages = x.Docker.Runtime, x.Docker.MountBase, x.Docker.AutoPrune
		if string(x.Docker.LogConfig) != "null" {
			s.LogConfig = string(x.Docker.LogConfig)
		}
	}
	return func(ctx context.Context, log *slog.Logger) error { return runDrone(ctx, s, log) }, nil
}

func parseProxy(body json.RawMessage) (runner, error) {
	var p fileProxy
	if err := decodeStrictly("Proxy", body, &p); err != nil {
		return nil, err
	}
	s := proxySettings{
		Name: p.Name, ControllerURL: p.ControllerURL, Cluster: p.Cluster, RootRedirectURL: p.RootRedirectURL,
		Serving: servingSettings{
			HTTPS: p.Ports.HTTPS != nil || p.ACME != nil || p.TLSCert != "", HTTPPort: p.Ports.HTTP, HTTPSPort: p.Ports.HTTPS,
			Cert: p.TLSCert, Key: p.TLSKey, HSTSSeconds: p.HSTSSeconds, ProxyProtocol: p.ProxyProtocol,
		},
		ACME: acmeSettings{CertPath: p.CertPath},
	}
	if a := p.ACME; a != nil {
		s.ACME.Endpoint, s.ACME.Email, s.ACME.Insecure = a.Endpoint, a.Email, a.Insecure
		s.ACME.KeyType, s.ACME.Profile, s.ACME.CAFile = a.KeyType, a.Profile, a.CAFile
		if a.EAB != nil {
			s.ACME.KID, s.ACME.HMACKey = a.EAB.KeyID, a.EAB.Key
		}
	}
	return func(ctx context.Context, log *slog.Logger) error { return runProxy(ctx, s, log) }, nil
}

func parseDNS(body json.RawMessage) (runner, error) {
	var d fileDNS
	if err := decodeStrictly("Dns", body, &d); err != nil {
		return nil, err
	}
	s := withDNSDefaults()
	s.Name, s.ControllerURL, s.Zone, s.Port = d.Name, d.ControllerURL, d.Zone, or(d.Port, defaultDNSPort)
	s.Bind, s.Servers, s.Addresses, s.Contact, s.RateLimit = d.Bind, d.Servers, d.Addresses, d.Contact, or(d.RateLimit, s.RateLimit)
	return func(ctx context.Context, log *slog.Logger) error { return runDNS(ctx, s, log) }, nil
}

func or[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

// decodeStrictly reads one JSON value into v; its errors name the field and
// show no value.
func decodeStrictly(place string, text []byte, v any) error {
	in := func(problem string) error {
		if place == "" {
			return errors.New(problem)
		}
		return errors.New(place + ": " + problem)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	err := d.Decode(v)
	var wrongType *json.UnmarshalTypeError
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &wrongType) && wrongType.Field == "":
		return in("want an object, not " + jsonKind(wrongType.Value))
	case errors.As(err, &wrongType):
		return in(wrongType.Field + ": want " + wanted(wrongType.Type.String()) + ", not " + jsonKind(wrongType.Value))
	case errors.As(err, &syntax):
		return in(fmt.Sprintf("is not JSON: %v, at byte %d", syntax, syntax.Offset))
	case errors.Is(err, io.EOF):
		return in("is empty, want a JSON object")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return in("is not JSON: it ends in the middle")
	case err != nil:
		return in(strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return in(fmt.Sprintf("there is something after the JSON object, at byte %d", d.InputOffset()))
	}
	return nil
}

// wanted says in words what a Go type takes.
func wanted(goType string) string {
	switch {
	case strings.Contains(goType, "bool"):
		return "true or false"
	case strings.Contains(goType, "uint16"):
		return "a port, 0 to 65535"
	case strings.Contains(goType, "Number"):
		return "a number"
	case strings.Contains(goType, "int"):
		return "a whole number"
	case strings.Contains(goType, "string"):
		return "a string"
	}
	return "an object"
}

// jsonKind drops the value from what encoding/json says of it: it may be a
// secret.
func jsonKind(value string) string {
	kind, _, _ := strings.Cut(value, " ")
	return kind
}
