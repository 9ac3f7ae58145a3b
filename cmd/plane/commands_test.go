package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
)

// find returns the command of a command line, and what is left of the line.
func find(t *testing.T, line string) (*cobra.Command, []string) {
	t.Helper()
	cmd, rest, err := rootCommand().Find(strings.Fields(line))
	require.NoError(t, err, line)
	return cmd, rest
}

func hasFlag(cmd *cobra.Command, name string) bool {
	return cmd.Flags().Lookup(name) != nil || cmd.InheritedFlags().Lookup(name) != nil || cmd.PersistentFlags().Lookup(name) != nil
}

// TestFlagsOfTheProtocol holds the commands to the flags of Plane 0.5.x.
func TestFlagsOfTheProtocol(t *testing.T) {
	for command, flags := range map[string]string{
		"migrate":              "--db --db-password-file",
		"controller":           "--db --port --host --controller-url --default-cluster --cleanup-min-age-days --forward-auth --best-of",
		"drone":                "--name --controller-url --cluster --ip --db --docker-runtime --executor-socket --log-config --pool --mount-base --auto-prune-images --auto-prune-containers-older-than-seconds --runtime",
		"proxy":                "--name --controller-url --cluster --https --http-port --https-port --cert-path --acme-endpoint --acme-email --acme-eab-kid --acme-eab-hmac-key --acme-key-type --acme-profile --acme-ca-file --root-redirect-url --tls-cert --tls-key --hsts-seconds --proxy-protocol",
		"dns":                  "--name --controller-url --zone --port --bind --ns --ns-address --contact --rate-limit --metrics",
		"admin put-dummy-dns":  "--controller --cluster",
		"admin connect":        "--controller --image --cluster --key --immediate --max-idle-seconds --id --static-token --pool --mount --subdomain",
		"admin terminate":      "--controller --hard --immediate",
		"admin drain":          "--controller --cluster --drone",
		"admin status":         "--controller",
		"admin cluster-state":  "--controller",
		"admin backend-status": "--controller",
		"admin list":           "--controller --cluster --status --drone --key --namespace --json --all",
		"admin check-dns":      "--cluster --zone --resolver --json",
		"run-config":           "",
		"version":              "",
		"dev":                  "--controller-port --proxy-port",
		"demo":                 "--controller-port --proxy-port",
	} {
		cmd, _ := find(t, command)
		require.Equal(t, "plane "+command, cmd.CommandPath())
		for flag := range strings.FieldsSeq(flags) {
			require.True(t, hasFlag(cmd, strings.TrimPrefix(flag, "--")), "plane %s has no %s", command, flag)
		}
	}
	for line, value := range map[string]string{
		"controller port": "8080", "controller host": "127.0.0.1", "controller best-of": "2",
		"drone ip": "127.0.0.1", "drone runtime": "docker", "drone auto-prune-containers-older-than-seconds": "0",
		"proxy http-port": "9090", "dns port": "53", "proxy https-port": "443", "proxy https": "false",
	} {
		command, flag, _ := strings.Cut(line, " ")
		cmd, _ := find(t, command)
		require.Equal(t, value, cmd.Flag(flag).DefValue, line)
	}
	connect, _ := find(t, "admin connect")
	require.Equal(t, "500", connect.Flag("max-idle-seconds").DefValue)
}

// TestCommandsInDocuments holds every command line of the documents to the
// commands and flags that there are.
func TestCommandsInDocuments(t *testing.T) {
	documents, err := filepath.Glob("../../docs/*.md")
	require.NoError(t, err)
	var seen int
	for _, document := range append(documents, "../../README.md") {
		text, err := os.ReadFile(document)
		require.NoError(t, err)
		for _, line := range commandLines(string(text)) {
			seen++
			checkCommandLine(t, document, line)
		}
	}
	require.Greater(t, seen, 15)
}

// TestConfigurationsInDocuments holds every configuration file of the documents
// to what is accepted.
func TestConfigurationsInDocuments(t *testing.T) {
	text, err := os.ReadFile("../../docs/operations.md")
	require.NoError(t, err)
	found := regexp.MustCompile("(?ms)^```json\n(.*?)^```").FindAllStringSubmatch(string(text), -1)
	require.Greater(t, len(found), 3)
	for _, b := range found {
		_, err := parseConfig([]byte(b[1]))
		require.NoError(t, err, b[1])
	}
}

var (
	block       = regexp.MustCompile("(?ms)^```[a-z]*\n(.*?)^```")
	planeInLine = regexp.MustCompile(`(?:^|[ "'(/|])plane ([a-z].*)$`)
	inline      = regexp.MustCompile("`(?:bin/)?plane ([a-z][^`]*)`")
)

// commandLines returns what comes after "plane" in blocks of code and in code
// within sentences.
func commandLines(text string) []string {
	var lines []string
	for _, b := range block.FindAllStringSubmatch(text, -1) {
		code := strings.ReplaceAll(b[1], "\\\n", " ")
		for line := range strings.Lines(code) {
			line, _, _ = strings.Cut(strings.TrimSpace(line), " #")
			if m := planeInLine.FindStringSubmatch(line); m != nil {
				lines = append(lines, m[1])
			}
		}
	}
	for _, m := range inline.FindAllStringSubmatch(block.ReplaceAllString(text, ""), -1) {
		lines = append(lines, m[1])
	}
	return lines
}

func checkCommandLine(t *testing.T, document, line string) {
	t.Helper()
	line, _, _ = strings.Cut(line, " -- ")
	words := strings.Fields(line)
	cmd, rest, err := rootCommand().Find(words)
	require.NoError(t, err, "%s: plane %s", document, line)
	require.NotEqual(t, "plane", cmd.CommandPath(), "%s: there is no plane %s", document, line)
	if cmd.HasSubCommands() && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
		t.Errorf("%s: there is no plane %s", document, line)
	}
	for _, word := range words {
		if flag, ok := strings.CutPrefix(word, "--"); ok {
			flag, _, _ = strings.Cut(flag, "=")
			require.True(t, hasFlag(cmd, strings.Trim(flag, "],.")), "%s: plane %s: there is no --%s", document, line, flag)
		}
	}
}
