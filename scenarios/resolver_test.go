package scenarios

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
)

// The domain of a user of Plane, and what is in it.
const (
	userDomain  = "mysite.test"
	secureHost  = "c1." + userDomain
	receiveZone = "acme." + userDomain
)

// internet is what lies between an authority and the DNS receiver: a recursive
// resolver that is as strict as any, and the user's domain with the records that
// docs/tls.md asks for.
type internet struct {
	*process
	address  string // of the resolver
	receiver string // the address that the zone is delegated to
	port     string // and the port, which is 53 if the machine lets us have it
}

// newInternet starts unbound, minimising strictly and randomising case. It asks
// the receiver over TCP if so told.
func newInternet(t *testing.T, dir string, overTCP bool) *internet {
	t.Helper()
	unbound, err := exec.LookPath("unbound")
	if err != nil {
		for _, path := range []string{"/usr/sbin/unbound", "/usr/local/sbin/unbound"} {
			if _, err = os.Stat(path); err == nil {
				unbound = path
				break
			}
		}
	}
	if err != nil {
		t.Skip("unbound is not installed (scripts/deps installs it on Debian as root)")
	}
	port := freePort(t)
	n := &internet{address: fmt.Sprintf("127.0.0.1:%d", port)}
	n.chooseReceiver(t)
	zone := filepath.Join(dir, "zone")
	require.NoError(t, os.WriteFile(zone, []byte(n.records()), 0o644))
	config := filepath.Join(dir, "unbound.conf")
	require.NoError(t, os.WriteFile(config, []byte(n.configuration(dir, zone, port, overTCP)), 0o644))
	n.process = newProcess(t, dir, "unbound", "-d", "-d", "-c", config)
	n.path = unbound
	n.start(t)
	eventually(t, 10*time.Second, "unbound answers", func() error {
		require.True(t, n.running(), "unbound has ended: %v", n.err)
		_, err := n.ask(secureHost, dns.TypeA)
		return err
	})
	return n
}

// chooseReceiver takes an address of this machine for the receiver: port 53 of
// it if we may, so that resolvers find it by the delegation alone.
func (n *internet) chooseReceiver(t *testing.T) {
	t.Helper()
	unused := freePort(t)
	n.receiver, n.port = fmt.Sprintf("127.53.%d.%d", unused>>8, unused&0xff), "53"
	l, err := net.ListenPacket("udp", net.JoinHostPort(n.receiver, "53"))
	if err != nil {
		n.port = fmt.Sprint(unused)
		t.Logf("port 53 of %s cannot be had (%v): the resolver is told where the zone is served, and the delegation is not followed", n.receiver, err)
		return
	}
	l.Close()
}

func (n *internet) records() string {
	//nolint:dupword // a zone's SOA ends in ns. and begins the next line with the owner
	return strings.NewReplacer("DOMAIN", userDomain, "HOST", secureHost, "ZONE", receiveZone, "RECEIVER", n.receiver).Replace(
		`DOMAIN. 1 IN SOA ns.DOMAIN. me.DOMAIN. 1 3600 600 86400 1
DOMAIN. 1 IN NS ns.DOMAIN.
DOMAIN. 1 IN CAA 0 issue "letsencrypt.org"
ns.DOMAIN. 1 IN A 127.0.0.1
HOST. 1 IN A 127.0.0.1
*.HOST. 1 IN CNAME HOST.
_acme-challenge.HOST. 1 IN CNAME HOST.ZONE.
ns-ZONE. 1 IN A RECEIVER
ZONE. 1 IN NS ns-ZONE.
`)
}

func (n *internet) configuration(dir, zone string, port int, overTCP bool) string {
	yes := map[bool]string{true: "yes", false: "no"}
	text := fmt.Sprintf(`server:
  interface: 127.0.0.1
  port: %d
  directory: %q
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  verbosity: 1
  do-ip6: no
  num-threads: 1
  module-config: "iterator"
  do-not-query-localhost: no
  access-control: 127.0.0.0/8 allow
  local-zone: "test." nodefault
  qname-minimisation: yes
  qname-minimisation-strict: yes
  use-caps-for-id: yes
  tcp-upstream: %s
auth-zone:
  name: %q
  zonefile: %q
  for-downstream: no
  for-upstream: yes
`, port, dir, yes[overTCP], userDomain, zone)
	if n.port != "53" {
		text += fmt.Sprintf("stub-zone:\n  name: %q\n  stub-addr: %s@%s\n  stub-tcp-upstream: %s\n", receiveZone, n.receiver, n.port, yes[overTCP])
	}
	return text
}

// ask asks the resolver.
func (n *internet) ask(name string, kind uint16) (*dns.Msg, error) {
	client := &dns.Client{Timeout: 5 * time.Second}
	answer, _, err := client.Exchange(new(dns.Msg).SetQuestion(dns.Fqdn(name), kind), n.address)
	return answer, err
}
