package postgres

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"plane/system/backend"
	"plane/system/port"
)

// How many keys that were held lately are remembered, and for how long.
const (
	mostHeld = 10_000
	heldAge  = 10 * time.Minute
)

// joined is a row of a join: the backend that holds a key. The zero value: the
// key cannot be joined like this, and a connect has to look closer.
type joined struct {
	backend, cluster, subdomain string
	status                      int16
}

// join connects to a key that was held lately. Most connects are to such keys,
// and all that they need is a token: one plain statement, which costs the server a
// quarter less than one that may have to spawn. ok is false when the key is free by
// now, or held in another way, and nothing has been done.
func (s *Store) join(ctx context.Context, p port.ConnectParams) (c port.Connected, ok bool, err error) {
	now := time.Now()
	held, known := s.held.Get(heldName(p), now)
	if !known || !held.Value {
		return c, false, nil
	}
	rows, err := s.joins.do(ctx, []port.ConnectParams{p})
	switch {
	case code(err) == codeUnique: // the token is there: this is a late try
		return c, false, nil
	case err != nil:
		return c, false, failed(ctx, "connect", err)
	}
	j := rows[0]
	if (j == joined{} || now.Sub(held.At) > heldAge/2) { // else it is known
		s.remember(p, j != joined{})
	}
	return port.Connected{BackendID: j.backend, Status: backend.Status(j.status), Cluster: j.cluster, Subdomain: j.subdomain}, j != joined{}, nil
}

// remember notes whether a key could be joined now.
func (s *Store) remember(p port.ConnectParams, held bool) { s.held.Put(heldName(p), held, time.Now()) }

func byKey(a, b port.ConnectParams) int {
	return cmp.Or(strings.Compare(a.Key.Namespace, b.Key.Namespace), strings.Compare(a.Key.Name, b.Key.Name))
}

func heldName(p port.ConnectParams) string { return p.Key.Namespace + "\x00" + p.Key.Name }

// shared is when the lease ends that a backend shares; null: it shares none. It is
// an expression, and no join, so that it is looked up for the one row that is found
// and never looks worth a hash of all terms.
const shared = `(select t.ends from plane.term t where t.id = b.term)`

// holder finds who holds the key of an item i. Its limit keeps it a look at the
// index for each: to read all backends instead never is better, but looks so to the
// planner while they are few, and what it plans then it keeps to for a while.
const holder = `cross join lateral (
			select b.id, b.tag, b.status, b.static_token, b.cluster, b.subdomain, b.lease_end, b.term
			from plane.backend b where b.namespace = i.namespace and b.name = i.name and b.holds limit 1
		) b`

const joinSQL = `
	insert into plane.token (token, backend, seq, secret, username, data, expires, cluster, subdomain, status)
	select i.token, b.id, plane.number(b.id), i.secret, i.username, i.data::json, c.now + plane.us(i.life), b.cluster, b.subdomain, b.status
	from (select plane.shows(k.last, k.behind) as now from plane.clock k where k.one) c
	cross join unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::text[], $6::text[], $7::text[], $8::bigint[], $9::text[])
		as i (namespace, name, tag, token, secret, username, data, life, wish)
	` + holder + `
	where (b.lease_end > c.now or ` + shared + ` > c.now)
		and b.tag = i.tag and b.status < 60 and b.static_token = '' and b.id is distinct from i.wish
	returning token, backend, cluster, subdomain, status`

const joinOneSQL = `
	insert into plane.token (token, backend, seq, secret, username, data, expires, cluster, subdomain, status)
	select $4::bytea, b.id, plane.number(b.id), $5::text, $6::text, $7::json, c.now + plane.us($8::bigint), b.cluster, b.subdomain, b.status
	from (select plane.shows(k.last, k.behind) as now from plane.clock k where k.one) c
	cross join plane.backend b
	where b.namespace = $1::text and b.name = $2::text and b.holds
		and (b.lease_end > c.now or ` + shared + ` > c.now)
		and b.tag = $3::text and b.status < 60 and b.static_token = '' and b.id is distinct from $9::text
	returning token, backend, cluster, subdomain, status`

// joinAll does many joins in one transaction, in order of their keys: so no two
// of these wait for each other where tokens are being revoked. The rows come in
// any order, each with its token.
func (s *Store) joinAll(ctx context.Context, items []port.ConnectParams) ([]joined, error) {
	rows, err := s.askJoin(ctx, items)
	if err != nil {
		return nil, err
	}
	places := make(map[string]int, len(items))
	for i, p := range items {
		places[string(digest(p.Token))] = i
	}
	all := make([]joined, len(items))
	var token []byte
	var j joined
	_, err = pgx.ForEachRow(rows, []any{&token, &j.backend, &j.cluster, &j.subdomain, &j.status}, func() error {
		all[places[string(token)]] = j
		return nil
	})
	return all, err
}

func (s *Store) askJoin(ctx context.Context, items []port.ConnectParams) (pgx.Rows, error) {
	if len(items) == 1 {
		return s.pool.Query(ctx, joinOneSQL, joinParameters(items[0])...)
	}
	return s.pool.Query(ctx, joinSQL, joinColumns(slices.SortedFunc(slices.Values(items), byKey))...)
}

func joinParameters(p port.ConnectParams) []any {
	return []any{
		text(p.Key.Namespace), text(p.Key.Name), text(p.Key.Tag), digest(p.Token), text(p.SecretToken),
		optional(p.User), raw(p.UserData), p.TokenLife.Microseconds(), wish(p),
	}
}

func joinColumns(items []port.ConnectParams) []any {
	return []any{
		column(items, func(p port.ConnectParams) string { return text(p.Key.Namespace) }),
		column(items, func(p port.ConnectParams) string { return text(p.Key.Name) }),
		column(items, func(p port.ConnectParams) string { return text(p.Key.Tag) }),
		column(items, func(p port.ConnectParams) []byte { return digest(p.Token) }),
		column(items, func(p port.ConnectParams) string { return text(p.SecretToken) }),
		column(items, func(p port.ConnectParams) *string { return optional(p.User) }),
		column(items, func(p port.ConnectParams) *string { return raw(p.UserData) }),
		column(items, func(p port.ConnectParams) int64 { return p.TokenLife.Microseconds() }),
		column(items, wish),
	}
}

// wish is the name that a new backend would have; nil: none is to be made.
func wish(p port.ConnectParams) *string {
	if p.Spawn == nil {
		return nil
	}
	return &p.Spawn.BackendID
}
