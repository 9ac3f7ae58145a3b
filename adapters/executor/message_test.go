package executor

import (
	"bufio"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDecodeNamesWhatIsWrong(t *testing.T) {
	for line, want := range map[string]string{
		`[]`:                              "want a JSON object",
		`{"id":7,"message":{}}`:           "id: want string",
		`{"id":"a"}`:                      "message: want a JSON object",
		`{"id":"a","message":{}}`:         "message: want an object with one key, have 0",
		"{\"id\":\"\xff\",\"message\":1}": "is not UTF-8",
		`{"id":"a","message":{"SpawnResult":{"Ok":{"port":1}}}}`:                      "SpawnResult: Ok: container_id is missing",
		`{"id":"a","message":{"SpawnResult":{"Ok":{"container_id":"c","port":"1"}}}}`: "SpawnResult: Ok: port: want int",
		`{"id":"a","message":{"SpawnResult":{"Maybe":1}}}`:                            "SpawnResult: want Ok or Err",
		`{"id":"a","message":{"SpawnResult":{"Err":null}}}`:                           "SpawnResult: Err: want a string",
		`{"id":"a","message":{"TerminateResult":{"Ok":null}}}`:                        "TerminateResult: Ok: want true or false",
		`{"id":"a","message":{"WaitForBackendResult":{"Err":"Late"}}}`:                "WaitForBackendResult: Err: want StartupTimeout or Other",
		`{"id":null,"message":{"TerminateEvent":{"backend_id":"B!"}}}`:                "TerminateEvent: backend_id: is no backend's name",
		`{"id":null,"message":{"MetricsMessage":{"backend_id":"b","mem_used":-1}}}`:   "MetricsMessage: mem_used: want uint64",
		`{"id":null,"message":{"PrepareResult":{"Ok":null}}}`:                         "PrepareResult: id is missing",
	} {
		_, err := decode([]byte(line))
		require.ErrorContains(t, err, want, line)
	}
}

func TestDecodeTakesBareVariants(t *testing.T) {
	m, err := decode([]byte(`{"id":"a","message":{"WaitForBackendResult":{"Err":{"Other":"why"}}}}`))
	require.NoError(t, err)
	require.Equal(t, &result[struct{}]{refused: true, text: "why"}, m.waited)
	m, err = decode([]byte(`{"id":"a","message":{"TerminateResult":{"Ok":false}}}`))
	require.NoError(t, err)
	require.Equal(t, &result[bool]{}, m.terminated)
	_, err = decode([]byte(`{"id":"a","message":"Later"}`))
	require.ErrorIs(t, err, errUnknownKind)
}

// FuzzLines throws bytes at the reader of lines and at the decoder: nothing may
// panic, what is accepted is whole and within its limits, and an error shows
// nothing of what was sent.
func FuzzLines(f *testing.F) {
	const secret = "s3cr3tv4lu3"
	for _, seed := range []string{
		`{"id":"a/b","message":{"SpawnResult":{"Ok":{"container_id":"c","port":80}}}}`,
		`{"id":"a","message":{"SpawnResult":{"Err":"` + secret + `"}}}`,
		`{"id":"a","message":{"WaitForBackendResult":{"Err":"StartupTimeout"}}}`,
		`{"id":null,"message":{"TerminateEvent":{"backend_id":"b","exit_code":null}}}`,
		`{"id":null,"message":{"MetricsMessage":{"backend_id":"b","cpu_used":1}}}`,
		`{"id":null,"message":"` + secret + `"}` + "\n\n{",
		`{"id":"a","message":{"TerminateResult":{"Ok":"` + secret + `"}}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		in := bufio.NewReaderSize(strings.NewReader(string(data)), 16)
		for {
			line, err := readLine(in)
			if err != nil {
				return
			}
			m, err := decode(line)
			if err != nil {
				require.NotContains(t, err.Error(), secret)
				continue
			}
			parts := 0
			for _, there := range []bool{
				m.prepared != nil, m.spawned != nil, m.terminated != nil, m.waited != nil, m.metrics != nil, m.ended != nil,
			} {
				if there {
					parts++
				}
			}
			require.Equal(t, 1, parts)
			if m.spawned != nil && !m.spawned.refused {
				require.NotEmpty(t, m.spawned.ok.ContainerID)
				require.Positive(t, m.spawned.ok.Port)
				require.LessOrEqual(t, m.spawned.ok.Port, 65535)
			}
			if m.ended != nil {
				require.NoError(t, backendName(m.ended.BackendID))
			}
		}
	})
}

func TestReadLine(t *testing.T) {
	in := bufio.NewReaderSize(strings.NewReader("a\n\n"+strings.Repeat("x", 100)+"\ncut"), 16)
	for _, want := range []string{"a\n", "\n", strings.Repeat("x", 100) + "\n"} {
		line, err := readLine(in)
		require.NoError(t, err)
		require.Equal(t, want, string(line))
	}
	_, err := readLine(in)
	require.ErrorContains(t, err, "ended within a line")
	_, err = readLine(bufio.NewReader(strings.NewReader("")))
	require.ErrorContains(t, err, "closed the connection")
	_, err = readLine(bufio.NewReader(strings.NewReader(strings.Repeat("x", maxAnswer+1) + "\n")))
	require.ErrorContains(t, err, "over the limit of 1048576 bytes")
}

func TestWhatIsTooLongIsNotSent(t *testing.T) {
	_, err := encode("a", "Spawn", strings.Repeat("s3cret", maxRequest/6+1))
	require.ErrorContains(t, err, "Spawn of 8388")
	require.ErrorContains(t, err, "is over the limit of 8388608")
	require.NotContains(t, err.Error(), "s3cret")
}
