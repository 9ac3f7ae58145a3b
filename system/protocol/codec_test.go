package protocol_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"plane/system/backend"
	"plane/system/name"
	"plane/system/protocol"
)

func ptr[T any](v T) *T { return &v }

var at = protocol.Millis{Time: time.UnixMilli(1_700_000_000_123)}

// The texts are what a 0.5.x peer writes; encoding must give the same JSON.
func TestStatesOnTheWire(t *testing.T) {
	for _, c := range []struct {
		wire  string
		state protocol.State
	}{
		{`{"status":"scheduled"}`, protocol.State{Status: backend.Scheduled}},
		{`{"status":"loading"}`, protocol.State{Status: backend.Loading}},
		{`{"status":"starting"}`, protocol.State{Status: backend.Starting}},
		{`{"status":"waiting","address":"10.0.0.5:49153"}`, protocol.State{Status: backend.Waiting, Address: "10.0.0.5:49153"}},
		{`{"status":"ready","address":"10.0.0.5:49153"}`, protocol.State{Status: backend.Ready, Address: "10.0.0.5:49153"}},
		{`{"status":"terminating","last_status":"ready","termination":"soft","reason":"external"}`, protocol.State{
			Status: backend.Terminating, Last: backend.Ready, Termination: backend.Soft, Reason: backend.External,
		}},
		{`{"status":"hard-terminating","last_status":"ready","reason":"keyexpired"}`, protocol.State{
			Status: backend.HardTerminating, Last: backend.Ready, Termination: backend.Hard, Reason: backend.KeyExpired,
		}},
		{`{"status":"terminated","last_status":"ready","termination":"soft","reason":"swept","exit_code":0}`, protocol.State{
			Status: backend.Terminated, Last: backend.Ready, Termination: backend.Soft, Reason: backend.Swept, ExitCode: ptr(0),
		}},
		{`{"status":"terminated","last_status":"loading","termination":null,"reason":null,"exit_code":null}`, protocol.State{
			Status: backend.Terminated, Last: backend.Loading,
		}},
		{`{"status":"terminated","last_status":"ready","termination":null,"reason":null,"exit_code":137,"oom":true,"message":"out of memory"}`, protocol.State{
			Status: backend.Terminated, Last: backend.Ready, ExitCode: ptr(137), OOM: true, Message: "out of memory",
		}},
	} {
		t.Run(c.wire, func(t *testing.T) {
			var got protocol.State
			require.NoError(t, json.Unmarshal([]byte(c.wire), &got))
			require.Equal(t, c.state, got)
			wire, err := json.Marshal(c.state)
			require.NoError(t, err)
			require.JSONEq(t, c.wire, string(wire))
		})
	}
}

func TestMessagesOnTheWire(t *testing.T) {
	deadlines := protocol.Deadlines{RenewAt: at.Add(30 * time.Second), SoftTerminateAt: at.Add(40 * time.Second), HardTerminateAt: at.Add(50 * time.Second)}
	const d = `{"renew_at":1700000030123,"soft_terminate_at":1700000040123,"hard_terminate_at":1700000050123}`
	fromDrone := func(b []byte) (any, error) { return protocol.DecodeFromDrone(b) }
	toDrone := func(b []byte) (any, error) { return protocol.DecodeToDrone(b) }
	fromProxy := func(b []byte) (any, error) { return protocol.DecodeFromProxy(b) }
	toProxy := func(b []byte) (any, error) { return protocol.DecodeToProxy(b) }
	fromDNS := func(b []byte) (any, error) { return protocol.DecodeFromDNS(b) }
	toDNS := func(b []byte) (any, error) { return protocol.DecodeToDNS(b) }
	for _, c := range []struct {
		wire    string
		message any
		decode  func([]byte) (any, error)
	}{
		{`{"Heartbeat":{"local_time":1700000000123}}`, protocol.Heartbeat{LocalTime: at}, fromDrone},
		{`{"BackendEvent":{"event_id":12,"backend_id":"b1","state":{"status":"loading"},"timestamp":1700000000123}}`, protocol.BackendEvent{
			EventID: 12, BackendID: "b1", State: protocol.State{Status: backend.Loading}, Timestamp: at,
		}, fromDrone},
		{
			`{"BackendMetrics":{"backend_id":"b1","mem_used":1,"mem_total":2,"mem_active":3,"mem_inactive":4,"mem_unevictable":5,"mem_limit":6,"cpu_used":7,"sys_cpu":8}}`,
			protocol.BackendMetrics{BackendID: "b1", MemUsed: 1, MemTotal: 2, MemActive: 3, MemInactive: 4, MemUnevictable: 5, MemLimit: 6, CPUUsed: 7, SysCPU: 8}, fromDrone,
		},
		{`{"AckAction":{"action_id":"ak-1"}}`, protocol.AckAction{ActionID: "ak-1"}, fromDrone},
		{`{"RenewKey":{"backend":"b1","local_time":1700000000123}}`, protocol.RenewKey{Backend: "b1", LocalTime: at}, fromDrone},
		{
			`{"Action":{"action_id":"ak-1","backend_id":"b1","drone_id":3,"action":{"Spawn":{"executable":{"image":"x"},"key":{"key":{"name":"k","namespace":"","tag":""},"deadlines":` + d + `,"token":17},"static_token":null}}}}`,
			protocol.Action{ActionID: "ak-1", BackendID: "b1", DroneID: 3, Action: protocol.ActionBody{Spawn: &protocol.Spawn{
				Executable: json.RawMessage(`{"image":"x"}`), Key: protocol.AcquiredKey{Key: protocol.Key{Name: "k"}, Deadlines: deadlines, Token: 17},
			}}}, toDrone,
		},
		{
			`{"Action":{"action_id":"ak-1","backend_id":"b1","drone_id":3,"action":{"Terminate":{"kind":"soft","reason":"external"}}}}`,
			protocol.Action{ActionID: "ak-1", BackendID: "b1", DroneID: 3, Action: protocol.ActionBody{Terminate: &protocol.Terminate{Kind: backend.Soft, Reason: backend.External}}}, toDrone,
		},
		{`{"AckEvent":{"event_id":12}}`, protocol.AckEvent{EventID: 12}, toDrone},
		{`{"RenewKeyResponse":{"backend":"b1","deadlines":` + d + `}}`, protocol.RenewKeyResponse{Backend: "b1", Deadlines: &deadlines}, toDrone},
		{`{"RenewKeyResponse":{"backend":"b1","deadlines":null}}`, protocol.RenewKeyResponse{Backend: "b1"}, toDrone},
		{`{"RouteInfoRequest":{"token":"t"}}`, protocol.RouteInfoRequest{Token: "t"}, fromProxy},
		{`{"KeepAlive":"b1"}`, protocol.KeepAlive{Backend: "b1"}, fromProxy},
		{`{"Heartbeat":{"local_time":1700000000123}}`, protocol.Heartbeat{LocalTime: at}, fromProxy},
		{`{"CertManagerRequest":"CertLeaseRequest"}`, protocol.CertManagerRequest{CertLeaseRequest: true}, fromProxy},
		{`{"CertManagerRequest":{"SetTxtRecord":{"txt_value":"v"}}}`, protocol.CertManagerRequest{SetTxtRecord: &protocol.SetTxtRecord{TxtValue: "v"}}, fromProxy},
		{`{"CertManagerRequest":"ReleaseCertLease"}`, protocol.CertManagerRequest{ReleaseCertLease: true}, fromProxy},
		{
			`{"RouteInfoResponse":{"token":"t","route_info":{"backend_id":"b1","address":"10.0.0.5:1","secret_token":"s","cluster":"c:1","user":"u","user_data":{"a":1},"subdomain":"x"}}}`,
			protocol.RouteInfoResponse{Token: "t", RouteInfo: &protocol.RouteInfo{
				BackendID: "b1", Address: "10.0.0.5:1", SecretToken: "s", Cluster: "c:1", User: ptr("u"), UserData: json.RawMessage(`{"a":1}`), Subdomain: ptr("x"),
			}}, toProxy,
		},
		{`{"RouteInfoResponse":{"token":"t","route_info":null}}`, protocol.RouteInfoResponse{Token: "t"}, toProxy},
		{`{"CertManagerResponse":{"CertLeaseResponse":{"accepted":true}}}`, protocol.CertManagerResponse{CertLeaseResponse: &protocol.Accepted{Accepted: true}}, toProxy},
		{`{"BackendRemoved":{"backend":"b1"}}`, protocol.BackendRemoved{Backend: "b1"}, toProxy},
		{`{"TokenRevoked":{"backend":"b1","user":"u"}}`, protocol.TokenRevoked{Backend: "b1", User: "u"}, toProxy},
		{`{"TxtRecordRequest":{"cluster":"c1.test"}}`, protocol.TxtRecordRequest{Cluster: "c1.test"}, fromDNS},
		{`{"TxtRecordRequest":{"cluster":"c1.test","request_id":7}}`, protocol.TxtRecordRequest{Cluster: "c1.test", RequestID: 7}, fromDNS},
		{`{"TxtRecordResponse":{"cluster":"c1.test","txt_value":null}}`, protocol.TxtRecordResponse{Cluster: "c1.test"}, toDNS},
		{`{"TxtRecordResponse":{"cluster":"c1.test","txt_value":"a"}}`, protocol.TxtRecordResponse{Cluster: "c1.test", TxtValue: ptr("a")}, toDNS},
		{`{"TxtRecordResponse":{"cluster":"c1.test","txt_value":"a","txt_values":["a","b"]}}`, protocol.TxtRecordResponse{Cluster: "c1.test", TxtValue: ptr("a"), TxtValues: []string{"a", "b"}}, toDNS},
		{`{"TxtRecordResponse":{"cluster":"c1.test","txt_value":null,"request_id":7,"failed":true}}`, protocol.TxtRecordResponse{Cluster: "c1.test", RequestID: 7, Failed: true}, toDNS},
	} {
		t.Run(c.wire[:min(len(c.wire), 60)], func(t *testing.T) {
			got, err := c.decode([]byte(c.wire))
			require.NoError(t, err)
			require.Equal(t, c.message, got)
			require.JSONEq(t, c.wire, string(encode(t, got)))
		})
	}
}

func encode(t *testing.T, m any) []byte {
	t.Helper()
	switch m := m.(type) {
	case protocol.FromDrone:
		return protocol.EncodeFromDrone(m)
	case protocol.ToDrone:
		return protocol.EncodeToDrone(m)
	case protocol.FromProxy:
		return protocol.EncodeFromProxy(m)
	case protocol.ToProxy:
		return protocol.EncodeToProxy(m)
	case protocol.Handshake:
		return protocol.EncodeHandshake(m)
	case protocol.FromDNS:
		return protocol.EncodeFromDNS(m)
	case protocol.ToDNS:
		return protocol.EncodeToDNS(m)
	}
	t.Fatalf("no encoding for %T", m)
	return nil
}

func TestMalformedMessagesNameTheField(t *testing.T) {
	for _, c := range []struct{ frame, want string }{
		{``, "unexpected end"},
		{`7`, "want an object with one key"},
		{`{}`, "have 0"},
		{`{"Heartbeat":{},"AckAction":{}}`, "have 2"},
		{`{"Heartbeat":{}}`, "local_time is missing"},
		{`{"Heartbeat":{"local_time":"now"}}`, "Heartbeat: want a time in milliseconds"},
		{`{"Heartbeat":{"local_time":-1}}`, "out of range"},
		{`{"Heartbeat":null}`, "want a JSON object"},
		{`{"BackendEvent":{"event_id":1,"backend_id":"b1","timestamp":1}}`, "state is missing"},
		{`{"BackendEvent":{"event_id":1,"backend_id":"B!","state":{"status":"ready","address":"1.2.3.4:5"},"timestamp":1}}`, "backend_id"},
		{`{"BackendEvent":{"event_id":1,"backend_id":"b1","state":{"status":"ready"},"timestamp":1}}`, "address"},
		{`{"BackendEvent":{"event_id":1,"backend_id":"b1","state":{"status":"asleep"},"timestamp":1}}`, `"asleep"`},
		{`{"BackendEvent":{"event_id":1,"backend_id":"b1","state":{"status":"terminating","last_status":"ready","termination":"soft","reason":"bored"},"timestamp":1}}`, `"bored"`},
		{`{"BackendEvent":{"event_id":1,"backend_id":"b1","state":{"status":"terminated","last_status":"terminating"},"timestamp":1}}`, "last_status"},
		{"{\"AckAction\":{\"action_id\":\"\xff\"}}", "UTF-8"},
		{`{"RenewKey":{"backend":"b1"}}`, "local_time is missing"},
	} {
		_, err := protocol.DecodeFromDrone([]byte(c.frame))
		require.ErrorContains(t, err, c.want, c.frame)
	}
}

func TestMalformedMessagesOfADNSReceiver(t *testing.T) {
	for frame, want := range map[string]string{
		`{"TxtRecordRequest":{}}`:                                             "cluster is missing",
		`{"TxtRecordRequest":{"cluster":7}}`:                                  "cluster",
		`{"TxtRecordRequest":"c1.test"}`:                                      "want a JSON object",
		`{"TxtRecordRequest":{"cluster":"` + strings.Repeat("a", 300) + `"}}`: "cluster has 300 bytes",
	} {
		_, err := protocol.DecodeFromDNS([]byte(frame))
		require.ErrorContains(t, err, want, frame)
	}
	_, err := protocol.DecodeToDNS([]byte(`{"TxtRecordResponse":{"txt_value":"a"}}`))
	require.ErrorContains(t, err, "cluster is missing")
}

func TestMalformedChallengesNameTheField(t *testing.T) {
	for name, c := range map[string]struct{ value, want string }{
		"none":                     {``, "txt_value: is missing"},
		"too long":                 {strings.Repeat("a", 256), "txt_value: has 256 bytes"},
		"a line of its own":        {`a\nb`, "txt_value: has a character that is not printable ASCII, at byte 1"},
		"not ASCII":                {`caf\u00e9`, "at byte 3"},
		"the longest there may be": {strings.Repeat("a", 255), ""},
		"as people write it":       {"put by hand, 1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := protocol.DecodeFromProxy([]byte(`{"CertManagerRequest":{"SetTxtRecord":{"txt_value":"` + c.value + `"}}}`))
			if c.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.want)
		})
	}
}

func TestPeersOf05AreToldApart(t *testing.T) {
	for version, want := range map[string]bool{"0.5.5": true, "0.4.12": true, "0.6.0": false, "0.10.1": false, "1.0.0": false, "dev": false, "": false} {
		require.Equal(t, want, protocol.Version{Version: version}.Before06(), version)
	}
}

func TestUnknownMessagesAreToldApart(t *testing.T) {
	_, err := protocol.DecodeFromDrone([]byte(`{"Snooze":{}}`))
	require.ErrorIs(t, err, protocol.ErrUnknownMessage)
	_, err = protocol.DecodeToProxy([]byte(`"Snooze"`))
	require.ErrorIs(t, err, protocol.ErrUnknownMessage)
	_, err = protocol.DecodeFromDNS([]byte(`{"Snooze":{}}`))
	require.ErrorIs(t, err, protocol.ErrUnknownMessage)
	_, err = protocol.DecodeToDNS([]byte(`{"Snooze":{}}`))
	require.ErrorIs(t, err, protocol.ErrUnknownMessage)
	_, err = protocol.DecodeToDrone([]byte(`{"Action":{"action_id":"ak-1","backend_id":"b1","drone_id":1,"action":{"Snooze":{}}}}`))
	require.ErrorIs(t, err, protocol.ErrUnknownMessage)
}

func TestUnknownFieldsAreSkipped(t *testing.T) {
	m, err := protocol.DecodeFromDrone([]byte(`{"AckAction":{"action_id":"ak-1","mood":"fine"}}`))
	require.NoError(t, err)
	require.Equal(t, protocol.AckAction{ActionID: "ak-1"}, m)
}

func TestHandshake(t *testing.T) {
	h := protocol.Handshake{Version: protocol.Version{Version: "0.5.5", GitHash: "abc"}, Name: "dr-1"}
	frame := protocol.EncodeHandshake(h)
	require.JSONEq(t, `{"version":{"version":"0.5.5","git_hash":"abc"},"name":"dr-1"}`, string(frame))
	got, err := protocol.DecodeHandshake(frame, name.Drone)
	require.NoError(t, err)
	require.Equal(t, h, got)
	_, err = protocol.DecodeHandshake(frame, name.Proxy)
	require.ErrorContains(t, err, "px-")
}

func TestHandshakeOfADroneStatesWhatItHas(t *testing.T) {
	h := protocol.Handshake{Name: "dr-1", Capacity: &protocol.Capacity{MaxBackends: 10, MilliCPUs: 3500, MemoryBytes: 1 << 33}}
	frame := protocol.EncodeHandshake(h)
	require.JSONEq(t, `{"version":{"version":"","git_hash":""},"name":"dr-1",
		"capacity":{"max_backends":10,"milli_cpus":3500,"memory_bytes":8589934592}}`, string(frame))
	got, err := protocol.DecodeHandshake(frame, name.Drone)
	require.NoError(t, err)
	require.Equal(t, h, got)

	with := func(capacity string) []byte { return []byte(`{"name":"dr-1","capacity":` + capacity + `}`) }
	for capacity, want := range map[string]*protocol.Capacity{
		`null`:                         nil,
		`{}`:                           {},
		`{"milli_cpus":null,"gpus":4}`: {},
		`{"max_backends":3}`:           {MaxBackends: 3},
	} {
		got, err := protocol.DecodeHandshake(with(capacity), name.Drone)
		require.NoError(t, err, capacity)
		require.Equal(t, want, got.Capacity, capacity)
	}
	for capacity, want := range map[string]string{
		`[]`:                              "handshake: capacity: want a JSON object",
		`{"max_backends":-1}`:             "handshake: capacity: max_backends: want a whole number from 0 to 1000000000",
		`{"milli_cpus":1.5}`:              "handshake: capacity: milli_cpus: want",
		`{"milli_cpus":1000000001}`:       "handshake: capacity: milli_cpus: want",
		`{"memory_bytes":"8 GiB"}`:        "handshake: capacity: memory_bytes: want",
		`{"memory_bytes":70368744177665}`: "handshake: capacity: memory_bytes: want",
	} {
		_, err := protocol.DecodeHandshake(with(capacity), name.Drone)
		require.ErrorContains(t, err, want, capacity)
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		`{"Heartbeat":{"local_time":1}}`, `{"KeepAlive":"b1"}`, `{"CertManagerRequest":"ReleaseCertLease"}`,
		`{"Action":{"action_id":"ak-1","backend_id":"b","drone_id":1,"action":{"Terminate":{"kind":"hard","reason":"lost"}}}}`,
		`{"RouteInfoResponse":{"token":"t","route_info":{"backend_id":"b","address":"[::1]:1","user_data":{}}}}`,
		`{"BackendEvent":{"event_id":1,"backend_id":"b","state":{"status":"terminated","last_status":"ready","exit_code":1},"timestamp":9}}`,
		`{"version":{"version":"0.5.5","git_hash":"abc"},"name":"dr-1","capacity":{"max_backends":1,"milli_cpus":500,"memory_bytes":1073741824}}`,
		`{"TxtRecordRequest":{"cluster":"c1.test"}}`, `{"TxtRecordResponse":{"cluster":"c1.test","txt_value":"a","txt_values":["a"]}}`,
		`"x"`, `{`, strings.Repeat("[", 1000),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		for _, decode := range []func([]byte) (any, error){
			func(b []byte) (any, error) { return protocol.DecodeFromDrone(b) },
			func(b []byte) (any, error) { return protocol.DecodeToDrone(b) },
			func(b []byte) (any, error) { return protocol.DecodeFromProxy(b) },
			func(b []byte) (any, error) { return protocol.DecodeToProxy(b) },
			func(b []byte) (any, error) { return protocol.DecodeHandshake(b, name.Drone) },
			func(b []byte) (any, error) { return protocol.DecodeFromDNS(b) },
			func(b []byte) (any, error) { return protocol.DecodeToDNS(b) },
		} {
			m, err := decode(frame)
			if err != nil {
				continue
			}
			again, err := decode(encode(t, m))
			require.NoError(t, err)
			require.Equal(t, encode(t, m), encode(t, again))
		}
	})
}
