package scenarios

import (
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
)

const challengeOwner = "_acme-challenge." + secureHost + "."

// nameserver is a controller and a DNS receiver, each a process of its own.
type nameserver struct {
	controller, receiver *process
	url                  string
	address              string // of the receiver
}

// startNameserver starts both; the receiver on an address and a port.
func startNameserver(t *testing.T, ip, port string) *nameserver {
	t.Helper()
	dir, controllerPort := workDir(t), strconv.Itoa(freePort(t))
	n := &nameserver{url: "http://127.0.0.1:" + controllerPort, address: net.JoinHostPort(ip, port)}
	n.controller = newProcess(t, dir, "controller", "controller", "--port", controllerPort)
	n.receiver = newProcess(t, dir, "receiver", "dns", "--controller-url", n.url, "--zone", receiveZone, "--bind", ip,
		"--port", port, "--ns-address", ip)
	n.controller.start(t)
	n.receiver.start(t)
	eventually(t, 15*time.Second, "the receiver answers", func() error {
		m, err := ask(n.address, "udp", secureHost+"."+receiveZone+".", dns.TypeTXT)
		return errors.Join(err, wantCode(m, dns.RcodeSuccess))
	})
	return n
}

// put shows a challenge and returns its value.
func (n *nameserver) put(t *testing.T) string {
	t.Helper()
	out, err := exec.Command(*planeBinary, "admin", "--controller", n.url, "put-dummy-dns", "--cluster", secureHost).CombinedOutput()
	require.NoError(t, err, string(out))
	_, value, ok := strings.Cut(strings.TrimSpace(string(out)), `"`)
	require.True(t, ok, string(out))
	return strings.TrimSuffix(value, `"`)
}

func ask(server, network, owner string, kind uint16) (*dns.Msg, error) {
	client := dns.Client{Net: network, Timeout: 5 * time.Second}
	m, _, err := client.Exchange(new(dns.Msg).SetQuestion(owner, kind), server)
	return m, err
}

func wantCode(m *dns.Msg, code int) error {
	if m != nil && m.Rcode != code {
		return fmt.Errorf("answered %s, want %s", dns.RcodeToString[m.Rcode], dns.RcodeToString[code])
	}
	return nil
}

// texts are the TXT values of an answer.
func texts(m *dns.Msg) (all []string) {
	for _, rr := range m.Answer {
		if txt, ok := rr.(*dns.TXT); ok {
			all = append(all, strings.Join(txt.Txt, ""))
		}
	}
	return all
}

// TestARealResolverFindsChallenges: unbound, which minimises its questions
// strictly and randomises their case, follows the user's CNAME and the zone's
// delegation to the receiver, over UDP and over TCP.
func TestARealResolverFindsChallenges(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"udp", "tcp"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			resolver := newInternet(t, workDir(t), transport == "tcp")
			n := startNameserver(t, resolver.receiver, resolver.port)
			eventually(t, 15*time.Second, "the resolver finds that there is nothing", func() error {
				m, err := ask(resolver.address, "udp", challengeOwner, dns.TypeTXT)
				if err := errors.Join(err, wantCode(m, dns.RcodeSuccess)); err != nil {
					return err
				}
				if len(m.Answer) != 1 || len(texts(m)) != 0 {
					return fmt.Errorf("want the CNAME alone, have %v", m.Answer)
				}
				return nil
			})
			value := n.put(t)
			m, err := ask(resolver.address, "udp", challengeOwner, dns.TypeTXT)
			require.NoError(t, errors.Join(err, wantCode(m, dns.RcodeSuccess)))
			require.Equal(t, []string{value}, texts(m), "at once: no cache hides it, though the resolver was told a moment ago that there is nothing")
			m, err = ask(resolver.address, "udp", challengeOwner, dns.TypeCAA)
			require.NoError(t, errors.Join(err, wantCode(m, dns.RcodeSuccess)), "authorities ask for CAA and stop at an error")
			m, err = ask(resolver.address, "udp", "_dmarc."+receiveZone+".", dns.TypeTXT)
			require.NoError(t, errors.Join(err, wantCode(m, dns.RcodeNameError)))
		})
	}
}

// TestDigUnderstandsTheReceiver asks with the tool that people use.
func TestDigUnderstandsTheReceiver(t *testing.T) {
	t.Parallel()
	dig, err := exec.LookPath("dig")
	if err != nil {
		t.Skip("no dig on this machine")
	}
	port := strconv.Itoa(freePort(t))
	n := startNameserver(t, "127.0.0.1", port)
	value := n.put(t)
	owner := secureHost + "." + receiveZone
	for name, c := range map[string]struct{ args, want string }{
		"a challenge":               {owner + " TXT", value},
		"with odd case":             {"C1.MySite.TEST." + receiveZone + " TXT", "ANSWER SECTION:\nC1.MySite.TEST." + receiveZone + "."},
		"by TCP":                    {"+tcp " + owner + " TXT", value},
		"without EDNS":              {"+noedns " + owner + " TXT", value},
		"with cookies and padding":  {"+cookie +padding=128 " + owner + " TXT", value},
		"an EDNS option of nobody":  {"+ednsopt=65001:abcd " + owner + " TXT", value},
		"EDNS of another version":   {"+edns=1 +noednsnegotiation " + owner + " TXT", "status: BADVERS"},
		"with DNSSEC":               {"+dnssec " + owner + " TXT", "flags: do"},
		"the wrong type":            {owner + " MX", "status: NOERROR"},
		"CAA":                       {owner + " CAA", "ANSWER: 0, AUTHORITY: 1"},
		"ANY":                       {"+notcp " + owner + " ANY", "RFC8482"},
		"SOA":                       {receiveZone + " SOA", "hostmaster." + receiveZone},
		"NS":                        {receiveZone + " NS", "ns." + receiveZone},
		"an empty non-terminal":     {"test." + receiveZone + " NS", "status: NOERROR"},
		"what is not there":         {"_x." + receiveZone + " TXT", "status: NXDOMAIN"},
		"outside the zone":          {"mysite.test TXT", "status: REFUSED"},
		"a transfer":                {receiveZone + " AXFR", "Transfer failed"},
		"another operation":         {"+opcode=2 " + receiveZone + " SOA", "status: NOTIMP"},
		"a header and nothing else": {"+header-only", "status: FORMERR"},
	} {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"@127.0.0.1", "-p", port, "+norecurse", "+tries=1"}, strings.Fields(c.args)...)
			out, err := exec.Command(dig, args...).CombinedOutput()
			require.NoError(t, err, string(out))
			require.Contains(t, strings.ReplaceAll(string(out), "\t\t", "\t"), c.want)
			require.NotContains(t, string(out), "Warning", "dig finds fault with it")
		})
	}
}

// TestAReceiverWithoutAControllerSaysSo: SERVFAIL at once, and answers again as
// soon as a controller is back.
func TestAReceiverWithoutAControllerSaysSo(t *testing.T) {
	t.Parallel()
	n := startNameserver(t, "127.0.0.1", strconv.Itoa(freePort(t)))
	owner := secureHost + "." + receiveZone + "."
	n.controller.kill9()
	eventually(t, 5*time.Second, "SERVFAIL", func() error {
		m, err := ask(n.address, "udp", owner, dns.TypeTXT)
		return errors.Join(err, wantCode(m, dns.RcodeServerFailure))
	})
	began := time.Now()
	for range 10 {
		m, err := ask(n.address, "udp", owner, dns.TypeTXT)
		require.NoError(t, errors.Join(err, wantCode(m, dns.RcodeServerFailure)))
	}
	require.Less(t, time.Since(began), time.Second, "at once, not by a time-out")
	m, err := ask(n.address, "udp", receiveZone+".", dns.TypeSOA)
	require.NoError(t, errors.Join(err, wantCode(m, dns.RcodeSuccess)), "what needs no controller is answered")

	n.controller.start(t)
	eventually(t, 20*time.Second, "answers again", func() error {
		m, err := ask(n.address, "tcp", owner, dns.TypeTXT)
		return errors.Join(err, wantCode(m, dns.RcodeSuccess))
	})
	n.receiver.end(t, syscall.SIGTERM, 5*time.Second)
}
