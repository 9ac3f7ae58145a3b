package cluster

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"plane/sim/fake"
	"plane/system/certificate"
	"plane/system/port"
)

// tlsEnd is what a proxy has for its certificates.
type tlsEnd struct {
	keeper *certificate.Keeper // nil while it is down
	disk   *fake.CertDisk
	keys   map[string]bool
	// wrong is by how much its wall clock is; stepped, that it was wrong since the
	// process began.
	wrong   atomic.Int64 // nanoseconds
	stepped bool
}

// wall is the wall clock of a proxy's machine.
type wall struct {
	c *Cluster
	p *process
}

// Wall implements port.WallClock.
func (w wall) Wall() time.Time { return w.c.Now().Add(time.Duration(w.p.tls.wrong.Load())) }

const defaultCertificateLife = 15 * time.Minute

func (c *Cluster) startAuthority() {
	life := c.opt.Shape.CertificateLife
	if life == 0 {
		life = defaultCertificateLife
	}
	c.resolver = fake.NewResolver(c.Env, c.Network)
	c.authority = fake.NewAuthority(c.Env, c.Database, c.resolver, Name, life, c.opt.Shape.Old, c.opt.Shape.Early, inspector{c})
}

// bootKeeper starts what keeps a proxy in possession of a certificate.
func (c *Cluster) bootKeeper(p *process, challenges port.Challenges) {
	n := p.node
	if p.tls.disk == nil {
		p.tls.disk, p.tls.keys = &fake.CertDisk{}, map[string]bool{}
	}
	p.tls.stepped = p.tls.wrong.Load() != 0
	keeper, err := certificate.New(certificate.Config{
		Names: []string{Name, "*." + Name}, OrderTimeout: certificate.DefaultOrderTimeout, Log: c.log(p.name),
	}, certificate.World{
		Clock: n.Clock(), Wall: wall{c, p}, Rand: n.Random(), Challenges: challenges,
		Issuer: c.authority.Issuer(n, p.tls.disk), Store: c.authority.CertStore(n, p.tls.disk),
	})
	if err != nil {
		panic(fmt.Sprintf("cluster: certificates: %v", err))
	}
	p.tls.keeper = keeper
	serve(n, "certificates", keeper.Run)
}

// stepWall steps the wall clock of a proxy's machine, or puts it right.
func (c *Cluster) stepWall(p *process) {
	p.tls.stepped = true
	wrong := time.Duration(0)
	if c.rnd.Chance(0.7) {
		wrong = c.Database.AnyStep()
	}
	p.tls.wrong.Store(int64(wrong))
	c.Tell(p.name, "its wall clock is wrong by %v", wrong)
}

// inspector holds orders to G14.
type inspector struct{ c *Cluster }

// Ordered implements fake.Inspector.
func (i inspector) Ordered(proxy string, kept *port.Certificate, suggested time.Time) {
	p := i.c.process(proxy)
	if kept == nil || p.tls.stepped {
		return
	}
	age, life := i.c.Now().Sub(kept.NotBefore), kept.Span()
	from := life * 2 / 3
	if !suggested.IsZero() {
		from = min(from, suggested.Sub(kept.NotBefore))
	}
	if age < from*97/100-2*time.Second {
		i.c.Book.Violate("G14", "proxy %s orders a certificate, and keeps one that is %v old and lives for %v", proxy, age, life)
	}
}

// Unseen implements fake.Inspector.
func (i inspector) Unseen(proxy, value string) {
	i.c.Book.Violate("G14", "the challenge %s of proxy %s is gone, and it has not given it up", value, proxy)
}

// Issued implements fake.Inspector.
func (i inspector) Issued(proxy, key string) {
	for _, p := range i.c.proxies {
		if p.name != proxy && p.tls.keys[key] {
			i.c.Book.Violate("G14", "proxies %s and %s have the same private key", proxy, p.name)
		}
	}
	i.c.process(proxy).tls.keys[key] = true
}

// Hasty implements fake.Inspector.
func (i inspector) Hasty(proxy string, early time.Duration) {
	i.c.Book.Violate("F7", "proxy %s asks the authority %v before it may", proxy, early)
}

// lookAtCertificates looks at what each proxy serves.
func (c *Cluster) lookAtCertificates() {
	const slack = time.Second
	now := c.Now()
	for _, p := range c.proxies {
		if p.tls.keeper == nil {
			continue
		}
		served, err := p.tls.keeper.Current()
		if len(served.Chain) == 0 || now.Before(served.NotAfter.Add(slack)) {
			continue
		}
		if kept := p.tls.disk.Certificate(); kept != nil && now.Add(slack).Before(kept.NotAfter) {
			c.Book.Violate("G14", "proxy %s serves a certificate that expired at %v, and keeps one that is good until %v", p.name, served.NotAfter, kept.NotAfter)
		}
		if err == nil && !p.tls.stepped {
			c.Book.Violate("G14", "proxy %s says that the certificate is good that expired at %v", p.name, served.NotAfter)
		}
	}
}

// lookAtLastCertificates looks whether all have one, when all has been well for a
// while. Who was refused, or told to wait, may still be waiting.
func (c *Cluster) lookAtLastCertificates() {
	for _, p := range c.proxies {
		if p.tls.keeper == nil {
			continue
		}
		served, err := p.tls.keeper.Current()
		var limited *port.RateLimitError
		if errors.Is(err, port.ErrRefused) || errors.As(err, &limited) {
			continue
		}
		if err != nil || !c.Now().Before(served.NotAfter) {
			c.Book.Violate("G14", "proxy %s has no good certificate, at the end: %v", p.name, err)
			continue
		}
		if late := c.authority.Overdue(p.node, served); late > served.Span()/8+15*time.Second {
			c.Book.Violate("G14", "proxy %s was told to renew its certificate %v ago, at the end", p.name, late)
		}
		due := served.NotBefore.Add(served.Span() * 2 / 3 * 103 / 100)
		if told := c.authority.LeftUntil(p.node); told.After(due) {
			due = told
		}
		if late := c.Now().Sub(due); late > 2*time.Minute {
			c.Book.Violate("G14", "proxy %s should have renewed its certificate %v ago, at the end", p.name, late)
		}
	}
}
