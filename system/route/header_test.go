package route

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestSetIdentityLeavesNothingOfTheClients(t *testing.T) {
	for _, key := range []string{
		"X-Verified-Username", "x-verified-username", "X_Verified_Username", "X-VERIFIED_SECRET", "X-Verified-Backend",
		"X-Verified-Path", "X-Verified-User-Data", "X-Verified-Anything", "X-Verified-", "X-Forwarded-For", "x_forwarded_for", "X-Forwarded-Proto",
	} {
		h := Header{key: {"root", "root"}, "Accept": {"kept"}}
		SetIdentity(h, Identity{Backend: "one", Secret: "sesame", Path: "/p", Client: "10.1.1.1", Proto: "https"})
		require.Equal(t, Header{
			"Accept": {"kept"}, "X-Verified-Path": {"/p"}, "X-Verified-Backend": {"one"}, "X-Verified-Secret": {"sesame"},
			"X-Forwarded-For": {"10.1.1.1"}, "X-Forwarded-Proto": {"https"},
		}, h, key)
	}
}

func TestSetIdentityOfAUser(t *testing.T) {
	for _, c := range []struct {
		name, user, data string
		wantUser         []string
		wantData         []string
	}{
		{"plain", "amy", `{"a":1}`, []string{"amy"}, []string{`{"a":1}`}},
		{"no data", "amy", `null`, []string{"amy"}, nil},
		{"empty name", "", ``, []string{""}, nil},
		{"data over lines", "amy", "{\n\"a\": [1,\r\n2]}", []string{"amy"}, []string{`{"a":[1,2]}`}},
		{"data beyond ASCII", "amy", `{"a":"é😀"}`, []string{"amy"}, []string{`{"a":"\u00e9\ud83d\ude00"}`}},
		{"name beyond ASCII", "émy", ``, []string{"émy"}, nil},
		{"name that would begin another header", "amy\r\nX-Verified-Role: root", ``, nil, nil},
		{"name with a zero", "a\x00", ``, nil, nil},
	} {
		h := Header{}
		SetIdentity(h, Identity{User: &c.user, UserData: json.RawMessage(c.data)})
		require.Equal(t, c.wantUser, h["X-Verified-Username"], c.name)
		require.Equal(t, c.wantData, h["X-Verified-User-Data"], c.name)
		for _, data := range c.wantData {
			require.JSONEq(t, c.data, data)
		}
	}
}
