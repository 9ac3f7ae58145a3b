// Package ledger is the reference meaning of port.Store: Plane's state as plain
// tables in memory, and what each operation does to them.
//
// It owns backends with their history, keys and leases, tokens, actions, nodes
// and controllers. It promises to be a function of the calls that were made: no
// clock, no random numbers, no order that differs from run to run. Times come in
// as the argument now, the store's clock; everything that is counted on another
// clock (a drone's LocalTime, the time of a report) is kept apart and compared
// with nothing. Operations that do not depend on the time take no now.
//
// A Ledger is not safe for use from several tasks at once: whoever wraps it
// (adapters/memory, the simulator's fake) makes each call atomic, and takes the
// hints after it to publish them. What goes in and what comes out may share
// memory with the tables and must not be changed. An operation either returns
// an error and has changed nothing, or has taken effect whole; no error is
// unclear.
//
// Operations cost microseconds with tens of thousands of live backends: nothing
// but the reads for people (ClusterState, Backends) looks at more than it
// touches or, for Sweep, at more than what may be due.
package ledger

import (
	"container/list"
	"fmt"
	"slices"
	"time"

	"plane/system/backend"
	"plane/system/placement"
	"plane/system/port"
	"plane/system/protocol"
)

// Ledger holds the tables. Make one with New.
type Ledger struct {
	fencing     int64 // the last fencing token given out
	rows        int64 // how many rows were ever made; numbers them
	backends    map[string]*backendRow
	holders     map[keyName]*backendRow // who holds a key, its lease expired or not
	tokens      map[string]*tokenRow
	expiring    agenda[*tokenRow]   // tokens by their end
	due         agenda[*backendRow] // backends that live, by the earliest time at which Sweep may have to act
	looked      time.Time           // when the last Sweep began that others need not repeat
	ended       list.List           // terminated backends, in order of their end
	clusters    map[string]*cluster
	nodes       []*node // by number, the first is 1
	controllers map[string]*controller
	revocations list.List // of revocation, in order of time and ID
	hints       []port.Hint
}

// keyName is what a key is unique by; the tag is not part of it.
type keyName struct{ namespace, name string }

func nameOf(k protocol.Key) keyName { return keyName{k.Namespace, k.Name} }

// cluster holds what belongs to a cluster.
type cluster struct {
	drones, proxies map[string]*node
	droneOrder      []*node // as they first came
	proxyOrder      []*node
	backendNames    []string // all names since the last look, in order if sorted
	sorted          bool
	certificate     certificateLease
	challenges      []challenge // in the order in which they were added, some of them expired
}

type controller struct {
	seen    time.Time
	version protocol.Version
	peerURL string
}

// backendRow is a backend. drone, key and the limits never change.
type backendRow struct {
	id          string
	seq         int64
	key         protocol.Key
	cluster     string
	drone       *node
	subdomain   string
	staticToken string
	asks        placement.Resources
	created     time.Time
	lifetime    time.Duration
	maxIdle     time.Duration

	state     backend.State
	stateTime time.Time
	address   string
	history   []port.HistoryEntry

	leaseEnd time.Time
	readyAt  time.Time // zero until it was ready
	endedAt  time.Time // zero until it is terminated
	used     time.Time // the last keep-alive; zero: none
	uses     []use     // by the proxies' last words, and some that are void

	softAt time.Time // when a soft termination was first asked for
	hardAt time.Time // and a hard one
	swept  bool      // a limit was passed: a hard termination will follow
	final  bool      // its lease is not renewed any more
	lost   bool      // and it counts as lost once that has expired

	tokens  list.List       // of *tokenRow
	actions []string        // names of its actions, three at most
	revoked []*list.Element // of Ledger.revocations

	inDue   *agendaItem[*backendRow]
	inLive  *list.Element // of drone.live
	inEnded *list.Element
}

// use says that a proxy uses a backend. It is void once the proxy has given a
// complete list without it, which is when its round is not the proxy's.
type use struct {
	proxy *node
	round int64
	at    time.Time
}

func (u use) void() bool { return u.round != u.proxy.round }

type revocation struct {
	port.Revocation
	at time.Time
}

type tokenRow struct {
	token     string
	backend   *backendRow
	static    bool
	secret    string
	user      *string
	userData  []byte
	expires   time.Time
	revoked   bool
	inBackend *list.Element
	inExpiry  *agendaItem[*tokenRow] // nil for a static token
}

// New makes an empty ledger.
func New() *Ledger {
	return &Ledger{
		backends:    map[string]*backendRow{},
		holders:     map[keyName]*backendRow{},
		tokens:      map[string]*tokenRow{},
		clusters:    map[string]*cluster{},
		controllers: map[string]*controller{},
	}
}

// TakeHints returns what is to be published since the last call, in order.
func (l *Ledger) TakeHints() []port.Hint {
	hints := l.hints
	l.hints = nil
	return hints
}

func (l *Ledger) hint(topic port.Topic, subject string) {
	l.hints = append(l.hints, port.Hint{Topic: topic, Subject: subject})
}

func (l *Ledger) nextRow() int64 {
	l.rows++
	return l.rows
}

func (l *Ledger) backend(id string) (*backendRow, error) {
	b, ok := l.backends[id]
	if !ok {
		return nil, fmt.Errorf("backend %q: %w", id, port.ErrNotFound)
	}
	return b, nil
}

func (l *Ledger) node(id port.NodeID) (*node, bool) {
	if id < 1 || int(id) > len(l.nodes) {
		return nil, false
	}
	return l.nodes[id-1], true
}

func (l *Ledger) cluster(name string) *cluster {
	c, ok := l.clusters[name]
	if !ok {
		c = &cluster{drones: map[string]*node{}, proxies: map[string]*node{}}
		l.clusters[name] = c
	}
	return c
}

// lapsed reports whether the lease has expired.
func (b *backendRow) lapsed(now time.Time) bool { return !now.Before(b.leaseEnd) }

func (b *backendRow) terminated() bool { return b.state.Status == backend.Terminated }

// holds reports whether the key is the backend's, its lease expired or not.
func (l *Ledger) holds(b *backendRow) bool { return l.holders[nameOf(b.key)] == b }

// forget deletes a terminated backend with all that belongs to it.
func (l *Ledger) forget(b *backendRow) {
	l.ended.Remove(b.inEnded)
	delete(l.backends, b.id)
	for _, e := range b.revoked {
		l.revocations.Remove(e)
	}
	l.clusters[b.cluster].sorted = false
}

// names returns the names of the cluster's backends in order.
func (l *Ledger) names(c *cluster) []string {
	if !c.sorted {
		slices.Sort(c.backendNames)
		c.backendNames = slices.DeleteFunc(slices.Compact(c.backendNames), func(id string) bool {
			b, ok := l.backends[id]
			return !ok || l.clusters[b.cluster] != c
		})
		c.sorted = true
	}
	return c.backendNames
}
