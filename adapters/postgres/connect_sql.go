package postgres

const connectSQL = `select item, outcome, backend, status, cluster, subdomain, static_token, drone, drone_name from plane.connect(
	$1::text[], $2::text[], $3::text[], $4::bytea[], $5::text[], $6::text[], $7::text[], $8::bigint[], $9::boolean[],
	$10::text[], $11::text[], $12::text[], $13::text[], $14::bigint[], $15::integer[],
	$16::text[], $17::text[], $18::text[], $19::bigint[], $20::bigint[], $21::integer[], $22::bigint[],
	$23::bigint[], $24::bigint[], $25::bigint[], $26::bigint[], $27::bigint[], $28::bigint[], $29::boolean)`

// connectManySQL does what is common of many connects, each by itself: it joins the
// holder of its key, or where there is none makes a backend on the drone that was
// chosen, if all that are to go there may. It answers those that it has done and
// leaves the others as they are. The keys of new backends are locked before their
// fencing tokens are drawn, in the order of plane.connect and like there after those
// of held keys have their tokens (that is what given is counted for): so nobody can
// have had one in between with a greater token, and none wait for each other.
const connectManySQL = `
	with moment as materialized (
		select plane.shows(k.last, k.behind) as now, plane.wall() as wall from plane.clock k where k.one
	), item as materialized (
		select i.* from unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::text[], $6::text[], $7::text[], $8::bigint[],
			$9::text[], $10::text[], $11::text[], $12::integer[], $13::bigint[])
			with ordinality as i (namespace, name, tag, token, secret, username, data, life, backend, action, subdomain, spawn, drone, n)
	), held as materialized (
		select i.n, b.id, b.status, b.cluster, b.subdomain, m.now, i.token, i.secret, i.username, i.data, i.life,
			(b.lease_end > m.now or ` + shared + ` > m.now) and b.tag = i.tag and b.status < 60 and b.static_token = '' and b.id is distinct from i.backend as good
		from moment m
		cross join item i
		` + holder + `
	), given as (
		insert into plane.token (token, backend, seq, secret, username, data, expires)
		select h.token, h.id, plane.number(h.id), h.secret, h.username, h.data::json, h.now + plane.us(h.life)
		from held h where h.good
		returning true
	), wanted as materialized (
		select k.* from (
			select i.*, s.cluster, s.pool, s.executable, s.lifetime, s.max_idle, s.healthy, s.renew, s.soft, s.hard, s.expiry, s.millicpus, s.memory,
				plane.key_lock(i.namespace, i.name) as lock
			from item i
			join unnest($14::text[], $15::text[], $16::text[], $17::bigint[], $18::bigint[], $19::bigint[], $20::bigint[], $21::bigint[], $22::bigint[],
				$23::bigint[], $24::bigint[], $25::bigint[])
				with ordinality as s (cluster, pool, executable, lifetime, max_idle, healthy, renew, soft, hard, expiry, millicpus, memory, n) on s.n = i.spawn
			where (select count(*) from given) >= 0 and i.drone is not null and i.n not in (select h.n from held h) and not exists (select from plane.ended e where e.id = i.backend)
			order by lock offset 0
		) k where pg_advisory_xact_lock(k.lock) is not null
	), asked as materialized (
		select w.drone, w.cluster, w.pool, min(w.healthy) as healthy, count(*) as backends, plane.total(w.millicpus) as millicpus, plane.total(w.memory) as memory
		from wanted w group by w.drone, w.cluster, w.pool order by w.drone
	), room as (
		update plane.load l set
			backends = l.backends + a.backends, millicpus = l.millicpus + a.millicpus, memory = l.memory + a.memory,
			spare_backends = l.spare_backends - a.backends, spare_millicpus = l.spare_millicpus - a.millicpus, spare_memory = l.spare_memory - a.memory
		from moment m
		cross join asked a
		join plane.node d on d.id = a.drone and d.cluster = a.cluster and d.kind = 'drone' and d.pool = a.pool
		where d.connected and d.local_time is not null and d.seen >= m.now - plane.us(a.healthy)
			and l.drone = d.id and l.stripe = plane.stripe() and not l.draining
			and l.spare_backends >= a.backends and l.spare_millicpus >= a.millicpus and l.spare_memory >= a.memory
		returning d.id, d.name, d.local_time
	), placed as materialized (
		select w.*, r.name as drone_name, r.local_time from wanted w join room r on r.id = w.drone order by w.n
	), made as (
		insert into plane.backend (id, namespace, name, tag, fencing, lease_end, cluster, drone, subdomain, static_token,
			made, made_at, lifetime, max_idle, millicpus, memory, status, history)
		select p.backend, p.namespace, p.name, p.tag, nextval('plane.fencing'), m.now + plane.us(p.expiry), p.cluster, p.drone, p.subdomain, '',
			m.now, m.wall, plane.us(nullif(p.lifetime, 0)), plane.us(nullif(p.max_idle, 0)), p.millicpus, p.memory,
			10, (select array[row(10, m.wall, '', 0, '', '', null, false, '')::plane.step] from moment m)
		from moment m cross join placed p
	), told as (
		insert into plane.action (drone, id, backend, kind, reason, executable, renew_at, soft_at, hard_at)
		select p.drone, p.action, p.backend, 'spawn', '', p.executable, p.local_time + p.renew, p.local_time + p.soft, p.local_time + p.hard
		from placed p
	), issued as (
		insert into plane.token (token, backend, seq, secret, username, data, expires)
		select p.token, p.backend, nextval('plane.seq'), p.secret, p.username, p.data::json, m.now + plane.us(p.life)
		from moment m cross join placed p
	)
	select h.n::integer, 'ok', h.id, h.status, h.cluster, h.subdomain, '', null, null from held h where h.good
	union all
	select p.n::integer, 'ok', p.backend, 10, p.cluster, p.subdomain, '', p.drone, p.drone_name from placed p`

// connectOneSQL and connectLateSQL do one connect. They have the same parameters,
// and answer with one array of what is in a row of plane.connect. The first does
// by itself what is common, at half the cost of a function: it joins the holder of
// the key, or where there is none makes a backend on the drone that was chosen
// ($28), if that may have it. All else it leaves to the function.
const (
	connectOneSQL = `
	with held as materialized (
		select b.id, b.status, b.cluster, b.subdomain, c.now,
			(b.lease_end > c.now or ` + shared + ` > c.now) and b.tag = $3::text and b.status < 60 and b.static_token = '' and b.id is distinct from $10::text as good
		from (select plane.shows(k.last, k.behind) as now from plane.clock k where k.one) c
		cross join plane.backend b
		where b.namespace = $1::text and b.name = $2::text and b.holds
	), given as (
		insert into plane.token (token, backend, seq, secret, username, data, expires)
		select $4::bytea, h.id, plane.number(h.id), $5::text, $6::text, $7::json, h.now + plane.us($8::bigint)
		from held h where h.good
	), room as (
		update plane.load l set
			backends = l.backends + 1, millicpus = l.millicpus + $26::bigint, memory = l.memory + $27::bigint,
			spare_backends = l.spare_backends - 1, spare_millicpus = l.spare_millicpus - $26::bigint, spare_memory = l.spare_memory - $27::bigint
		from (select plane.shows(k.last, k.behind) as now from plane.clock k where k.one offset 0) c
		cross join plane.node d
		where d.id = $28::bigint and d.cluster = $15::text and d.kind = 'drone' and d.pool = $16::text
			and d.connected and d.local_time is not null and d.seen >= c.now - plane.us($21::bigint)
			and l.drone = d.id and l.stripe = plane.stripe() and not l.draining
			and l.spare_backends >= 1 and l.spare_millicpus >= $26::bigint and l.spare_memory >= $27::bigint
			and not exists (select from held) and not exists (select from plane.ended e where e.id = $10::text)
			and pg_advisory_xact_lock(plane.key_lock($1::text, $2::text)) is not null
		returning d.id, d.name, d.local_time, c.now, plane.wall() as wall
	), made as (
		insert into plane.backend (id, namespace, name, tag, fencing, lease_end, cluster, drone, subdomain, static_token,
			made, made_at, lifetime, max_idle, millicpus, memory, status, history)
		select $10::text, $1::text, $2::text, $3::text, nextval('plane.fencing'), r.now + plane.us($25::bigint), $15::text, r.id, $13::text, '',
			r.now, r.wall, plane.us(nullif($18::bigint, 0)), plane.us(nullif($19::bigint, 0)), $26::bigint, $27::bigint,
			10, array[row(10, r.wall, '', 0, '', '', null, false, '')::plane.step]
		from room r
	), told as (
		insert into plane.action (drone, id, backend, kind, reason, executable, renew_at, soft_at, hard_at)
		select r.id, $11::text, $10::text, 'spawn', '', $17::text, r.local_time + $22::bigint, r.local_time + $23::bigint, r.local_time + $24::bigint
		from room r
	), issued as (
		insert into plane.token (token, backend, seq, secret, username, data, expires)
		select $4::bytea, $10::text, nextval('plane.seq'), $5::text, $6::text, $7::json, r.now + plane.us($8::bigint)
		from room r
	)
	select coalesce(
		(select array['ok', h.id, h.status::text, h.cluster, h.subdomain, '', null, null] from held h where h.good),
		(select array['ok', $10::text, '10', $15::text, $13::text, '', r.id::text, r.name] from room r),
		plane.connect_late` + oneConnect + `, $28::bigint is not null))`
	connectLateSQL = `select plane.connect_late` + oneConnect + `, true)`
	oneConnect     = `(
	$1::text, $2::text, $3::text, $4::bytea, $5::text, $6::text, $7::text, $8::bigint, $9::boolean,
	$10::text, $11::text, $12::text, $13::text, $14::bigint,
	$15::text, $16::text, $17::text, $18::bigint, $19::bigint, $20::integer, $21::bigint,
	$22::bigint, $23::bigint, $24::bigint, $25::bigint, $26::bigint, $27::bigint`
)
