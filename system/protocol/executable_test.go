package protocol_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"plane/system/placement"
	"plane/system/protocol"
)

func TestParseDockerExecutable(t *testing.T) {
	full := `{"image":"registry.example/app:1","pull_policy":"Always","credentials":{"username":"u","password":"p"},
		"env":{"A":"1","EMPTY":""},"resource_limits":{"cpu_period":50000,"cpu_period_percent":150,"cpu_time_limit":60,
		"memory_limit_bytes":1000,"disk_limit_bytes":2000},"mount":"a/b","network_name":"net","later":{"x":1}}`
	e, err := protocol.ParseDockerExecutable(json.RawMessage(full))
	require.NoError(t, err)
	require.Equal(t, protocol.DockerExecutable{
		Image: "registry.example/app:1", PullPolicy: protocol.PullAlways,
		Credentials: &protocol.Credentials{Username: "u", Password: "p"},
		Env:         map[string]string{"A": "1", "EMPTY": ""},
		Limits:      protocol.ResourceLimits{CPUPeriod: 50000, CPUPeriodPercent: 150, CPUTimeLimit: 60, MemoryBytes: 1000, DiskBytes: 2000},
		Mount:       protocol.Mount{On: true, Path: "a/b"}, NetworkName: "net",
	}, e)
	require.EqualValues(t, 75000, e.Limits.CPUQuota())
}

func TestParseDockerExecutableDefaults(t *testing.T) {
	for _, text := range []string{
		`{"image":"app"}`,
		`{"image":"app","pull_policy":null,"credentials":null,"env":null,"resource_limits":null,"mount":null,"network_name":null}`,
		`{"image":"app","mount":false}`,
	} {
		e, err := protocol.ParseDockerExecutable(json.RawMessage(text))
		require.NoError(t, err, text)
		require.Equal(t, protocol.DockerExecutable{Image: "app", PullPolicy: protocol.PullIfNotPresent}, e, text)
	}
	e, err := protocol.ParseDockerExecutable(json.RawMessage(`{"image":"app","mount":true,"resource_limits":{"cpu_period_percent":50}}`))
	require.NoError(t, err)
	require.Equal(t, protocol.Mount{On: true}, e.Mount)
	require.EqualValues(t, 50000, e.Limits.CPUQuota(), "half of the default period")
}

func TestParseDockerExecutableNamesTheField(t *testing.T) {
	for text, want := range map[string]string{
		``:                                "want a JSON object",
		`[]`:                              "want a JSON object",
		`{"image":"app"`:                  "not well-formed JSON",
		`{}`:                              "image is missing",
		`{"image":null}`:                  "image is missing",
		`{"Image":"app"}`:                 "image is missing",
		`{"image":""}`:                    "image: is empty",
		`{"image":5}`:                     "image: want a string",
		`{"image":"a b"}`:                 "image: holds white space",
		`{"image":"a","pull_policy":"x"}`: `pull_policy: want IfNotPresent, Always or Never, not "x"`,
		`{"image":"a","credentials":"x"}`: "credentials: want a JSON object",
		`{"image":"a","credentials":{"password":"p"}}`:                               "credentials: username is missing",
		`{"image":"a","credentials":{"username":"u"}}`:                               "credentials: password is missing",
		`{"image":"a","env":[]}`:                                                     "env: want a JSON object",
		`{"image":"a","env":{"A":1}}`:                                                `env: "A": want a string`,
		`{"image":"a","env":{"A":null}}`:                                             `env: "A": want a string`,
		`{"image":"a","env":{"A=B":"1"}}`:                                            `env: name "A=B" holds =`,
		`{"image":"a","env":{"":"1"}}`:                                               "env: a name is empty",
		`{"image":"a","env":{"A":"x\u0000"}}`:                                        `env: "A": want a string without NUL`,
		`{"image":"a","resource_limits":7}`:                                          "resource_limits: want a JSON object",
		`{"image":"a","resource_limits":{"cpu_period":1}}`:                           "resource_limits: cpu_period: want a whole number from 1000",
		`{"image":"a","resource_limits":{"cpu_period_percent":0}}`:                   "cpu_period_percent: want a whole number from 1",
		`{"image":"a","resource_limits":{"cpu_period_percent":.5}}`:                  "not well-formed JSON",
		`{"image":"a","resource_limits":{"memory_limit_bytes":-1}}`:                  "memory_limit_bytes: want a whole number",
		`{"image":"a","resource_limits":{"disk_limit_bytes":"1"}}`:                   "disk_limit_bytes: want a whole number",
		`{"image":"a","resource_limits":{"cpu_time_limit":1.5}}`:                     "cpu_time_limit: want a whole number",
		`{"image":"a","resource_limits":{"cpu_period":1000,"cpu_period_percent":5}}`: "cpu_period_percent: 5 % of 1000 µs",
		`{"image":"a","mount":1}`:                                                    "mount: want true or a relative path",
		`{"image":"a","mount":""}`:                                                   "mount: the path is empty",
		`{"image":"a","network_name":true}`:                                          "network_name: want a string",
	} {
		_, err := protocol.ParseDockerExecutable(json.RawMessage(text))
		require.ErrorContains(t, err, want, text)
		require.ErrorContains(t, err, "executable: ", text)
	}
}

func TestExecutableErrorsTellNoSecrets(t *testing.T) {
	const secret = "hunter2"
	long := strings.Repeat(secret, 20000)
	for _, text := range []string{
		`{"image":"a","env":{"A":"` + secret + `\u0000"}}`,
		`{"image":"a","env":{"A":"` + long + `"}}`,
		`{"image":"a","env":{"A":["` + secret + `"]}}`,
		`{"image":"a","env":"` + secret + `"}`,
		`{"image":"a","env":{"A":"` + secret + `"} x`,
		`{"image":"a","credentials":"` + secret + `"}`,
		`{"image":"a","credentials":{"username":"u","password":["` + secret + `"]}}`,
		`{"image":"a","credentials":{"password":"` + secret + `"}}`,
	} {
		_, err := protocol.ParseDockerExecutable(json.RawMessage(text))
		require.Error(t, err)
		require.NotContains(t, err.Error(), secret)
	}
	e, err := protocol.ParseDockerExecutable(json.RawMessage(`{"image":"a","credentials":{"username":"u","password":"` + secret + `"}}`))
	require.NoError(t, err)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		require.NotContains(t, fmt.Sprintf(verb, e), secret)
		require.NotContains(t, fmt.Sprintf(verb, *e.Credentials), secret)
	}
}

func TestParseAsks(t *testing.T) {
	for text, want := range map[string]placement.Resources{
		`{"command":["app"]}`:                                                                         {},
		`{"image":"a","resource_limits":null}`:                                                        {},
		`{"image":7,"resource_limits":{"mood":"fine"}}`:                                               {},
		`{"resource_limits":{"cpu_period_percent":150,"memory_limit_bytes":4294967296}}`:              {MilliCPUs: 1500, MemoryBytes: 4 << 30},
		`{"resource_limits":{"cpu_period":1000000,"cpu_period_percent":1,"memory_limit_bytes":null}}`: {MilliCPUs: 10},
		`{"resource_limits":{"cpu_period":50000,"cpu_time_limit":5,"disk_limit_bytes":1}}`:            {},
		`{"resource_limits":{"cpu_period_percent":1000000,"memory_limit_bytes":70368744177664}}`:      {MilliCPUs: 1e7, MemoryBytes: placement.MostMemoryBytes},
	} {
		got, err := protocol.ParseAsks(json.RawMessage(text))
		require.NoError(t, err, text)
		require.Equal(t, want, got, text)
	}
	for text, want := range map[string]string{
		`[]`:                     "executable: want a JSON object",
		`{"resource_limits":[]}`: "executable: resource_limits: want a JSON object",
		`{"resource_limits":{"cpu_period_percent":-5}}`:                "executable: resource_limits: cpu_period_percent: want a whole number from 1 to",
		`{"resource_limits":{"cpu_period_percent":9e99}}`:              "resource_limits: cpu_period_percent: want",
		`{"resource_limits":{"memory_limit_bytes":70368744177665}}`:    "resource_limits: memory_limit_bytes: want a whole number from 1 to 70368744177664",
		`{"resource_limits":{"memory_limit_bytes":"a lot of memory"}}`: "resource_limits: memory_limit_bytes: want",
	} {
		_, err := protocol.ParseAsks(json.RawMessage(text))
		require.ErrorContains(t, err, want, text)
	}
}

func TestParseProcessExecutable(t *testing.T) {
	e, err := protocol.ParseProcessExecutable(json.RawMessage(`{"command":["/bin/app","-v",""],"env":{"A":"1"},"image":"skipped"}`))
	require.NoError(t, err)
	require.Equal(t, protocol.ProcessExecutable{Command: []string{"/bin/app", "-v", ""}, Env: map[string]string{"A": "1"}}, e)
	for text, want := range map[string]string{
		`{}`:                         "command is missing",
		`{"command":[]}`:             "command: names no program",
		`{"command":[""]}`:           "command: names no program",
		`{"command":"app"}`:          "command: want a list of strings",
		`{"command":["app",null]}`:   "command: item 1",
		`{"command":["a\u0000b"]}`:   "command: item 0",
		`{"command":["a"],"env":[]}`: "env: want a JSON object",
	} {
		_, err := protocol.ParseProcessExecutable(json.RawMessage(text))
		require.ErrorContains(t, err, want, text)
	}
}

func TestWithoutCredentials(t *testing.T) {
	for text, want := range map[string]string{
		`{"image":"a","credentials":{"username":"u","password":"p"},"x":[1, 2]}`: `{"image":"a","x":[1,2]}`,
		`{"image":"a"}`:                       `{"image":"a"}`,
		`{"Credentials":1,"CREDENTIALS":2}`:   `{}`,
		`{"credentials":1,"credentials":"p"}`: `{}`,
		`{"credentials":"p"`:                  `null`,
		`"p"`:                                 `null`,
	} {
		require.Equal(t, want, string(protocol.WithoutCredentials(json.RawMessage(text))), text)
	}
}

func TestEnviron(t *testing.T) {
	s := protocol.Session{BackendID: "b", KeyName: "a key", FencingToken: 7, Port: 8080}
	require.Equal(t, []string{
		"PATHS=x=y", "PORT=8080", "SESSION_BACKEND_FENCING_TOKEN=7", "SESSION_BACKEND_ID=b", "SESSION_BACKEND_KEY=a key",
	}, s.Environ(map[string]string{"PATHS": "x=y", "PORT": "1", "SESSION_BACKEND_ID": "mine", "SESSION_BACKEND_STATIC_TOKEN": "mine"}))
	s.StaticToken = "s.t"
	require.Contains(t, s.Environ(nil), "SESSION_BACKEND_STATIC_TOKEN=s.t")
}

func FuzzParseExecutable(f *testing.F) {
	f.Add([]byte(`{"image":"a","env":{"A":"1"},"mount":"x/y","resource_limits":{"cpu_period_percent":50}}`))
	f.Add([]byte(`{"image":"a","credentials":{"username":"u","password":"p"},"pull_policy":"Never","mount":true}`))
	f.Add([]byte(`{"command":["a","b"],"env":{"A":null}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := protocol.ParseDockerExecutable(raw)
		clean := protocol.WithoutCredentials(raw)
		if !json.Valid(clean) {
			t.Fatalf("WithoutCredentials made %q", clean)
		}
		if err == nil {
			if e.Image == "" || e.Limits.CPUQuota() < 0 || e.Mount.Path != "" && !e.Mount.On {
				t.Fatalf("accepted %+v", e)
			}
			again, err := protocol.ParseDockerExecutable(clean)
			if err != nil || again.Credentials != nil || again.Image != e.Image || len(again.Env) != len(e.Env) {
				t.Fatalf("without credentials %q: %+v, %v", clean, again, err)
			}
		}
		if p, err := protocol.ParseProcessExecutable(raw); err == nil && p.Command[0] == "" {
			t.Fatalf("accepted %+v", p)
		}
	})
}
