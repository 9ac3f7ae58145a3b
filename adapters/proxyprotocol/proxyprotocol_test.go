package proxyprotocol_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	proxyproto "github.com/pires/go-proxyproto"
	"github.com/stretchr/testify/require"

	"plane/adapters/proxyprotocol"
)

func TestParseSources(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.0/8":             "[10.0.0.0/8]",
		"10.1.2.3/8, fd00::/8":   "[10.0.0.0/8 fd00::/8]",
		"127.0.0.1,::1,10.0.0.5": "[127.0.0.1/32 ::1/128 10.0.0.5/32]",
		"":                       "",
		"10.0.0.0/8,":            "",
		"balancer":               "",
		"10.0.0.0/33":            "",
		"0.0.0.0/0":              "",
		"::/0":                   "",
		"::ffff:10.0.0.0/104":    "",
	} {
		got, err := proxyprotocol.ParseSources(text)
		if want == "" {
			require.Error(t, err, text)
			continue
		}
		require.NoError(t, err, text)
		require.Equal(t, want, fmt.Sprint(got))
	}
}

// serve answers every request with the address that the server believes.
func serve(t *testing.T, sources string, within time.Duration) (address string) {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	trusted, err := proxyprotocol.ParseSources(sources)
	require.NoError(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.RemoteAddr)
	})}
	go server.Serve(proxyprotocol.Listen(inner, trusted, within))
	t.Cleanup(func() { server.Close() })
	return inner.Addr().String()
}

const request = "GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"

// ask sends bytes and returns all that comes back.
func ask(t *testing.T, address string, bytes []byte) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer conn.Close()
	_, err = conn.Write(bytes)
	require.NoError(t, err)
	require.NoError(t, conn.SetReadDeadline(time.Now().Add(30*time.Second)))
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		var timeout net.Error
		require.False(t, errors.As(err, &timeout) && timeout.Timeout(), "it stays open")
		return "closed"
	}
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return fmt.Sprint(res.StatusCode, " ", string(body))
}

func header(t *testing.T, version byte, source string) []byte {
	t.Helper()
	from := net.TCPAddrFromAddrPort(netip.MustParseAddrPort(source))
	to := net.TCPAddrFromAddrPort(netip.MustParseAddrPort("198.51.100.1:443"))
	if from.IP.To4() == nil {
		to = net.TCPAddrFromAddrPort(netip.MustParseAddrPort("[2001:db8::1]:443"))
	}
	b, err := proxyproto.HeaderProxyFromAddrs(version, from, to).Format()
	require.NoError(t, err)
	return b
}

func TestTrustedSourcesAnnounceTheClient(t *testing.T) {
	address := serve(t, "127.0.0.0/8", 10*time.Second)
	for name, c := range map[string]struct {
		header []byte
		want   string
	}{
		"version 1":           {header(t, 1, "203.0.113.7:1234"), "200 203.0.113.7:1234"},
		"version 1 over IPv6": {header(t, 1, "[2001:db8::7]:1234"), "200 [2001:db8::7]:1234"},
		"version 2":           {header(t, 2, "203.0.113.7:1234"), "200 203.0.113.7:1234"},
		"version 2 over IPv6": {header(t, 2, "[2001:db8::7]:1234"), "200 [2001:db8::7]:1234"},
		"no header":           {nil, "closed"},
		"two headers":         {append(header(t, 1, "203.0.113.7:1"), header(t, 1, "203.0.113.8:2")...), "400 400 Bad Request"},
		"a broken header":     {[]byte("PROXY TCP4 here there 1 2\r\n"), "closed"},
		"an endless header":   {append([]byte("PROXY TCP4 "), make([]byte, 2000)...), "closed"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.want, ask(t, address, append(c.header, request...)))
		})
	}
	t.Run("the balancer's own", func(t *testing.T) {
		local, err := (&proxyproto.Header{Version: 2, Command: proxyproto.LOCAL, TransportProtocol: proxyproto.UNSPEC}).Format()
		require.NoError(t, err)
		require.Regexp(t, `^200 127\.0\.0\.1:\d+$`, ask(t, address, append(local, request...)))
	})
}

func TestNobodyElseCanSayWhoTheyAre(t *testing.T) {
	address := serve(t, "10.0.0.0/8", 10*time.Second)
	require.Regexp(t, `^200 127\.0\.0\.1:\d+$`, ask(t, address, []byte(request)))
	for _, version := range []byte{1, 2} {
		require.Contains(t, ask(t, address, append(header(t, version, "203.0.113.7:1234"), request...)), "400 ")
	}
}

func TestAHeaderIsNotWaitedForLong(t *testing.T) {
	address := serve(t, "127.0.0.1", 20*time.Millisecond)
	for name, begin := range map[string]string{"nothing": "", "half a header": "PROXY TCP4 "} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, "closed", ask(t, address, []byte(begin)))
		})
	}
}

func TestHalfClose(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer inner.Close()
	sources, err := proxyprotocol.ParseSources("127.0.0.1")
	require.NoError(t, err)
	listener := proxyprotocol.Listen(inner, sources, time.Minute)
	client, err := net.Dial("tcp", inner.Addr().String())
	require.NoError(t, err)
	defer client.Close()
	_, err = client.Write(append(header(t, 1, "203.0.113.7:1234"), "hello"...))
	require.NoError(t, err)
	conn, err := listener.Accept()
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.(interface{ CloseWrite() error }).CloseWrite())
	_, err = client.Read(make([]byte, 1))
	require.ErrorIs(t, err, io.EOF)
	got := make([]byte, 5)
	_, err = io.ReadFull(conn, got)
	require.NoError(t, err)
	require.Equal(t, "hello", string(got))
}
