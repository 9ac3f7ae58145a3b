package scenarios

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
)

// delegated is a cluster with a DNS receiver, to which the internet's resolvers
// find their way.
type delegated struct {
	*cluster
	internet *internet
	receiver *process
}

// startDelegated starts one; with a database, its controller is on that.
func startDelegated(t *testing.T, overTCP bool, database string) *delegated {
	t.Helper()
	n := newInternet(t, workDir(t), overTCP) // first: it may skip the test
	env := []string{"PLANE_LOG_LEVEL=debug"}
	if database != "" {
		env = append(env, "PLANE_DB="+database)
	}
	c := startController(t, processes, secureHost, env...)
	d := &delegated{cluster: c, internet: n}
	d.receiver = c.newRole(t, "receiver", "dns", "--name", "ns-"+c.id, "--controller-url", c.url, "--zone", receiveZone,
		"--bind", n.receiver, "--port", n.port, "--ns", "ns-"+receiveZone)
	d.receiver.start(t)
	eventually(t, 15*time.Second, "the receiver answers", func() error {
		_, err := d.challenges()
		return err
	})
	return d
}

// challenges asks the receiver itself how many values it has.
func (d *delegated) challenges() (int, error) {
	client := &dns.Client{Timeout: time.Second}
	q := new(dns.Msg).SetQuestion(secureHost+"."+receiveZone+".", dns.TypeTXT)
	answer, _, err := client.Exchange(q, net.JoinHostPort(d.internet.receiver, d.internet.port))
	if err == nil && answer.Rcode != dns.RcodeSuccess {
		err = errors.New("it answers " + dns.RcodeToString[answer.Rcode])
	}
	if err != nil {
		return 0, err
	}
	return len(answer.Answer), nil
}

// TestRecordsAreChecked: check-dns finds nothing wrong with records that are as
// docs/tls.md has them, and says what is wrong with others.
func TestRecordsAreChecked(t *testing.T) {
	t.Parallel()
	d := startDelegated(t, false, "")
	check := func(more ...string) (string, error) {
		out, diagnostics, err := d.tryAdmin(t, append([]string{"check-dns", "--cluster", secureHost, "--zone", receiveZone,
			"--resolver", d.internet.address, "--receiver-port", d.internet.port}, more...)...)
		return out + diagnostics, err
	}
	out, err := check()
	require.NoError(t, err, out)
	require.NotContains(t, out, "wrong")
	for _, fine := range []string{
		"A or AAAA " + secureHost + ": leads to 127.0.0.1", "A or AAAA *." + secureHost + ": leads to 127.0.0.1",
		"CNAME _acme-challenge." + secureHost, "NS " + receiveZone + ": is delegated to ns-" + receiveZone,
		"SOA " + receiveZone + " at " + d.internet.receiver + " over UDP", "SOA " + receiveZone + " at " + d.internet.receiver + " over TCP",
		"TXT _acme-challenge." + secureHost, "CAA " + userDomain + ": letsencrypt.org may issue",
	} {
		require.Contains(t, out, "ok      "+fine)
	}

	out, err = check("--zone", "other."+userDomain, "--json")
	require.Error(t, err)
	require.Contains(t, out, `"_acme-challenge.`+secureHost+". 300 IN CNAME "+secureHost+".other."+userDomain+`."`)
	require.Contains(t, out, `"other.`+userDomain+". 3600 IN NS ns.other."+userDomain+`."`)

	d.receiver.kill9()
	out, err = check()
	require.Error(t, err)
	// Whether the resolver still remembers the delegation or not.
	require.Contains(t, out, "wrong   TXT _acme-challenge."+secureHost+": the resolver finds no answer")
	require.Contains(t, out, "is plane dns running there")
}
