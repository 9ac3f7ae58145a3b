package httpapi_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"plane/adapters/httpapi"
	"plane/system/protocol"
)

func TestBadBodiesAreToldByField(t *testing.T) {
	spawn := func(fields string) string { return `{"spawn_config":{"executable":{},` + fields + `}}` }
	for body, want := range map[string]string{
		``:                               "body: is empty",
		`{`:                              "body: is not JSON",
		`[]`:                             "body: want an object, not a list",
		`null`:                           "body: want an object, not null",
		`{} {}`:                          "body: there is something after",
		`{}x`:                            "body: there is something after",
		"{\"user\":\"\xff\"}":            "body: is not UTF-8",
		`{"key":"k"}`:                    "key: want an object, not a string",
		`{"key":{}}`:                     "key.name: is missing",
		`{"key":{"name":7}}`:             "key.name: want a string, not a number",
		`{"key":{"name":"a","tag":[]}}`:  "key.tag: want a string, not a list",
		`{"user":{"password":"s3cret"}}`: "user: want a string, not an object",
		`{"auth":"s3cret"}`:              "auth: want an object, not a string",
		`{"spawn_config":{}}`:            "spawn_config.executable: is missing",
		`{"spawn_config":{"executable":"s3cret"}}`:                   "spawn_config.executable: want an object, not a string",
		spawn(`"max_idle_seconds":"x"`):                              `spawn_config.max_idle_seconds: want a whole number, not "x"`,
		spawn(`"max_idle_seconds":1.5`):                              `spawn_config.max_idle_seconds: want a whole number, not 1.5`,
		spawn(`"lifetime_limit_seconds":-1`):                         `spawn_config.lifetime_limit_seconds: want seconds from 0`,
		spawn(`"lifetime_limit_seconds":1e30`):                       `spawn_config.lifetime_limit_seconds: want a whole number`,
		spawn(`"lifetime_limit_seconds":` + strings.Repeat("9", 18)): `want seconds from 0 to 3153600000`,
		spawn(`"use_static_token":"yes"`):                            `spawn_config.use_static_token: want true or false, not "yes"`,
		spawn(`"pool":3`):                                            "spawn_config.pool: want a string, not a number",
		spawn(`"id":true`):                                           "spawn_config.id: want a string, not true or false",
		strings.Repeat(" ", httpapi.MaxBody) + "{}":                  "body: longer than",
	} {
		name := body
		if len(name) > 50 {
			name = name[:50]
		}
		t.Run(name, func(t *testing.T) {
			s := newSurface(t, "")
			w := s.do("POST", "/ctrl/connect", body)
			require.Equal(t, 400, w.Code)
			e := apiError(t, w)
			require.Equal(t, protocol.InvalidRequest, e.Kind)
			require.Contains(t, e.Message, want)
			require.NotContains(t, e.Message+s.log.String(), "s3cret")
			require.Empty(t, s.api.seen())
		})
	}
}

func TestRevokeWantsBothFields(t *testing.T) {
	for body, want := range map[string]string{
		`{"user":"ann"}`:                  "backend_id: is missing",
		`{"backend_id":"b1"}`:             "user: is missing",
		`{"backend_id":"b1","user":null}`: "user: is missing",
	} {
		s := newSurface(t, "")
		w := s.do("POST", "/ctrl/revoke", body)
		require.Equal(t, 400, w.Code)
		require.Contains(t, apiError(t, w).Message, want)
		require.Empty(t, s.api.seen())
	}
}

func TestConnectBodyPassesWhole(t *testing.T) {
	const body = `{
		"key":{"name":"board","namespace":"n","tag":"t"}, "user":"ann", "auth":{"role":["a"]}, "colour":"unknown fields are skipped",
		"spawn_config":{"id":"b7","cluster":"a.test","pool":"big","executable":{"image":"x","env":{"A":"1"}},
			"lifetime_limit_seconds":10,"max_idle_seconds":0,"use_static_token":false,"subdomain":"sub"}}`
	req, err := httpapi.DecodeConnect([]byte(body))
	require.NoError(t, err)
	var want protocol.ConnectRequest
	require.NoError(t, json.Unmarshal([]byte(body), &want))
	require.Equal(t, want, req)

	nulls, err := httpapi.DecodeConnect([]byte(`{"key":null,"spawn_config":null,"user":null,"auth":null,"Key":{}}`))
	require.NoError(t, err)
	require.Equal(t, protocol.ConnectRequest{}, nulls)
}

func FuzzDecodeConnect(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"key":{"name":"a"}}`, `{"key":{"name":"a"},"spawn_config":{"executable":{"image":"x"},"max_idle_seconds":3}}`,
		`{"user":"\ud800"}`, `{"auth":{"a":[1,2,{"b":null}]}}`, `{"spawn_config":{"executable":{},"max_idle_seconds":-0}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		req, err := httpapi.DecodeConnect(body)
		if err != nil {
			if !strings.Contains(err.Error(), ": ") {
				t.Fatalf("the error names no field: %v", err)
			}
			return
		}
		b, err := json.Marshal(req)
		if err != nil {
			t.Fatalf("what was accepted cannot be passed on: %v", err)
		}
		again, err := httpapi.DecodeConnect(b)
		if err != nil {
			t.Fatalf("what was accepted is refused when written anew: %v", err)
		}
		b2, err := json.Marshal(again)
		if err != nil || string(b) != string(b2) {
			t.Fatalf("reading is not stable: %s, then %s (%v)", b, b2, err)
		}
	})
}
