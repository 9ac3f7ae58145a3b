package protocol

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"plane/system/placement"
)

// DockerExecutable says what a container is made from. The controller passes
// its JSON through; a drone with a container engine understands it.
type DockerExecutable struct {
	Image       string
	PullPolicy  PullPolicy
	Credentials *Credentials // nil: none
	Env         map[string]string
	Limits      ResourceLimits
	Mount       Mount
	NetworkName string // empty: the engine's default network
}

// PullPolicy says when an image is fetched from its registry.
type PullPolicy string

// The pull policies; the first is the default.
const (
	PullIfNotPresent PullPolicy = "IfNotPresent"
	PullAlways       PullPolicy = "Always"
	PullNever        PullPolicy = "Never"
)

// Credentials are for the registry of the image.
type Credentials struct {
	Username string
	Password string
}

// String keeps the password out of whatever prints the value.
func (Credentials) String() string { return "[credentials]" }

// GoString does the same for %#v.
func (Credentials) GoString() string { return "[credentials]" }

// ResourceLimits bound what a container may use. Zero: no limit.
type ResourceLimits struct {
	CPUPeriod        int64 // µs
	CPUPeriodPercent int64 // of each period, 100 is one whole CPU
	CPUTimeLimit     int64 // s
	MemoryBytes      int64
	DiskBytes        int64
}

// Asks is what a backend with these limits is promised on its drone.
func (l ResourceLimits) Asks() placement.Resources {
	return placement.Resources{MilliCPUs: l.CPUPeriodPercent * 10, MemoryBytes: l.MemoryBytes}
}

// CPUQuota is how many µs of CPU time the container gets in each period; 0:
// any.
func (l ResourceLimits) CPUQuota() int64 { return l.CPUPeriod * l.CPUPeriodPercent / 100 }

// Mount says what is mounted at MountTarget. The zero value is no mount.
type Mount struct {
	On   bool
	Path string // under the mount base; empty: the key's name
}

// MountTarget is where a mount appears in the container.
const MountTarget = "/plane-data"

// ContainerPort is where a backend serves in its container.
const ContainerPort = 8080

// ProcessExecutable says which program of the drone's machine to run; for
// development.
type ProcessExecutable struct {
	Command []string
	Env     map[string]string
}

// The limits of what is accepted. The kernel takes no longer entry, and its
// limit for all of them together is 2 MiB.
const (
	maxImage     = 1024
	maxEnvEntry  = 128<<10 - 2
	maxEnvTotal  = 1536 << 10
	minCPUPeriod = 1000
	maxCPUPeriod = 1000000
	minCPUQuota  = 1000
	maxPercent   = 1000000
)

const defaultCPUPeriod = 100000

// ParseDockerExecutable reads an executable for a container engine. Fields that
// it does not know are skipped. Its errors name the field and hold no value
// that could be a secret.
func ParseDockerExecutable(raw json.RawMessage) (DockerExecutable, error) {
	var e DockerExecutable
	o, err := parseObject(raw)
	if err != nil {
		return e, fmt.Errorf("executable: %w", err)
	}
	err = errors.Join(
		o.field("image", func(v json.RawMessage) error { return parseImage(v, &e.Image) }),
		o.field("pull_policy", func(v json.RawMessage) error { return parsePullPolicy(v, &e.PullPolicy) }),
		o.field("credentials", func(v json.RawMessage) error { return parseCredentials(v, &e.Credentials) }),
		o.field("env", func(v json.RawMessage) error { return parseEnv(v, &e.Env) }),
		o.field("resource_limits", func(v json.RawMessage) error { return parseLimits(v, &e.Limits) }),
		o.field("mount", func(v json.RawMessage) error { return parseMount(v, &e.Mount) }),
		o.field("network_name", func(v json.RawMessage) error { return parseText(v, &e.NetworkName) }),
	)
	if err != nil {
		return DockerExecutable{}, fmt.Errorf("executable: %w", err)
	}
	if e.Image == "" {
		return DockerExecutable{}, errors.New("executable: image is missing")
	}
	if e.PullPolicy == "" {
		e.PullPolicy = PullIfNotPresent
	}
	return e, nil
}

// ParseAsks reads from any executable what its backend asks for: what its
// resource_limits say, if it has any. The rest of it is not looked at.
func ParseAsks(executable json.RawMessage) (placement.Resources, error) {
	o, err := parseObject(executable)
	if err != nil {
		return placement.Resources{}, fmt.Errorf("executable: %w", err)
	}
	var limits ResourceLimits
	if err := o.field("resource_limits", func(v json.RawMessage) error { return parseLimits(v, &limits) }); err != nil {
		return placement.Resources{}, fmt.Errorf("executable: %w", err)
	}
	return limits.Asks(), nil
}

// ParseProcessExecutable reads an executable for the process runtime, as
// strictly as ParseDockerExecutable.
func ParseProcessExecutable(raw json.RawMessage) (ProcessExecutable, error) {
	var e ProcessExecutable
	o, err := parseObject(raw)
	if err != nil {
		return e, fmt.Errorf("executable: %w", err)
	}
	err = errors.Join(
		o.field("command", func(v json.RawMessage) error { return parseCommand(v, &e.Command) }),
		o.field("env", func(v json.RawMessage) error { return parseEnv(v, &e.Env) }),
	)
	if err != nil {
		return ProcessExecutable{}, fmt.Errorf("executable: %w", err)
	}
	if len(e.Command) == 0 {
		return ProcessExecutable{}, errors.New("executable: command is missing")
	}
	return e, nil
}

// WithoutCredentials returns the executable without its registry credentials,
// however their field is spelt in upper and lower case. What is not a JSON
// object could hold them anywhere, and becomes null.
func WithoutCredentials(executable json.RawMessage) json.RawMessage {
	o, err := parseObject(executable)
	if err != nil {
		return json.RawMessage("null")
	}
	maps.DeleteFunc(o, func(field string, _ json.RawMessage) bool {
		return strings.EqualFold(field, "credentials")
	})
	return mustJSON(o)
}

// Session is what a backend is told about itself.
type Session struct {
	BackendID    string
	KeyName      string
	FencingToken int64
	StaticToken  string // empty: none
	Port         int    // where it has to serve
}

// Environ returns a backend's environment as sorted NAME=value entries: what
// Plane tells it, and what the request asks for except under PORT and the names
// that begin with SESSION_BACKEND_, which are Plane's.
func (s Session) Environ(requested map[string]string) []string {
	env := []string{
		"PORT=" + strconv.Itoa(s.Port),
		"SESSION_BACKEND_ID=" + s.BackendID,
		"SESSION_BACKEND_KEY=" + s.KeyName,
		"SESSION_BACKEND_FENCING_TOKEN=" + strconv.FormatInt(s.FencingToken, 10),
	}
	if s.StaticToken != "" {
		env = append(env, "SESSION_BACKEND_STATIC_TOKEN="+s.StaticToken)
	}
	for k, v := range requested {
		if k != "PORT" && !strings.HasPrefix(k, "SESSION_BACKEND_") {
			env = append(env, k+"="+v)
		}
	}
	slices.Sort(env)
	return env
}

// object is a JSON object whose fields are not decoded yet. Errors of
// encoding/json quote what they read, so they are not passed on from here.
type object map[string]json.RawMessage

func parseObject(raw json.RawMessage) (object, error) {
	var o object
	if err := strictJSON(raw, &o); err != nil {
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			return nil, fmt.Errorf("not well-formed JSON at byte %d", syntax.Offset)
		}
		return nil, err
	}
	return o, nil
}

// field parses a field unless it is left out or null.
func (o object) field(name string, parse func(json.RawMessage) error) error {
	v, ok := o[name]
	if !ok || bytes.Equal(v, []byte("null")) {
		return nil
	}
	if err := parse(v); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func parseText(v json.RawMessage, into *string) error {
	if json.Unmarshal(v, into) != nil {
		return errors.New("want a string")
	}
	if strings.ContainsRune(*into, 0) {
		return errors.New("holds a NUL character")
	}
	return nil
}

func parseImage(v json.RawMessage, into *string) error {
	if err := parseText(v, into); err != nil {
		return err
	}
	switch {
	case *into == "":
		return errors.New("is empty")
	case len(*into) > maxImage:
		return fmt.Errorf("is longer than %d bytes", maxImage)
	case strings.ContainsFunc(*into, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
		return errors.New("holds white space or control characters")
	}
	return nil
}

func parsePullPolicy(v json.RawMessage, into *PullPolicy) error {
	var s string
	if err := parseText(v, &s); err != nil {
		return err
	}
	switch *into = PullPolicy(s); *into {
	case PullIfNotPresent, PullAlways, PullNever:
		return nil
	}
	return fmt.Errorf("want IfNotPresent, Always or Never, not %q", clip(s, 40))
}

func parseCredentials(v json.RawMessage, into **Credentials) error {
	o, err := parseObject(v)
	if err != nil {
		return err
	}
	var c Credentials
	err = errors.Join(
		o.field("username", func(v json.RawMessage) error { return parseText(v, &c.Username) }),
		o.field("password", func(v json.RawMessage) error { return parseText(v, &c.Password) }),
	)
	switch {
	case err != nil:
		return err
	case c.Username == "":
		return errors.New("username is missing")
	case c.Password == "":
		return errors.New("password is missing")
	}
	*into = &c
	return nil
}

func parseEnv(v json.RawMessage, into *map[string]string) error {
	o, err := parseObject(v)
	if err != nil {
		return err
	}
	env := make(map[string]string, len(o))
	total := 0
	for _, k := range slices.Sorted(maps.Keys(o)) {
		var s string
		switch {
		case k == "":
			return errors.New("a name is empty")
		case strings.ContainsAny(k, "=\x00"):
			return fmt.Errorf("name %q holds = or NUL", clip(k, 40))
		case parseText(o[k], &s) != nil || o[k][0] != '"':
			return fmt.Errorf("%q: want a string without NUL characters", clip(k, 40))
		case len(k)+len(s) > maxEnvEntry:
			return fmt.Errorf("%q: name and value are longer than %d bytes", clip(k, 40), maxEnvEntry)
		}
		env[k] = s
		total += len(k) + len(s) + 2
	}
	if total > maxEnvTotal {
		return fmt.Errorf("%d bytes are over the limit of %d", total, maxEnvTotal)
	}
	*into = env
	return nil
}

func parseLimits(v json.RawMessage, l *ResourceLimits) error {
	o, err := parseObject(v)
	if err != nil {
		return err
	}
	number := func(name string, into *int64, least, most int64) error {
		return o.field(name, func(v json.RawMessage) error { return parseNumber(v, into, least, most) })
	}
	const huge = 1 << 60
	l.CPUPeriod = defaultCPUPeriod
	err = errors.Join(
		number("cpu_period", &l.CPUPeriod, minCPUPeriod, maxCPUPeriod),
		number("cpu_period_percent", &l.CPUPeriodPercent, 1, maxPercent),
		number("cpu_time_limit", &l.CPUTimeLimit, 1, huge),
		number("memory_limit_bytes", &l.MemoryBytes, 1, placement.MostMemoryBytes),
		number("disk_limit_bytes", &l.DiskBytes, 1, huge),
	)
	if err == nil && l.CPUPeriodPercent > 0 && l.CPUQuota() < minCPUQuota {
		return fmt.Errorf("cpu_period_percent: %d %% of %d µs is less than the %d µs that the kernel allows",
			l.CPUPeriodPercent, l.CPUPeriod, minCPUQuota)
	}
	return err
}

func parseNumber(v json.RawMessage, into *int64, least, most int64) error {
	if json.Unmarshal(v, into) != nil || *into < least || *into > most {
		return fmt.Errorf("want a whole number from %d to %d", least, most)
	}
	return nil
}

func parseMount(v json.RawMessage, into *Mount) error {
	if json.Unmarshal(v, &into.On) == nil {
		return nil
	}
	if json.Unmarshal(v, &into.Path) != nil {
		return errors.New("want true or a relative path")
	}
	if into.Path == "" {
		return errors.New("the path is empty; say true to mount the directory named after the key")
	}
	into.On = true
	return nil
}

func parseCommand(v json.RawMessage, into *[]string) error {
	var command []*string
	if json.Unmarshal(v, &command) != nil {
		return errors.New("want a list of strings")
	}
	for i, arg := range command {
		if arg == nil || strings.ContainsRune(*arg, 0) {
			return fmt.Errorf("item %d: want a string without NUL characters", i)
		}
		*into = append(*into, *arg)
	}
	if len(*into) == 0 || (*into)[0] == "" {
		return errors.New("names no program")
	}
	return nil
}
