// Command dnsbench measures how many questions a second the DNS receiver answers
// on one core, beside another authoritative server on the same core, the same
// client and the same questions: Debian's nsd.
//
//	make bench-dns
//
// The servers run on core 0 (plane with GOMAXPROCS=1, nsd with one process), the
// client on the others. They take turns, several times; the medians are printed.
// The receiver has a real controller behind it, on the client's cores.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"
)

const (
	zoneName = "acme.example"
	cluster  = "c1.mysite.example"
	pinned   = "DNSBENCH_PINNED" // set once this process is on its cores
)

func main() {
	plane := flag.String("plane", "bin/plane", "the plane binary")
	each := flag.Duration("for", 3*time.Second, "how long each turn lasts")
	turns := flag.Int("turns", 3, "how many turns each server has")
	flag.Parse()
	if err := run(*plane, *each, *turns); err != nil {
		fmt.Fprintln(os.Stderr, "dnsbench:", err)
		os.Exit(1)
	}
}

// server is one that is measured.
type server struct {
	name    string
	address string
	cmd     *exec.Cmd
	rates   []float64
}

func run(plane string, each time.Duration, turns int) (err error) {
	if err := pin(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "dnsbench")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	value, stop, receiver, err := startPlane(plane)
	defer stop()
	if err != nil {
		return err
	}
	other, err := startNSD(dir, value)
	if err != nil {
		return err
	}
	defer end(other.cmd)
	servers := []*server{receiver, other}
	for _, s := range servers {
		if err := s.wait(); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	for range turns {
		for _, s := range servers {
			r, err := load(s.address, each)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			fmt.Printf("%-8s %8.0f questions/s, %d lost, %d wrong\n", s.name, r.rate(), r.lost, r.wrong)
			s.rates = append(s.rates, r.rate())
		}
	}
	ours, theirs := median(receiver.rates), median(other.rates)
	fmt.Printf("\nmedians on one core: plane dns %.0f/s, nsd %.0f/s, ratio %.2f\n", ours, theirs, ours/theirs)
	return nil
}

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}

// pin moves this process from core 0 to the others, by starting it anew.
func pin() error {
	if os.Getenv(pinned) != "" || runtime.NumCPU() == 1 {
		return nil
	}
	taskset, err := exec.LookPath("taskset")
	if err != nil {
		return errors.New("taskset is missing (Debian: util-linux)")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	args := append([]string{taskset, "-c", fmt.Sprintf("1-%d", runtime.NumCPU()-1), self}, os.Args[1:]...)
	return syscall.Exec(taskset, args, append(os.Environ(), pinned+"=1")) //nolint:gosec // it starts itself, with what it was given
}

// onCore0 is a command for a server that is measured.
func onCore0(program string, args ...string) *exec.Cmd {
	c := exec.CommandContext(context.Background(), "taskset", append([]string{"-c", "0", program}, args...)...)
	c.Env = append(os.Environ(), "GOMAXPROCS=1")
	return c
}

func start(c *exec.Cmd) error {
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread() // whose end would be the server's
	return c.Start()
}

func end(c *exec.Cmd) {
	if c != nil && c.Process != nil {
		_ = c.Process.Signal(syscall.SIGTERM) // it may have ended
		_ = c.Wait()
	}
}

// startPlane starts a controller with a challenge, and a receiver. stop ends
// what was started, also after an error.
func startPlane(plane string) (value string, stop func(), s *server, err error) {
	var all []*exec.Cmd
	stop = func() {
		for _, c := range slices.Backward(all) {
			end(c)
		}
	}
	controllerAt, at := freeAddress(), freeAddress()
	_, controllerPort, _ := net.SplitHostPort(controllerAt)
	_, port, _ := net.SplitHostPort(at)
	controller := exec.CommandContext(context.Background(), plane, "controller", "--port", controllerPort)
	controller.Env = append(os.Environ(), "PLANE_LOG_LEVEL=error")
	all = append(all, controller)
	if err := start(controller); err != nil {
		return "", stop, nil, err
	}
	receiver := onCore0(plane, "dns", "--controller-url", "http://"+controllerAt, "--zone", zoneName, "--bind", "127.0.0.1", "--port", port,
		"--ns-address", "127.0.0.1", "--rate-limit", "0")
	receiver.Env = append(receiver.Env, "PLANE_LOG_LEVEL=error")
	all = append(all, receiver)
	if err := start(receiver); err != nil {
		return "", stop, nil, err
	}
	var out []byte
	for range 50 {
		put := exec.CommandContext(context.Background(), plane, "admin", "--controller", "http://"+controllerAt, "put-dummy-dns", "--cluster", cluster)
		if out, err = put.CombinedOutput(); err == nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err != nil {
		return "", stop, nil, fmt.Errorf("put a challenge: %w: %s", err, out)
	}
	_, value, _ = strings.Cut(strings.TrimSpace(string(out)), `"`)
	return strings.TrimSuffix(value, `"`), stop, &server{name: "plane", address: at, cmd: receiver}, nil
}

func startNSD(dir, value string) (*server, error) {
	nsd, err := exec.LookPath("nsd")
	if err != nil {
		if nsd, err = exec.LookPath("/usr/sbin/nsd"); err != nil { // which is on root's path only
			return nil, errors.New("nsd is missing (Debian: apt-get install nsd)")
		}
	}
	at := freeAddress()
	_, port, _ := net.SplitHostPort(at)
	conf := fmt.Sprintf(`server:
  ip-address: 127.0.0.1@%s
  server-count: 1
  username: ""
  chroot: ""
  zonesdir: %q
  pidfile: ""
  xfrdfile: ""
  zonelistfile: %q
  xfrdir: %q
  rrl-ratelimit: 0
  minimal-responses: yes
remote-control:
  control-enable: no
zone:
  name: %s
  zonefile: zone
`, port, dir, filepath.Join(dir, "zones"), dir, zoneName)
	records := strings.Join([]string{
		"$ORIGIN " + zoneName + ".",
		"@ 3600 IN SOA ns hostmaster 1 3600 600 86400 1",
		"@ 3600 IN NS ns." + zoneName + ".",
		"ns 3600 IN A 127.0.0.1",
		fmt.Sprintf("%s 1 IN TXT %q", cluster, value),
		"",
	}, "\n")
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "nsd.conf"), []byte(conf), 0o600), os.WriteFile(filepath.Join(dir, "zone"), []byte(records), 0o600)); err != nil {
		return nil, err
	}
	c := onCore0(nsd, "-d", "-c", filepath.Join(dir, "nsd.conf"))
	return &server{name: "nsd", address: at, cmd: c}, start(c)
}

// freeAddress is an address that nobody listened on a moment ago.
func freeAddress() string {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "127.0.0.1:5300"
	}
	defer l.Close() //nolint:errcheck // it served
	return l.Addr().String()
}

// wait waits until the server answers with the challenge.
func (s *server) wait() error {
	m := new(dns.Msg).SetQuestion(cluster+"."+zoneName+".", dns.TypeTXT)
	client := dns.Client{Timeout: 200 * time.Millisecond}
	for range 50 {
		if answer, _, err := client.Exchange(m, s.address); err == nil && len(answer.Answer) == 1 {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return errors.New("it does not answer with the challenge")
}
