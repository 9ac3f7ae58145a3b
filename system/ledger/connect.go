package ledger

import (
	"fmt"
	"slices"
	"time"

	"plane/system/backend"
	"plane/system/port"
	"plane/system/protocol"
)

// Connect implements port.Store.
func (l *Ledger) Connect(now time.Time, p port.ConnectParams) (port.Connected, error) {
	b, held := l.holders[nameOf(p.Key)]
	switch {
	case held && !b.lapsed(now):
		if err := join(b, p); err != nil {
			return port.Connected{BackendID: b.id}, err
		}
	case p.Spawn == nil:
		return port.Connected{}, fmt.Errorf("key %q: %w", p.Key.Name, port.ErrKeyUnheld)
	default:
		var err error
		if b, err = l.spawn(now, p); err != nil {
			return port.Connected{}, err
		}
	}
	if b.staticToken == "" {
		l.issue(now, b, p)
	}
	c := port.Connected{
		BackendID:   b.id,
		Spawned:     p.Spawn != nil && p.Spawn.BackendID == b.id,
		Status:      b.state.Status,
		Cluster:     b.cluster,
		Subdomain:   b.subdomain,
		StaticToken: b.staticToken,
	}
	if c.Spawned {
		c.Drone, c.DroneID = b.drone.name, b.drone.id
	}
	return c, nil
}

// join refuses a connection to what holds the key, or returns nil.
func join(b *backendRow, p port.ConnectParams) error {
	switch {
	case b.key.Tag != p.Key.Tag:
		return fmt.Errorf("key %q: %w", p.Key.Name, port.ErrKeyHeld)
	case !b.state.Status.Alive():
		return fmt.Errorf("key %q, backend %s: %w", p.Key.Name, b.id, port.ErrKeyUnhealthy)
	case b.staticToken != "" && p.RefuseStatic:
		return fmt.Errorf("key %q, backend %s: %w", p.Key.Name, b.id, port.ErrStaticUser)
	}
	return nil
}

// spawn gives the key, which is free or whose lease has expired, to a new
// backend. A backend that held it goes on with its own history, and can renew
// no more.
func (l *Ledger) spawn(now time.Time, p port.ConnectParams) (*backendRow, error) {
	s := p.Spawn
	if s.StaticToken != "" && p.RefuseStatic {
		return nil, fmt.Errorf("key %q: %w", p.Key.Name, port.ErrStaticUser)
	}
	if _, taken := l.backends[s.BackendID]; taken {
		return nil, fmt.Errorf("backend %q: %w", s.BackendID, port.ErrBackendExists)
	}
	drone, err := l.place(now, s, p.PlacementSeed)
	if err != nil {
		return nil, err
	}
	state := backend.State{Status: backend.Scheduled}
	b := &backendRow{
		id: s.BackendID, seq: l.nextRow(), key: p.Key, cluster: s.Cluster, drone: drone,
		subdomain: s.Subdomain, staticToken: s.StaticToken,
		created: now, lifetime: s.Lifetime, maxIdle: s.MaxIdle, asks: s.Asks,
		state: state, stateTime: now, history: []port.HistoryEntry{{State: state, Time: now}},
		leaseEnd: now.Add(s.Lease.Expiry),
	}
	l.backends[b.id] = b
	l.holders[nameOf(p.Key)] = b
	c := l.cluster(s.Cluster)
	c.backendNames, c.sorted = append(c.backendNames, b.id), false
	b.inLive = drone.live.PushBack(b)
	drone.promised.MilliCPUs += s.Asks.MilliCPUs
	drone.promised.MemoryBytes += s.Asks.MemoryBytes
	b.inDue = l.due.add(b, b.dueFrom(), b.seq)

	spawn := &protocol.Spawn{Executable: s.Executable, Key: protocol.AcquiredKey{
		Key: p.Key, Deadlines: protocol.Deadlines(s.Lease.Deadlines(drone.localTime)), Token: l.nextFencing(),
	}}
	if s.StaticToken != "" {
		spawn.StaticToken = &s.StaticToken
		l.record(&tokenRow{token: s.StaticToken, backend: b, static: true})
	}
	l.act(b, s.ActionID, protocol.ActionBody{Spawn: spawn})
	return b, nil
}

func (l *Ledger) nextFencing() int64 {
	l.fencing++
	return l.fencing
}

// issue records the connection's token. One that is there already is what an
// earlier try of the same call left; it starts its life anew, unless it has been
// revoked since: that try may have been the later one, and this one late.
func (l *Ledger) issue(now time.Time, b *backendRow, p port.ConnectParams) {
	if old, ok := l.tokens[p.Token]; ok {
		if old.revoked {
			return
		}
		l.void(old)
	}
	t := &tokenRow{token: p.Token, backend: b, secret: p.SecretToken, user: p.User, userData: p.UserData, expires: now.Add(p.TokenLife)}
	t.inExpiry = l.expiring.add(t, t.expires, l.nextRow())
	l.record(t)
}

func (l *Ledger) record(t *tokenRow) {
	l.tokens[t.token] = t
	t.inBackend = t.backend.tokens.PushBack(t)
}

// void deletes a token.
func (l *Ledger) void(t *tokenRow) {
	delete(l.tokens, t.token)
	t.backend.tokens.Remove(t.inBackend)
	if t.inExpiry != nil {
		l.expiring.remove(t.inExpiry)
	}
}

// RouteToken implements port.Store.
func (l *Ledger) RouteToken(now time.Time, token string) (port.Route, error) {
	t, ok := l.tokens[token]
	if !ok || t.revoked || !t.backend.state.Status.Alive() {
		return port.Route{}, fmt.Errorf("token: %w", port.ErrNotFound)
	}
	b := t.backend
	info := protocol.RouteInfo{BackendID: b.id, Address: b.address, Cluster: b.cluster}
	if b.subdomain != "" {
		info.Subdomain = &b.subdomain
	}
	if !t.static {
		left := t.expires.Sub(now).Milliseconds()
		if left <= 0 {
			return port.Route{}, fmt.Errorf("token: %w", port.ErrNotFound)
		}
		info.SecretToken, info.User, info.UserData, info.ExpiresIn = t.secret, t.user, t.userData, &left
	}
	return port.Route{Info: info, Status: b.state.Status}, nil
}

// Revoke implements port.Store.
func (l *Ledger) Revoke(now time.Time, backendID, user string) error {
	b, err := l.backend(backendID)
	if err != nil {
		return err
	}
	for e := b.tokens.Front(); e != nil; {
		t, next := e.Value.(*tokenRow), e.Next()
		if t.user != nil && *t.user == user {
			t.revoked = true // kept until it expires; see issue
		}
		e = next
	}
	b.revoked = append(b.revoked, l.revocations.PushBack(revocation{
		Revocation: port.Revocation{ID: l.nextRow(), BackendID: backendID, User: user}, at: now,
	}))
	l.hint(port.RevokedTopic, "")
	return nil
}

// Revocations implements port.Store.
func (l *Ledger) Revocations(now time.Time, within time.Duration) []port.Revocation {
	var recent []port.Revocation
	for e := l.revocations.Back(); e != nil; e = e.Prev() {
		r := e.Value.(revocation)
		if now.Sub(r.at) > within {
			break
		}
		recent = append(recent, r.Revocation)
	}
	slices.Reverse(recent)
	return recent
}
