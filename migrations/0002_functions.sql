-- What Plane does with its tables. Each function is one operation of the store,
-- one round trip and one transaction. The parameters of those that take many
-- items are arrays of equal length, one element for each item; times in them are
-- microseconds, and those of a drone's clock milliseconds since 1970.

-- Connections ------------------------------------------------------------------

create function plane.key_lock(p_namespace text, p_name text) returns bigint
	language sql immutable strict
	return hashtextextended(p_name, hashtextextended(p_namespace, 0));
comment on function plane.key_lock(text, text) is
	'The advisory lock of a key, held by transactions that may give it to a backend. Keys that share one wait for each other, and no more.';

create function plane.token_lock(p_backend text) returns bigint
	language sql immutable strict
	return hashtextextended(p_backend, 1);
comment on function plane.token_lock(text) is
	'The advisory lock of a backend''s tokens: exclusive for who revokes, shared by those who make one for a backend that others know.';

create function plane.number(p_backend text) returns bigint
	language sql volatile
	return case when pg_advisory_xact_lock_shared(plane.token_lock(p_backend)) is not null then nextval('plane.seq') end;
comment on function plane.number(text) is
	'The number of a new token. A revocation counts from its commit on, and voids the tokens with smaller numbers: so none may have a greater one, and be seen, before that commit.';

create function plane.digest(p_token text) returns bytea
	language sql immutable strict
	return sha256(convert_to(p_token, 'UTF8'));
comment on function plane.digest(text) is 'What of a token is kept in plane.token.';

create aggregate plane.total(bigint) (sfunc = int8pl, stype = bigint, initcond = '0');
comment on aggregate plane.total(bigint) is 'The sum; of none it is 0. PostgreSQL''s own counts in numeric, at several times the cost.';

create function plane.stripe() returns smallint
	language sql stable
	return (pg_backend_pid() & 7)::smallint;
comment on function plane.stripe() is 'Which of the eight rows of a drone''s counters (plane.load) this connection counts in.';

create function plane.lock_load(p_drones bigint[]) returns void
	language plpgsql volatile
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set jit to off
as $$
begin
	perform from (select from plane.load l where l.drone = any (p_drones) order by l.drone, l.stripe for update) locked;
end
$$;
comment on function plane.lock_load(bigint[]) is 'Locks all counters of drones, in order.';

create function plane.deal(p_drones bigint[]) returns void
	language plpgsql volatile
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set enable_hashjoin to off set enable_mergejoin to off set jit to off
as $$
begin
	perform plane.lock_load(p_drones);
	update plane.load l set
		spare_backends = f.backends / 8 + (l.stripe < f.backends % 8)::integer,
		spare_millicpus = f.millicpus / 8 + (l.stripe < f.millicpus % 8)::integer,
		spare_memory = f.memory / 8 + (l.stripe < f.memory % 8)::integer
	from (
		select d.id,
			case when d.max_backends > 0 then greatest(d.max_backends - p.backends, 0) else 1::bigint << 60 end as backends,
			case when d.millicpus > 0 then greatest(d.millicpus - p.millicpus, 0) else 1::bigint << 60 end as millicpus,
			case when d.memory > 0 then greatest(d.memory - p.memory, 0) else 1::bigint << 60 end as memory
		from plane.node d
		cross join lateral (
			select sum(l.backends)::bigint as backends, sum(l.millicpus)::bigint as millicpus, sum(l.memory)::bigint as memory
			from plane.load l where l.drone = d.id
		) p
		where d.id = any (p_drones)
	) f
	where l.drone = f.id;
end
$$;
comment on function plane.deal(bigint[]) is
	'Shares out what drones have left (without a limit: more than anybody asks for) evenly among their counters, each of which can then be drawn on without a look at the others. What ends is left over until the next time.';

create function plane.share(p_millicpus bigint, p_asks_millicpus bigint, p_has_millicpus bigint, p_memory bigint, p_asks_memory bigint, p_has_memory bigint) returns bigint
	language sql immutable
	return case
		when p_asks_millicpus > 0 and p_has_millicpus is null or p_asks_memory > 0 and p_has_memory is null then null
		else greatest(0,
			case when p_asks_millicpus > 0 then (p_millicpus + p_asks_millicpus) * 1000 / p_has_millicpus end,
			case when p_asks_memory > 0 then (p_memory + p_asks_memory) * 1000 / p_has_memory end)
		end;
comment on function plane.share is
	'What share of a drone is promised after one more backend, in thousandths, of the scarcer of the resources that this one asks for; null where one of these has no limit.';

create function plane.unload(p_drones bigint[], p_millicpus bigint[], p_memory bigint[]) returns void
	language plpgsql volatile
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set enable_hashjoin to off set enable_mergejoin to off set jit to off
as $$
begin
	update plane.load l
	set backends = l.backends - gone.backends, millicpus = l.millicpus - gone.millicpus, memory = l.memory - gone.memory
	from (
		select g.drone, count(*) as backends, sum(g.millicpus) as millicpus, sum(g.memory) as memory
		from unnest(p_drones, p_millicpus, p_memory) as g (drone, millicpus, memory)
		group by g.drone order by g.drone
	) gone
	where l.drone = gone.drone and l.stripe = plane.stripe();
end
$$;
comment on function plane.unload(bigint[], bigint[], bigint[]) is
	'Takes back what ended backends were promised: for each its drone, and what that promised to it. In order of the drones, as all that count.';

create function plane.issue(p_token bytea, p_backend text, p_secret text, p_username text, p_data text, p_expires timestamptz) returns void
	language plpgsql volatile
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set jit to off
as $$
begin
	insert into plane.token (token, backend, seq, secret, username, data, expires)
	values (p_token, p_backend, plane.number(p_backend), p_secret, p_username, p_data::json, p_expires)
	on conflict do nothing;
	if found then
		return;
	end if;
	-- A revocation that is being made is waited for, and then seen.
	perform pg_advisory_xact_lock_shared(plane.token_lock(t.backend)) from plane.token t where t.token = p_token;
	update plane.token t
	set backend = p_backend, seq = plane.number(p_backend), secret = p_secret, username = p_username, data = p_data::json, expires = p_expires
	where t.token = p_token and (
		not exists (select from plane.revocation r where r.backend = t.backend and r.username = t.username and r.id > t.seq)
		or not exists (select from plane.backend b where b.id = t.backend));
end
$$;
comment on function plane.issue(bytea, text, text, text, text, timestamptz) is
	'Makes a token, or begins the life of one anew that an earlier try of the same connect has made. A revoked one stays void while the backend lives that it was revoked for.';

create type plane.answer as (
	item integer,
	outcome text,
	backend text,
	status smallint,
	cluster text,
	subdomain text,
	static_token text,
	drone bigint,
	drone_name text
);
comment on type plane.answer is 'What one connect has come to.';
comment on column plane.answer.item is 'Which of the items it answers, from 1.';
comment on column plane.answer.outcome is 'ok, or why not: unheld, held (with another tag), unhealthy, static_user, exists (the backend''s name is taken), no_drone, again (others are at it; ask once more).';
comment on column plane.answer.backend is 'The backend that has the key.';
comment on column plane.answer.status is 'Its status; numbers as in plane.step.';
comment on column plane.answer.cluster is 'Its cluster.';
comment on column plane.answer.subdomain is 'Its subdomain.';
comment on column plane.answer.static_token is 'Its static token; empty: the connect''s own token leads there.';
comment on column plane.answer.drone is 'If it is the one that the connect wished for: the number of its drone,';
comment on column plane.answer.drone_name is 'and its name.';

create function plane.connect(
	p_namespace text[], p_name text[], p_tag text[],
	p_token bytea[], p_secret text[], p_username text[], p_data text[], p_life bigint[], p_refuse_static boolean[],
	p_backend text[], p_action text[], p_static text[], p_subdomain text[], p_seed bigint[], p_spawn integer[],
	s_cluster text[], s_pool text[], s_executable text[],
	s_lifetime bigint[], s_max_idle bigint[], s_best_of integer[], s_healthy bigint[],
	s_renew bigint[], s_soft bigint[], s_hard bigint[], s_expiry bigint[],
	s_millicpus bigint[], s_memory bigint[],
	p_careful boolean
) returns setof plane.answer
	language plpgsql volatile
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set enable_bitmapscan to off set enable_material to off
	set enable_hashjoin to off set enable_mergejoin to off set jit to off
as $$
declare
	v_now timestamptz;
	v_answers plane.answer[];
	v_more plane.answer[];
	v_rest integer[];    -- items that are not as common
	v_lapsed text[];     -- holders of keys whose lease has expired
	v_locked text[];     -- those that are locked; null: none yet
	v_items integer[];   -- those that get a new backend,
	v_old text[];        -- whose keys they take over,
	v_drones bigint[] := '{}';  -- their drones (null: none takes it),
	v_names text[] := '{}';     -- what these are called,
	v_locals bigint[] := '{}';  -- and what their clocks showed
	v_static boolean;    -- some have static tokens
	v_placed bigint[];   -- the drones that get something,
	v_short bigint[];    -- and those whose share does not do
	v_n integer;         -- the item at hand
	v_s integer;         -- what it would spawn
	v_of integer;        -- the spawn whose candidates those below are
	v_from integer;      -- how many candidates come before those that are drawn from,
	v_count integer;     -- and how many these are
	v_k integer;         -- a candidate
	v_seen integer;      -- how many that have room were looked at,
	v_shares boolean;    -- and whether all of them have a share,
	v_best integer;      -- the one with the least share,
	v_fewest integer;    -- and the one with the fewest backends
	v_history plane.step[];
	c_drone bigint[]; c_name text[]; c_local bigint[]; -- the candidates, connected ones first,
	c_ready integer; c_all integer; -- how many are connected, and how many there are,
	c_backends bigint[]; c_millicpus bigint[]; c_memory bigint[]; -- what they are promised to,
	h_backends bigint[]; h_millicpus bigint[]; h_memory bigint[]; -- what they have (null: no limit),
	c_left bigint[];     -- how many more of what is spawned they can take,
	c_share bigint[];    -- and what share they will have promised after one more (see plane.share)
begin
	-- What is common: keys that are held by backends which can be joined. This
	-- needs no lock: an answer is as of now.
	with held as materialized (
		select i.n::integer as n, b.id, b.status, b.cluster, b.subdomain, b.static_token, c.now, i.token, i.secret, i.username, i.data, i.life,
			case when b.id = i.backend then b.drone end as drone,
			case when b.id = i.backend then (select d.name from plane.node d where d.id = b.drone) end as drone_name
		from (select plane.shows(c.last, c.behind) as now from plane.clock c where c.one) c
		cross join unnest(p_namespace, p_name, p_tag, p_token, p_secret, p_username, p_data, p_life, p_refuse_static, p_backend)
			with ordinality as i (namespace, name, tag, token, secret, username, data, life, refuse_static, backend, n)
		join plane.backend b on b.namespace = i.namespace and b.name = i.name and b.holds
		where (b.lease_end > c.now or (select t.ends from plane.term t where t.id = b.term) > c.now)
			and b.tag = i.tag and b.status < 60 and (b.static_token = '' or not i.refuse_static)
	), given as (
		insert into plane.token (token, backend, seq, secret, username, data, expires)
		select h.token, h.id, plane.number(h.id), h.secret, h.username, h.data::json, h.now + plane.us(h.life)
		from held h where h.static_token = '' and h.token is not null
	)
	select array_agg(row(h.n, 'ok', h.id, h.status, h.cluster, h.subdomain, h.static_token, h.drone, h.drone_name)::plane.answer)
	into v_answers from held h;
	if cardinality(v_answers) = cardinality(p_token) then
		return query select a.* from unnest(v_answers) a;
		return;
	end if;

	-- The others, one transaction at a time for each key. Whoever has let a lease
	-- expire is locked, with a lease of its own, so that it is not renewed
	-- meanwhile, and looked at again.
	v_rest := array(
		select i.n from generate_subscripts(p_token, 1) as i (n)
		where v_answers is null or i.n <> all (array(select a.item from unnest(v_answers) a))
	);
	perform pg_advisory_xact_lock(k.lock) from (
		select distinct plane.key_lock(p_namespace[r.n], p_name[r.n]) as lock from unnest(v_rest) as r (n) order by 1
	) k;
	loop
		v_now := plane.now();
		select
			array_agg(row(r.n, r.outcome, r.holder, r.status, r.cluster, r.subdomain, r.static_token, null, null)::plane.answer)
				filter (where r.outcome is not null),
			array_agg(r.n order by p_spawn[r.n], r.n) filter (where r.outcome is null),
			array_agg(r.holder order by p_spawn[r.n], r.n) filter (where r.outcome is null),
			array_agg(r.holder order by r.holder) filter (where r.outcome is null and r.holder is not null),
			bool_or(p_static[r.n] <> '') filter (where r.outcome is null)
		into v_more, v_items, v_old, v_lapsed, v_static
		from (
			select r.n, b.id as holder, b.status, b.cluster, b.subdomain, b.static_token,
				case
				when b.lease_end > v_now or (select t.ends from plane.term t where t.id = b.term) > v_now then case
					when b.tag <> p_tag[r.n] then 'held'
					when b.status >= 60 then 'unhealthy'
					when b.static_token <> '' and p_refuse_static[r.n] then 'static_user'
					else 'again' -- it can be joined by now
					end
				when b.id <> all (v_locked) then 'again' -- it had not expired at the first look
				when b.id is not null and v_locked is null then null -- to be locked first
				when p_backend[r.n] is null then 'unheld'
				when row_number() over (partition by plane.key_lock(p_namespace[r.n], p_name[r.n]) order by p_backend[r.n] is null, r.n) > 1
					or row_number() over (partition by p_backend[r.n] order by r.n) > 1 then 'again' -- another item comes first
				when p_refuse_static[r.n] and p_static[r.n] <> '' then 'static_user'
				when x.id is not null or e.id is not null then 'exists'
				end as outcome
			from unnest(v_rest) as r (n)
			left join plane.backend b on b.namespace = p_namespace[r.n] and b.name = p_name[r.n] and b.holds
			left join plane.backend x on x.id = p_backend[r.n]
			left join plane.ended e on e.id = p_backend[r.n]
		) r;
		exit when v_lapsed is null or v_locked is not null;
		perform from (select from plane.backend b where b.id = any (v_lapsed) order by b.id for update) locked;
		perform plane.part(v_lapsed);
		v_locked := v_lapsed;
	end loop;
	v_answers := v_answers || v_more;

	if v_items is not null then
		if p_careful then
			-- What drones have left does not change any more until this is over.
			perform plane.lock_load(array(
				select d.id from (
					select s_cluster[p_spawn[i.n]] as cluster, s_pool[p_spawn[i.n]] as pool, max(s_healthy[p_spawn[i.n]]) as healthy
					from unnest(v_items) as i (n) group by 1, 2
				) g
				join plane.node d on d.cluster = g.cluster and d.kind = 'drone' and d.pool = g.pool
				where d.local_time is not null and v_now - d.seen <= plane.us(g.healthy)
			));
		end if;

		-- Choose drones.
		for v_i in 1..cardinality(v_items) loop
			v_n := v_items[v_i];
			v_s := p_spawn[v_n];
			if v_of is null or v_s <> v_of then
				if v_of is null or (s_cluster[v_s], s_pool[v_s], s_healthy[v_s]) <> (s_cluster[v_of], s_pool[v_of], s_healthy[v_of]) then
					select array_agg(a.id), array_agg(a.name), count(*) filter (where a.connected), count(*), array_agg(a.local_time),
						array_agg(a.backends), array_agg(a.millicpus), array_agg(a.memory),
						array_agg(nullif(a.max_backends, 0)), array_agg(nullif(a.has_millicpus, 0)), array_agg(nullif(a.has_memory, 0))
					into c_drone, c_name, c_ready, c_all, c_local, c_backends, c_millicpus, c_memory, h_backends, h_millicpus, h_memory
					from (
						select d.id, d.name, d.connected, d.local_time, l.backends, l.millicpus, l.memory,
							d.max_backends, d.millicpus as has_millicpus, d.memory as has_memory
						from plane.node d
						cross join lateral (
							select bool_or(l.draining) as draining, plane.total(l.backends) as backends, plane.total(l.millicpus) as millicpus, plane.total(l.memory) as memory
							from plane.load l where l.drone = d.id
						) l
						where d.cluster = s_cluster[v_s] and d.kind = 'drone' and d.pool = s_pool[v_s]
							and not l.draining and d.local_time is not null and d.seen >= v_now - plane.us(s_healthy[v_s])
						order by d.connected desc, hashint8extended(d.id, p_seed[v_n])
					) a;
				end if;
				v_of := v_s;
				select array_agg(coalesce(least(
						h.backends - c.backends,
						case when s_millicpus[v_s] > 0 then (h.millicpus - c.millicpus) / s_millicpus[v_s] end,
						case when s_memory[v_s] > 0 then (h.memory - c.memory) / s_memory[v_s] end), 1::bigint << 60)),
					array_agg(plane.share(c.millicpus, s_millicpus[v_s], h.millicpus, c.memory, s_memory[v_s], h.memory))
				into c_left, c_share
				from unnest(c_backends, c_millicpus, c_memory) with ordinality as c (backends, millicpus, memory, k)
				join unnest(h_backends, h_millicpus, h_memory) with ordinality as h (backends, millicpus, memory, k) on h.k = c.k;
			end if;
			-- Of the connected ones that have room, neighbours in an order that is
			-- another for each call, from a place that is drawn; of the others only
			-- where none of these has room.
			v_from := 0;
			v_count := c_ready;
			v_best := null;
			while v_count > 0 or v_from = 0 and c_all > 0 loop
				v_seen := 0;
				v_shares := true;
				v_fewest := null;
				for v_i in 1..v_count loop
					v_k := v_from + 1 + ((p_seed[v_n] & 2147483647) + v_i) % v_count;
					continue when c_left[v_k] <= 0;
					if c_share[v_k] is null then
						v_shares := false;
					elsif v_best is null or c_share[v_k] < c_share[v_best]
						or c_share[v_k] = c_share[v_best] and c_backends[v_k] < c_backends[v_best]
					then
						v_best := v_k;
					end if;
					if v_fewest is null or c_backends[v_k] < c_backends[v_fewest] then
						v_fewest := v_k;
					end if;
					v_seen := v_seen + 1;
					exit when v_seen >= s_best_of[v_s];
				end loop;
				if not v_shares then
					v_best := v_fewest;
				end if;
				exit when v_best is not null or v_from > 0;
				v_from := c_ready;
				v_count := c_all - c_ready;
			end loop;
			if v_best is not null then
				c_left[v_best] := c_left[v_best] - 1;
				c_backends[v_best] := c_backends[v_best] + 1;
				c_millicpus[v_best] := c_millicpus[v_best] + s_millicpus[v_s];
				c_memory[v_best] := c_memory[v_best] + s_memory[v_s];
				c_share[v_best] := plane.share(c_millicpus[v_best], s_millicpus[v_s], h_millicpus[v_best], c_memory[v_best], s_memory[v_s], h_memory[v_best]);
			end if;
			v_drones := v_drones || c_drone[v_best];
			v_names := v_names || c_name[v_best];
			v_locals := v_locals || c_local[v_best];
		end loop;

		-- Count what they are promised, first of all: where a counter's share does not
		-- do, or a drone was drained since it was looked at, nothing is done yet.
		with more as materialized (
			select s.drone, count(*) as backends, sum(s_millicpus[p_spawn[s.n]])::bigint as millicpus, sum(s_memory[p_spawn[s.n]])::bigint as memory
			from unnest(v_items, v_drones) as s (n, drone) where s.drone is not null
			group by s.drone order by s.drone
		), counted as (
			update plane.load l set
				backends = l.backends + m.backends, millicpus = l.millicpus + m.millicpus, memory = l.memory + m.memory,
				spare_backends = l.spare_backends - m.backends, spare_millicpus = l.spare_millicpus - m.millicpus, spare_memory = l.spare_memory - m.memory
			from more m
			where l.drone = m.drone and l.stripe = plane.stripe() and (p_careful
				or not l.draining and l.spare_backends >= m.backends and l.spare_millicpus >= m.millicpus and l.spare_memory >= m.memory)
			returning l.drone
		)
		select array_agg(m.drone) filter (where c.drone is null), array_agg(m.drone) into v_short, v_placed
		from more m left join counted c on c.drone = m.drone;
		if v_short is not null then
			raise exception using errcode = 'PL001', message = 'a closer look at the drones is needed';
		elsif p_careful and v_placed is not null then
			perform plane.deal(v_placed);
		end if;

		if array_remove(v_old, null) <> '{}' then
			update plane.backend b set holds = false
			where b.id in (select s.old from unnest(v_old, v_drones) as s (old, drone) where s.drone is not null);
		end if;
		-- As of now: drones' clocks were read before, so deadlines that are counted
		-- from them come before the end of the lease.
		v_now := plane.now();
		v_history := array[row(10, plane.wall(), '', 0, '', '', null, false, '')::plane.step];
		with placed as materialized (
			select s.n, p_spawn[s.n] as spawn, s.drone, s.local
			from unnest(v_items, v_drones, v_locals) as s (n, drone, local)
			where s.drone is not null
		), made as (
			insert into plane.backend (id, namespace, name, tag, fencing, lease_end, cluster, drone, subdomain, static_token,
				made, made_at, lifetime, max_idle, millicpus, memory, status, history)
			select p_backend[s.n], p_namespace[s.n], p_name[s.n], p_tag[s.n], nextval('plane.fencing'), v_now + plane.us(s_expiry[s.spawn]),
				s_cluster[s.spawn], s.drone, p_subdomain[s.n], p_static[s.n],
				v_now, v_history[1].at, plane.us(nullif(s_lifetime[s.spawn], 0)), plane.us(nullif(s_max_idle[s.spawn], 0)),
				s_millicpus[s.spawn], s_memory[s.spawn], 10, v_history
			from placed s
		), told as (
			insert into plane.action (drone, id, backend, kind, reason, executable, renew_at, soft_at, hard_at)
			select s.drone, p_action[s.n], p_backend[s.n], 'spawn', '', s_executable[s.spawn],
				s.local + s_renew[s.spawn], s.local + s_soft[s.spawn], s.local + s_hard[s.spawn]
			from placed s
		)
		insert into plane.token (token, backend, seq, secret, username, data, expires)
		select p_token[s.n], p_backend[s.n], nextval('plane.seq'), p_secret[s.n], p_username[s.n], p_data[s.n]::json, v_now + plane.us(p_life[s.n])
		from placed s
		where p_static[s.n] = '' and p_token[s.n] is not null;
		if v_static then
			insert into plane.token (token, backend, seq, secret)
			select plane.digest(p_static[s.n]), p_backend[s.n], nextval('plane.seq'), ''
			from unnest(v_items, v_drones) as s (n, drone)
			where s.drone is not null and p_static[s.n] <> ''
			on conflict do nothing;
		end if;
		v_answers := v_answers || array(
			select row(s.n, case when s.drone is null then 'no_drone' else 'ok' end, p_backend[s.n], 10,
				s_cluster[p_spawn[s.n]], p_subdomain[s.n], p_static[s.n], s.drone, s.name)::plane.answer
			from unnest(v_items, v_drones, v_names) as s (n, drone, name)
		);
	end if;
	return query select a.* from unnest(v_answers) a;
end
$$;
comment on function plane.connect is
	'Store.Connect of many items: each finds the backend that holds its key, or gives the key to a new one (p_backend; null: only finds), and makes its token (null: none). What is spawned is much the same for many, so it is not among the items'' parameters, but p_spawn says where it is among those whose names begin with s_. The answers come in any order. Where the shares of the drones that are chosen do not do it fails with PL001, and p_careful is called for, which looks at all that drones have left, one transaction at a time. Where a token or a backend of the same name is there already it fails with 23505.';

create function plane.connect_late(
	p_namespace text, p_name text, p_tag text,
	p_token bytea, p_secret text, p_username text, p_data text, p_life bigint, p_refuse_static boolean,
	p_backend text, p_action text, p_static text, p_subdomain text, p_seed bigint,
	p_cluster text, p_pool text, p_executable text,
	p_lifetime bigint, p_max_idle bigint, p_best_of integer, p_healthy bigint,
	p_renew bigint, p_soft bigint, p_hard bigint, p_expiry bigint,
	p_millicpus bigint, p_memory bigint,
	p_careful boolean
) returns text[]
	language plpgsql volatile
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set jit to off
as $$
declare
	v plane.answer;
begin
	select * into v from plane.connect(
		array[p_namespace], array[p_name], array[p_tag], array[null::bytea], array[p_secret], array[p_username], array[p_data], array[p_life],
		array[p_refuse_static], array[p_backend], array[p_action], array[p_static], array[p_subdomain], array[p_seed], array[1],
		array[p_cluster], array[p_pool], array[p_executable], array[p_lifetime], array[p_max_idle], array[p_best_of], array[p_healthy],
		array[p_renew], array[p_soft], array[p_hard], array[p_expiry], array[p_millicpus], array[p_memory], p_careful);
	if v.outcome = 'ok' and v.static_token = '' then
		perform plane.issue(p_token, v.backend, p_secret, p_username, p_data, plane.now() + plane.us(p_life));
	end if;
	return array[v.outcome, v.backend, v.status::text, v.cluster, v.subdomain, v.static_token, v.drone::text, v.drone_name];
end
$$;
comment on function plane.connect_late is
	'plane.connect of one item, whose token may be there already: this is perhaps a late try of a connect that has made it. It returns what is in plane.answer, as an array, which for one costs less than a row.';

create function plane.route(p_token bytea) returns table (
	backend text, address text, cluster text, subdomain text, status smallint, secret text, username text, data text, static boolean, left_ms bigint
)
	language plpgsql volatile
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set jit to off
as $$
#variable_conflict use_column
begin
	return query
	select b.id, b.address, b.cluster, b.subdomain, b.status, t.secret, t.username, t.data::text, t.expires is null,
		floor(extract(epoch from t.expires - plane.now()) * 1000)::bigint
	from plane.token t join plane.backend b on b.id = t.backend
	where t.token = p_token and b.status < 60
		and not exists (select from plane.revocation r where r.backend = t.backend and r.username = t.username and r.id > t.seq);
end
$$;
comment on function plane.route(bytea) is 'Store.RouteToken: where a token leads, and for how many milliseconds; no row: nowhere.';

create function plane.revoke(p_backend text, p_username text) returns boolean
	language plpgsql volatile
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set jit to off
as $$
begin
	perform pg_advisory_xact_lock(plane.token_lock(p_backend));
	if not exists (select from plane.backend b where b.id = p_backend) and not exists (select from plane.ended e where e.id = p_backend) then
		return false;
	end if;
	insert into plane.revocation (backend, username, at) values (p_backend, p_username, plane.now());
	return true;
end
$$;
comment on function plane.revoke(text, text) is 'Store.Revoke; false: there is no such backend.';

create function plane.revocations(p_within bigint, out now timestamptz, out ids bigint[], out backends text[], out usernames text[])
	language plpgsql volatile
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set jit to off
as $$
#variable_conflict use_column
declare
	v_last timestamptz;
	v_ticked timestamptz;
begin
	select c.last, plane.shows(c.last, c.behind) into v_last, now from plane.clock c where c.one;
	if now = v_last or now >= v_last + interval '200 milliseconds' then
		-- A tick; where another controller is at it, that is as good.
		update plane.clock c set last = s.now, behind = (extract(epoch from s.wall) - extract(epoch from s.now)) * 1000000
		from (
			select k.wall, plane.shows(k.last, k.behind, k.wall) as now
			from (
				select o.last, o.behind, plane.wall() as wall, set_config('synchronous_commit', 'off', true)
				from plane.clock o where o.one for update skip locked
			) k
			offset 0
		) s
		where c.one
		returning s.now into v_ticked;
		now := coalesce(v_ticked, now);
	end if;
	select array_agg(r.id order by r.id), array_agg(r.backend order by r.id), array_agg(r.username order by r.id)
	into ids, backends, usernames
	from plane.revocation r where r.at >= now - plane.us(p_within);
end
$$;
comment on function plane.revocations is
	'Store.Revocations, and the tick of the store''s clock. A tick that a crash takes back makes the clock slow, which it may be; so nobody waits for the disk.';

-- Terms ------------------------------------------------------------------------

create function plane.leave(p_terms bigint[], p_places smallint[]) returns table (id bigint, ends timestamptz)
	language plpgsql volatile
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set enable_bitmapscan to off set enable_material to off
	set enable_hashjoin to off set enable_mergejoin to off set jit to off
as $$
declare
	v_ids bigint[];
	v_ends timestamptz[];
	v_empty bigint[];
begin
	with left_by as (
		update plane.term t set members = t.members & ~g.mask
		from (
			select l.term, bit_or(1::bigint << l.place) as mask from unnest(p_terms, p_places) as l (term, place)
			where l.term is not null group by l.term order by l.term
		) g
		where t.id = g.term
		returning t.id, t.ends, t.members
	)
	select array_agg(l.id), array_agg(l.ends), array_agg(l.id) filter (where l.members = 0) into v_ids, v_ends, v_empty from left_by l;
	if v_empty is not null then
		delete from plane.term t where t.id = any (v_empty);
	end if;
	return query select * from unnest(v_ids, v_ends);
end
$$;
comment on function plane.leave(bigint[], smallint[]) is
	'Gives places in terms up: no one who finds these gone renews their backends. It waits for renewals under way, and returns when each term ends, these included. The caller has the backends'' rows locked, and has them no longer refer to the terms, in the same transaction.';

create function plane.part(p_backends text[]) returns void
	language plpgsql volatile
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set enable_bitmapscan to off set enable_material to off
	set enable_hashjoin to off set enable_mergejoin to off set jit to off
as $$
declare
	v_ids text[];
	v_terms bigint[];
	v_places smallint[];
begin
	select array_agg(b.id), array_agg(b.term), array_agg(b.place) into v_ids, v_terms, v_places
	from plane.backend b where b.id = any (p_backends) and b.term is not null;
	if v_ids is null then
		return;
	end if;
	update plane.backend b set lease_end = greatest(b.lease_end, l.ends), term = null, place = null
	from unnest(v_ids, v_terms) as i (id, term)
	left join plane.leave(v_terms, v_places) l on l.id = i.term
	where b.id = i.id;
end
$$;
comment on function plane.part(text[]) is
	'Gives backends, whose rows the caller has locked, leases of their own, which end when theirs did. From then on their rows say it all, and who has them locked has nobody renew them.';

-- Ends -------------------------------------------------------------------------

create function plane.finish(p_backend text, p_drone bigint, p_end plane.step, p_now timestamptz) returns plane.backend
	language plpgsql volatile
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set jit to off
as $$
declare
	v plane.backend;
begin
	delete from plane.backend b where b.id = p_backend and b.drone = p_drone returning b.* into v;
	if found then
		insert into plane.ended (id, namespace, name, tag, cluster, drone, made_at, ended, history)
		values (v.id, v.namespace, v.name, v.tag, v.cluster, v.drone, v.made_at, p_now, v.history || p_end)
		-- A name that was wished for while its last bearer was just ending. What
		-- is told of it is what was told last; and no end is hindered by it.
		on conflict (id) do update set namespace = excluded.namespace, name = excluded.name, tag = excluded.tag, cluster = excluded.cluster,
			drone = excluded.drone, made_at = excluded.made_at, ended = excluded.ended, history = excluded.history;
		delete from plane.action a where a.drone = v.drone and a.backend = v.id;
		if v.static_token <> '' then
			delete from plane.token t where t.token = plane.digest(v.static_token);
		end if;
	end if;
	return v;
end
$$;
comment on function plane.finish(text, bigint, plane.step, timestamptz) is
	'Moves a backend to plane.ended, with its last state: its key is free, its actions and tokens are void. Returns what it was, or null when it does not live on that drone. The caller gives up its place in its term (plane.leave), and takes back what its drone promised (plane.unload), after all else and in this order.';

create function plane.record(
	p_drone bigint[], p_backend text[], p_status smallint[], p_at timestamptz[], p_address text[], p_last smallint[],
	p_termination text[], p_reason text[], p_exit_code bigint[], p_oom boolean[], p_message text[]
) returns smallint[]
	language plpgsql volatile
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set enable_bitmapscan to off set enable_material to off
	set enable_hashjoin to off set enable_mergejoin to off set jit to off
as $$
declare
	v_now timestamptz;
	v_step plane.step;
	v_gone plane.backend;
	v_done boolean;
	v_outcomes smallint[] := '{}';
	v_drones bigint[] := '{}';
	v_millicpus bigint[] := '{}';
	v_memory bigint[] := '{}';
	v_terms bigint[] := '{}';
	v_places smallint[] := '{}';
begin
	perform from (select from plane.backend b where b.id = any (p_backend) order by b.id for update) locked;
	v_now := plane.now();
	for i in 1..cardinality(p_backend) loop
		v_step := row(p_status[i], p_at[i], p_address[i], p_last[i], p_termination[i], p_reason[i], p_exit_code[i], p_oom[i], p_message[i]);
		if p_status[i] = 70 then
			v_gone := plane.finish(p_backend[i], p_drone[i], v_step, v_now);
			v_done := v_gone.id is not null;
			if v_done then
				v_drones := v_drones || v_gone.drone;
				v_millicpus := v_millicpus || v_gone.millicpus;
				v_memory := v_memory || v_gone.memory;
				v_terms := v_terms || v_gone.term;
				v_places := v_places || v_gone.place;
			end if;
		else
			update plane.backend b set
				status = p_status[i],
				history = b.history || v_step,
				address = case when p_status[i] in (40, 50) then p_address[i] else b.address end,
				ready = case when p_status[i] = 50 then v_now else b.ready end
			where b.id = p_backend[i] and b.drone = p_drone[i] and b.status < p_status[i];
			v_done := found;
		end if;
		v_outcomes := v_outcomes || case
			when v_done then 0
			-- One that is not that far has come since the look above.
			when exists (select from plane.backend b where b.id = p_backend[i] and b.drone = p_drone[i] and b.status >= p_status[i]) then 1
			when exists (select from plane.ended e where e.id = p_backend[i] and e.drone = p_drone[i]) then 1
			else 2 end::smallint;
	end loop;
	if cardinality(v_drones) > 0 then
		perform plane.leave(v_terms, v_places);
		perform plane.unload(v_drones, v_millicpus, v_memory);
	end if;
	return v_outcomes;
end
$$;
comment on function plane.record is
	'Store.RecordStates, item by item, in order: 0 recorded, 1 the backend was that far already, 2 there is no such backend on that drone.';

create function plane.extend(
	p_term bigint[], p_drone bigint[], p_asked bigint[], p_expiry bigint[], out terms bigint[], out members bigint[]
)
	language plpgsql volatile
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set enable_bitmapscan to off set enable_material to off
	set enable_hashjoin to off set enable_mergejoin to off set jit to off
as $$
begin
	with extended as (
		update plane.term t set ends = i.ends
		from (
			select u.id, u.drone, u.asked, c.now, c.now + plane.us(u.expiry) as ends
			from (select plane.shows(k.last, k.behind) as now from plane.clock k where k.one offset 0) c
			cross join unnest(p_term, p_drone, p_asked, p_expiry) as u (id, drone, asked, expiry)
			order by u.id
		) i
		where t.id = i.id and t.drone = i.drone and t.members & ~i.asked = 0 and t.members & i.asked <> 0
			and t.ends > i.now + interval '5 seconds' and t.ends <= i.ends
		returning t.id, t.members
	)
	select array_agg(e.id), array_agg(e.members) into terms, members from extended e;
end
$$;
comment on function plane.extend(bigint[], bigint[], bigint[], bigint[]) is
	'Part of Store.RenewKeys: extends terms, for the places that were asked for, and returns those that it has extended with their members: these are renewed, and no others. It passes over terms of which another member did not ask, that would end sooner than they do, and, as plane.renew without p_late, that have less than 5 s left. In order of the terms'' numbers; it locks nothing else.';

create function plane.renew(
	p_drone bigint[], p_backend text[], p_expiry bigint[], p_share integer[], p_place smallint[], p_late boolean,
	out backends text[], out drones bigint[], out terms bigint[], out places smallint[]
)
	language plpgsql volatile
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set enable_bitmapscan to off set enable_material to off
	set enable_hashjoin to off set enable_mergejoin to off set jit to off
as $$
declare
	v_now timestamptz;
	v_least timestamptz;
	v_new bigint[];       -- the new terms
	v_ends timestamptz[]; -- when those that were renewed end,
	v_terms bigint[];     -- the terms that they were in (null: none),
	v_places smallint[];  -- their places in these,
	v_left bigint[];      -- and those that were left,
	v_last timestamptz[]; -- with their ends
begin
	if p_late then
		-- Where a lease is about to expire, the time is read once no other
		-- transaction can have seen it expired: else one could find the key free,
		-- and it would be renewed all the same.
		perform from (select from plane.backend b where b.id = any (p_backend) order by b.id for no key update) locked;
		perform from (
			select from plane.term t
			where t.id = any (array(select b.term from plane.backend b where b.id = any (p_backend))) order by t.id for no key update
		) locked;
		v_now := plane.now();
		v_least := v_now;
	else
		-- Other leases cannot expire before the server gives this up.
		v_now := plane.now();
		v_least := v_now + interval '5 seconds';
	end if;
	v_new := array(select nextval('plane.term_id_seq') from generate_series(1, (select max(s.share) from unnest(p_share) as s (share))));
	-- What is seen of a term is as of when this began; its end never moves back.
	-- Who has another term since is passed over, and so is whose lease ends later
	-- already: a renewal that has read the time after this one was faster.
	with renewed as (
		update plane.backend b set
			lease_end = v_now + plane.us(i.expiry),
			term = v_new[i.share], place = case when i.share is not null then i.place end
		from (
			select u.*, o.term, o.place as old_place, t.ends
			from (
				select * from unnest(p_drone, p_backend, p_expiry, p_share, p_place) as u (drone, id, expiry, share, place)
				order by u.id
			) u
			join plane.backend o on o.id = u.id
			left join plane.term t on t.id = o.term
		) i
		where b.id = i.id and b.drone = i.drone and b.holds and not b.final
			and b.term is not distinct from i.term and greatest(b.lease_end, i.ends) > v_least
			and (p_late or greatest(b.lease_end, i.ends) <= v_now + plane.us(i.expiry))
		returning b.id, b.drone, b.term, b.place, b.lease_end, i.term as old_term, i.old_place
	)
	select array_agg(r.id), array_agg(r.drone), array_agg(r.term), array_agg(r.place), array_agg(r.lease_end), array_agg(r.old_term), array_agg(r.old_place)
	into backends, drones, terms, places, v_ends, v_terms, v_places from renewed r;
	if array_remove(v_terms, null) <> '{}' then
		select array_agg(l.id), array_agg(l.ends) into v_left, v_last from plane.leave(v_terms, v_places) l;
		if not p_late and (select max(l.ends) from unnest(v_last) as l (ends)) > (select min(r.ends) from unnest(v_ends) as r (ends)) then
			-- The same, of a term that was extended meanwhile.
			update plane.backend b set lease_end = greatest(b.lease_end, l.ends)
			from unnest(backends, v_terms) as r (id, term) join unnest(v_left, v_last) as l (id, ends) on l.id = r.term
			where b.id = r.id;
		end if;
	end if;
	if cardinality(v_new) > 0 then
		insert into plane.term (id, ends, drone, members)
		select b.term, max(b.lease_end), b.drone, bit_or(1::bigint << b.place)
		from plane.backend b
		where b.id = any (backends) and b.term is not null
		group by b.term, b.drone;
	end if;
end
$$;
comment on function plane.renew is
	'Part of Store.RenewKeys: extends leases one by one, and returns those that were renewed, with their drones, terms and places. Those with the same number in p_share, which are of one drone and for one expiry, share a new term from now on, each in its p_place; those with null have leases of their own. Without p_late it passes over those that have less than 5 s left; they take a second call, in a transaction of its own, as these are locked anew. In order of the backends'' names, so that two of these never wait for each other.';

create function plane.terminate(p_backend text, p_action text, p_kind text, p_reason text) returns bigint
	language plpgsql volatile
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set jit to off
as $$
declare
	v plane.backend;
	v_now timestamptz;
begin
	select b.* into v from plane.backend b where b.id = p_backend for no key update;
	if not found then
		return case when exists (select from plane.ended e where e.id = p_backend) then 0 else -1 end;
	end if;
	if v.hard is not null or p_kind = 'soft' and v.soft is not null then
		return case when exists (select from plane.action a where a.drone = v.drone and a.backend = p_backend) then v.drone else 0 end;
	end if;
	v_now := plane.now();
	update plane.backend b
	set soft = case when p_kind = 'soft' then v_now else b.soft end, hard = case when p_kind = 'hard' then v_now else b.hard end
	where b.id = p_backend;
	insert into plane.action (drone, id, backend, kind, reason) values (v.drone, p_action, p_backend, p_kind, p_reason);
	return v.drone;
end
$$;
comment on function plane.terminate(text, text, text, text) is
	'Store.Terminate: the number of the drone that has an action for the backend, a new one or one from before; 0: nothing to do; -1: there is no such backend.';

create function plane.ack(p_drone bigint[], p_action text[]) returns void
	language plpgsql volatile
	-- A hash join: after an outage a drone may have thousands of actions.
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set enable_bitmapscan to off
	set enable_nestloop to off set enable_mergejoin to off set jit to off
as $$
declare
	v_found tid[];
begin
	select array_agg(f.ctid) into v_found from (
		select a.ctid from plane.action a
		join unnest(p_drone, p_action) as i (drone, id) on i.drone = a.drone and i.id = a.id
		where a.drone = any (array(select distinct d.drone from unnest(p_drone) as d (drone)))
		for update of a skip locked
	) f;
	delete from plane.action a where a.ctid = any (v_found);
end
$$;
comment on function plane.ack(bigint[], text[]) is
	'Store.AckActions. An action that another transaction is deleting is passed over; should that one fail, the drone is told again and acknowledges again.';

create function plane.pending(p_drone bigint) returns table (
	id text, backend text, kind text, reason text, executable text, renew_at bigint, soft_at bigint, hard_at bigint,
	namespace text, name text, tag text, fencing bigint, static_token text
)
	language plpgsql volatile
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set enable_bitmapscan to off set enable_material to off
	set enable_hashjoin to off set enable_mergejoin to off set jit to off
as $$
#variable_conflict use_column
begin
	return query
	select a.id, a.backend, a.kind, a.reason, a.executable::text, a.renew_at, a.soft_at, a.hard_at,
		b.namespace, b.name, b.tag, b.fencing, b.static_token
	from plane.action a join plane.backend b on b.id = a.backend
	where a.drone = p_drone
	order by a.seq;
end
$$;
comment on function plane.pending(bigint) is 'Store.PendingActions: what a drone has not acknowledged, oldest first.';

-- Nodes ------------------------------------------------------------------------

create function plane.register(
	p_kind text, p_cluster text, p_name text, p_pool text, p_controller text, p_connection text, p_version text, p_git_hash text,
	p_max_backends bigint, p_millicpus bigint, p_memory bigint
) returns bigint
	language plpgsql volatile
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set jit to off
as $$
declare
	v_id bigint;
	v_now timestamptz;
begin
	for v_try in 1..2 loop
		select n.id into v_id from plane.node n where n.cluster = p_cluster and n.kind = p_kind and n.name = p_name for no key update;
		exit when found;
		v_now := plane.now();
		insert into plane.node (kind, cluster, name, pool, controller, connection, version, git_hash, connected, seen, beat, max_backends, millicpus, memory)
		values (p_kind, p_cluster, p_name, p_pool, p_controller, p_connection, p_version, p_git_hash, true, v_now, v_now, p_max_backends, p_millicpus, p_memory)
		on conflict do nothing
		returning id into v_id;
		if v_id is not null then
			if p_kind = 'drone' then
				insert into plane.load (drone, stripe) select v_id, generate_series(0, 7);
				perform plane.deal(array[v_id]);
			end if;
			return v_id;
		end if;
	end loop;
	v_now := plane.now();
	update plane.node n set
		pool = p_pool, controller = p_controller, version = p_version, git_hash = p_git_hash,
		max_backends = p_max_backends, millicpus = p_millicpus, memory = p_memory,
		local_time = case when n.connection = p_connection then n.local_time end,
		connection = p_connection, connected = true, seen = v_now, beat = v_now
	where n.id = v_id;
	if p_kind = 'drone' then
		perform plane.deal(array[v_id]);
	end if;
	return v_id;
end
$$;
comment on function plane.register is 'Store.RegisterNode: the node''s number.';

create function plane.beat(p_drone bigint[], p_connection text[], p_local_time bigint[], p_stuck bigint) returns void
	language plpgsql volatile
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set enable_bitmapscan to off set enable_material to off
	set enable_hashjoin to off set enable_mergejoin to off set jit to off
as $$
declare
	v_now timestamptz;
	v record;
begin
	perform from (select from plane.node n where n.id = any (p_drone) order by n.id for no key update) locked;
	v_now := plane.now();
	for v in
		select b.drone, b.connection, b.local_time from unnest(p_drone, p_connection, p_local_time) with ordinality as b (drone, connection, local_time, i)
		order by b.i
	loop
		update plane.node n set seen = v_now, beat = v_now, local_time = greatest(n.local_time, v.local_time)
		where n.id = v.drone and n.connection = v.connection;
		if not found then
			update plane.node n set seen = v_now where n.id = v.drone and n.connected and v_now - n.beat <= plane.us(p_stuck);
			if not found then
				update plane.node n
				set seen = v_now, beat = v_now, connection = v.connection, connected = true, local_time = v.local_time
				where n.id = v.drone;
			end if;
		end if;
	end loop;
end
$$;
comment on function plane.beat(bigint[], text[], bigint[], bigint) is
	'Store.Heartbeats. One on another connection makes that the one that counts if the present one is over, or has had none for p_stuck.';

create function plane.drain(p_cluster text, p_name text) returns boolean
	language plpgsql volatile
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set jit to off
as $$
declare
	v_id bigint;
begin
	select n.id into v_id from plane.node n where n.cluster = p_cluster and n.kind = 'drone' and n.name = p_name;
	if not found then
		return null;
	end if;
	perform plane.lock_load(array[v_id]);
	update plane.load l set draining = true where l.drone = v_id and not l.draining;
	return found;
end
$$;
comment on function plane.drain(text, text) is
	'Store.Drain; null: there is no such drone. It waits for transactions that have promised something to the drone, and later ones see it.';

create function plane.use(p_proxy bigint, p_backends text[], p_complete boolean, p_as_of timestamptz) returns void
	language plpgsql volatile
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set enable_bitmapscan to off set enable_material to off
	set enable_hashjoin to off set enable_mergejoin to off set jit to off
as $$
declare
	v_word timestamptz;
	v_now timestamptz;
	v_old plane.word;
begin
	select n.word into v_word from plane.node n where n.id = p_proxy for no key update;
	if not found then
		return;
	end if;
	v_now := plane.now();
	if not p_complete or p_as_of < v_word then
		with used as (
			update plane.backend b set used = v_now
			from (select distinct u.id from unnest(p_backends) as u (id) order by u.id) u
			where b.id = u.id
			returning b.id
		)
		insert into plane.addition (proxy, backend, at)
		select p_proxy, u.id, v_now from used u
		on conflict (proxy, backend) do update set at = excluded.at;
		return;
	end if;
	update plane.node n set seen = greatest(n.seen, p_as_of), word = p_as_of where n.id = p_proxy;
	delete from plane.addition a where a.proxy = p_proxy;
	select w.* into v_old from plane.word w where w.proxy = p_proxy;
	if v_old.backends = p_backends then
		update plane.word w set at = v_now where w.proxy = p_proxy;
		return;
	end if;
	insert into plane.word as w (proxy, at, backends) values (p_proxy, v_now, p_backends)
	on conflict (proxy) do update set at = excluded.at, backends = excluded.backends;
	-- What is in the list from now on is noted there; what is so no longer, here.
	update plane.backend b set used = greatest(b.used, c.at)
	from (
		select u.id, max(u.at) as at from (
			select o.id, v_old.at from (select unnest(v_old.backends) except select unnest(p_backends)) o (id)
			union all
			select n.id, v_now from (select unnest(p_backends) except select unnest(v_old.backends)) n (id)
		) u
		group by u.id order by u.id
	) c
	where b.id = c.id;
end
$$;
comment on function plane.use(bigint, text[], boolean, timestamptz) is 'Store.KeepAlive. The list of a proxy has each name once, in order.';

-- The sweep --------------------------------------------------------------------

create function plane.idle(p_ids text[], p_swept boolean, p_now timestamptz, p_proxy_gone bigint, p_word_late bigint)
	returns table (id text, used timestamptz, idle boolean)
	language plpgsql volatile
	set jit to off
as $$
#variable_conflict use_column
declare
	v_looks text[];
begin
	-- What looks idle by its own row, which most often is nothing.
	v_looks := array(
		select b.id from plane.backend b
		where b.status = 50 and b.max_idle is not null and (p_swept or b.hard is null and not b.swept)
			and greatest(b.ready, b.used) + b.max_idle <= p_now and (p_ids is null or b.id = any (p_ids))
	);
	if cardinality(v_looks) = 0 then
		return;
	end if;
	-- And then by what the proxies say.
	return query
	with word as materialized (
		select u.backend, max(u.at) as at, bool_or(p_now - greatest(u.at, p.seen) < plane.us(p_proxy_gone)) as busy
		from (
			select w.proxy, w.at, unnest(w.backends) as backend from plane.word w
			union all
			select a.proxy, a.at, a.backend from plane.addition a
		) u
		join plane.node p on p.id = u.proxy
		where u.backend in (select unnest(v_looks))
		group by u.backend
	), since as (
		select b.id, b.cluster, w.busy is true as busy, w.at as used, greatest(b.ready, b.used, w.at) + b.max_idle as at
		from plane.backend b
		left join word w on w.backend = b.id
		where b.id = any (v_looks)
	)
	select s.id, s.used, not s.busy and s.at <= p_now and not exists (
		select from plane.node p
		where p.cluster = s.cluster and p.kind = 'proxy' and p_now - p.seen < plane.us(p_proxy_gone)
			and (p.word is null or p_now - p.word > plane.us(p_word_late) or p.word < s.at)
	)
	from since s;
end
$$;
comment on function plane.idle is
	'The backends, of those given or all that live, that look past their idle limit by their own rows; when a proxy last used each by plane.word; and whether it is idle: no proxy uses it, or may use it. p_swept: those too that were found so before.';

create function plane.gone_users(p_now timestamptz, p_proxy_gone bigint) returns setof bigint
	language plpgsql volatile
	set jit to off
as $$
begin
	return query
	select u.proxy
	from (
		select w.proxy, w.at from plane.word w
		union all
		select a.proxy, max(a.at) from plane.addition a group by a.proxy
	) u
	join plane.node p on p.id = u.proxy
	group by u.proxy
	having p_now - greatest(max(u.at), max(p.seen)) >= plane.us(p_proxy_gone)
	order by u.proxy;
end
$$;
comment on function plane.gone_users(timestamptz, bigint) is
	'Proxies that are gone, and so use nothing any more, but of which plane.word or plane.addition still tells.';

create function plane.forget_uses(p_proxy_gone bigint, p_limit integer) returns boolean
	language plpgsql volatile
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set enable_bitmapscan to off set enable_material to off
	set enable_hashjoin to off set enable_mergejoin to off set jit to off
as $$
declare
	v_now timestamptz := plane.now();
	v_proxy bigint;
	v_word plane.word;
begin
	for v_proxy in select g.* from plane.gone_users(v_now, p_proxy_gone) g loop
		-- One that comes back (plane.use) waits for this, or is found back.
		perform from plane.node n where n.id = v_proxy for no key update skip locked;
		continue when not found or not exists (select from plane.gone_users(v_now, p_proxy_gone) g (id) where g.id = v_proxy);
		delete from plane.addition a where a.proxy = v_proxy; -- each is in plane.backend.used
		select w.* into v_word from plane.word w where w.proxy = v_proxy;
		update plane.backend b set used = greatest(b.used, v_word.at)
		from (select unnest(v_word.backends[:p_limit]) as id order by 1) u
		where b.id = u.id and b.max_idle is not null;
		if cardinality(v_word.backends) > p_limit then
			update plane.word w set backends = w.backends[p_limit + 1:] where w.proxy = v_proxy;
		else
			delete from plane.word w where w.proxy = v_proxy;
		end if;
		return true;
	end loop;
	return false;
end
$$;
comment on function plane.forget_uses(bigint, integer) is
	'Of one proxy that is gone: notes in plane.backend.used what it used, up to p_limit backends, and deletes what it said of them. Nothing else would: proxies make up their names, so few come back. False: there is nothing to do, or others are at it.';

create function plane.take_turn(p_every bigint, p_skip_idle boolean) returns boolean
	language plpgsql volatile
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set jit to off
as $$
declare
	v_now timestamptz := plane.now();
begin
	if p_skip_idle then
		return not exists (select from plane.turn t where t.one and t.began > v_now - plane.us(p_every) and t.began < v_now + plane.us(p_every));
	end if;
	-- A time far ahead is a mistake, and may not keep everybody from looking.
	perform from plane.turn t
	where t.one and not (t.began > v_now - plane.us(p_every) and t.began < v_now + plane.us(p_every))
	for update skip locked;
	if not found then
		return false;
	end if;
	perform set_config('synchronous_commit', 'off', true);
	update plane.turn t set began = v_now where t.one;
	return true;
end
$$;
comment on function plane.take_turn(bigint, boolean) is
	'Whether a sweep has to look at all backends: no complete look began within p_every, and nobody else begins one right now. Notes that this one does, unless it leaves out the idle: then a complete one is still wanted. Who need not look writes nothing, and a turn that a crash takes back is taken again; so nobody waits for the disk.';

create function plane.due(
	p_ids text[], p_drone_lost bigint, p_proxy_gone bigint, p_hard_after bigint, p_lease_grace bigint, p_word_late bigint, p_skip_idle boolean, p_limit integer,
	p_every bigint default 0
) returns table (id text, verdict text, message text, used timestamptz)
	language plpgsql volatile
	set plan_cache_mode to force_custom_plan set jit to off
as $$
#variable_conflict use_column
declare
	v_now timestamptz := plane.now();
	v_over bigint[];     -- terms that have expired
	v_ids text[];        -- what may be due for another reason than being idle
	v_looks_idle boolean;
	v_idle text[] := '{}';
	v_in_use text[];      -- what looks idle by its row, and is not,
	v_used timestamptz[]; -- and when it was last used
begin
	if p_ids is null and p_every > 0 and not plane.take_turn(p_every, p_skip_idle) then
		return;
	end if;
	-- What the rows say by themselves, which most often is that nothing is due.
	v_over := array(select t.id from plane.term t where t.ends <= v_now);
	select array_agg(b.id) filter (where not x.idle), bool_or(x.idle) into v_ids, v_looks_idle
	from plane.backend b
	cross join lateral (
		select (
			b.lease_end <= v_now and (b.term is null or b.term = any (v_over))
			or b.hard is null and (b.swept or b.made + b.lifetime <= v_now)
		) is not true as idle
	) x
	where (p_ids is null or b.id = any (p_ids)) and (
		b.lease_end <= v_now and (b.term is null or b.term = any (v_over)) or b.hard is null and (
			b.swept or b.made + b.lifetime <= v_now
			or not p_skip_idle and b.status = 50 and greatest(b.ready, b.used) + b.max_idle <= v_now
		)
	);
	if v_looks_idle then
		-- Of what is in use only that is told of whose row shall say so: it does
		-- not look idle any more then, until it has not been used for its limit.
		select coalesce(array_agg(i.id) filter (where i.idle), '{}'),
			array_agg(i.id) filter (where not i.idle and i.used + b.max_idle > v_now),
			array_agg(i.used) filter (where not i.idle and i.used + b.max_idle > v_now)
		into v_idle, v_in_use, v_used
		from plane.idle(p_ids, false, v_now, p_proxy_gone, p_word_late) i join plane.backend b on b.id = i.id;
	end if;
	if v_ids is not null or v_idle <> '{}' then
		return query
		select x.id, x.verdict, case x.verdict
			when 'marked' then 'an operator marked it as lost'
			when 'lost' then format('drone %s has not been heard from for %ss', x.drone, x.quiet)
			when 'unstarted' then format('drone %s did not start it before its lease expired', x.drone)
			when 'lapsed' then format('drone %s did not renew its lease, and did not say how it ended', x.drone)
			end,
			null::timestamptz
		from (
			select b.id, d.name as drone, round(extract(epoch from v_now - d.seen)) as quiet, case
				when e.lease_end <= v_now and b.lost then 'marked'
				when e.lease_end <= v_now and v_now - d.seen > plane.us(p_drone_lost) then 'lost'
				when e.lease_end <= v_now and b.status = 10 then 'unstarted'
				when e.lease_end <= v_now and v_now - e.lease_end >= plane.us(p_lease_grace) then 'lapsed'
				when b.hard is not null then null
				when b.swept or b.made + b.lifetime <= v_now or b.id = any (v_idle) then case
					when b.soft is null then 'soft'
					when v_now - b.soft >= plane.us(p_hard_after) then 'hard'
					when not b.swept then 'note'
					end
				end as verdict
			from plane.backend b join plane.node d on d.id = b.drone
			left join plane.term t on t.id = b.term
			cross join lateral (select greatest(b.lease_end, t.ends) as lease_end) e
			where b.id = any (v_ids || v_idle)
		) x
		where x.verdict is not null
		limit p_limit;
	end if;
	if p_ids is not null or p_skip_idle then
		return;
	end if;
	return query select u.id, 'used', null, u.used from unnest(v_in_use, v_used) as u (id, used) limit 10 * p_limit;
	if exists (select from plane.gone_users(v_now, p_proxy_gone)) then
		return query select '', 'gone', null, null::timestamptz;
	end if;
end
$$;
comment on function plane.due is
	'What a sweep has to do, for the given backends or all that live. verdict: marked, lost, unstarted or lapsed (it counts as terminated, message says why), soft or hard (a termination to ask for), note (it has passed a limit, and its end is under way). Where all were looked at, also used (it looks idle by its row, but proxies say that they used it at that time: for plane.note_uses), ten times as many at most, since these cost little; and, for no backend, gone (plane.forget_uses has to do). With p_every (plane.take_turn) a look at all is left to others who have begun one just now: then there is nothing.';

create function plane.sweep(
	p_ids text[], p_actions text[], p_drone_lost bigint, p_proxy_gone bigint, p_hard_after bigint, p_lease_grace bigint, p_word_late bigint, p_skip_idle boolean
) returns table (id text, verdict text, drone bigint)
	language plpgsql volatile
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set enable_bitmapscan to off set enable_material to off
	set enable_hashjoin to off set enable_mergejoin to off set jit to off
as $$
#variable_conflict use_column
declare
	v record;
	v_b plane.backend;
	v_now timestamptz;
	v_locked bigint[];
	v_last plane.step;
	v_next integer := 1;
	v_drones bigint[] := '{}';
	v_millicpus bigint[] := '{}';
	v_memory bigint[] := '{}';
	v_terms bigint[] := '{}';
	v_places smallint[] := '{}';
begin
	p_ids := array(select b.id from plane.backend b where b.id = any (p_ids) order by b.id for update skip locked);
	-- So are the terms that expire before this is over: one may just be extended,
	-- in a commit that takes long. Whose term is not to be had is left to the next.
	v_now := plane.now();
	v_locked := array(
		select t.id from plane.term t
		where t.id = any (array(select b.term from plane.backend b where b.id = any (p_ids))) and t.ends <= v_now + interval '5 seconds'
		order by t.id for update skip locked
	);
	p_ids := array(
		select b.id from plane.backend b left join plane.term t on t.id = b.term
		where b.id = any (p_ids) and (t.ends <= v_now + interval '5 seconds' and t.id <> all (v_locked)) is not true
	);
	for v in
		select * from plane.due(p_ids, p_drone_lost, p_proxy_gone, p_hard_after, p_lease_grace, p_word_late, p_skip_idle, null)
	loop
		select b.* into v_b from plane.backend b where b.id = v.id;
		id := v.id; verdict := v.verdict; drone := v_b.drone;
		case v.verdict
		when 'note' then
			update plane.backend b set swept = true where b.id = v.id;
			return next;
		when 'soft', 'hard' then
			continue when v_next > coalesce(cardinality(p_actions), 0); -- left to the next
			update plane.backend b set swept = true,
				soft = case when v.verdict = 'soft' then v_now else b.soft end,
				hard = case when v.verdict = 'hard' then v_now else b.hard end
			where b.id = v.id;
			insert into plane.action (drone, id, backend, kind, reason) values (v_b.drone, p_actions[v_next], v.id, v.verdict, 'swept');
			v_next := v_next + 1;
			return next;
		else
			v_last := v_b.history[cardinality(v_b.history)];
			v_last := case when v_last.status < 60
				then row(70, plane.wall(), '', v_last.status, 'hard', case when v.verdict in ('marked', 'lost') then 'lost' else 'keyexpired' end, null, false, v.message)::plane.step
				else row(70, plane.wall(), '', v_last.last, v_last.termination, v_last.reason, null, false, v.message)::plane.step end;
			v_b := plane.finish(v.id, v_b.drone, v_last, v_now);
			v_drones := v_drones || v_b.drone;
			v_millicpus := v_millicpus || v_b.millicpus;
			v_memory := v_memory || v_b.memory;
			v_terms := v_terms || v_b.term;
			v_places := v_places || v_b.place;
			return next;
		end case;
	end loop;
	if cardinality(v_drones) > 0 then
		perform plane.leave(v_terms, v_places);
		perform plane.unload(v_drones, v_millicpus, v_memory);
	end if;
end
$$;
comment on function plane.sweep is
	'Store.Sweep, of the backends that plane.due has named: looks at each again, under its lock, and does what is due; p_actions are names for the actions. Returns what was done. Backends that another transaction is at are left to the next sweep.';

create function plane.note_uses(p_ids text[], p_used timestamptz[]) returns integer
	language plpgsql volatile
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set enable_bitmapscan to off set enable_material to off
	set enable_hashjoin to off set enable_mergejoin to off set jit to off
as $$
declare
	v_ids text[];
	v_used timestamptz[];
begin
	select array_agg(f.id), array_agg(f.used) into v_ids, v_used from (
		select b.id, u.used
		from (select * from unnest(p_ids, p_used) as u (id, used) order by u.id) u
		join plane.backend b on b.id = u.id
		where b.used is null or b.used < u.used
		for no key update of b skip locked
	) f;
	update plane.backend b set used = u.used from unnest(v_ids, v_used) as u (id, used) where b.id = u.id;
	return coalesce(cardinality(v_ids), 0);
end
$$;
comment on function plane.note_uses(text[], timestamptz[]) is
	'Part of Store.Sweep: writes into plane.backend.used what plane.word says already. That changes nothing but where it can be seen. Returns how many it has noted; what another transaction is at is left to the next sweep.';

create function plane.cleanup(p_min_age bigint, p_limit integer, p_from bigint, out deleted integer, out next bigint)
	language plpgsql volatile
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set enable_bitmapscan to off set enable_material to off
	set enable_hashjoin to off set enable_mergejoin to off set jit to off
as $$
declare
	v_now timestamptz := plane.now();
	v_gone text[];
	v_pages bigint := pg_relation_size('plane.token') / current_setting('block_size')::bigint;
	v_some bigint := least(greatest(v_pages / 60, 1000), 16000);
	v_from tid;
	v_to tid;
	v_tokens tid[];
begin
	with gone as (
		delete from plane.ended e
		using (
			select x.id from plane.ended x where p_min_age > 0 and x.ended <= v_now - plane.us(p_min_age)
			order by x.ended limit p_limit for update skip locked
		) old
		where e.id = old.id
		returning e.id
	)
	select array_agg(g.id) into v_gone from gone g;
	deleted := coalesce(cardinality(v_gone), 0);
	if deleted > 0 then
		delete from plane.revocation r where r.backend = any (v_gone);
	end if;

	-- Tokens, in some of their pages, and in others the next time.
	p_from := coalesce(p_from, case when v_pages > v_some then floor(random() * v_pages)::bigint else 0 end);
	next := p_from + v_some;
	v_from := format('(%s,0)', p_from)::tid;
	v_to := format('(%s,0)', next)::tid;
	v_tokens := array(
		select x.ctid from plane.token x where x.ctid >= v_from and x.ctid < v_to and x.expires <= v_now
		limit p_limit - deleted for update skip locked
	);
	delete from plane.token t where t.ctid = any (v_tokens);
	deleted := deleted + cardinality(v_tokens);
	if deleted = p_limit then
		next := p_from; -- there may be more
	elsif next >= v_pages then
		next := 0;
	end if;
	delete from plane.controller c where c.seen < v_now - greatest(plane.us(p_min_age), interval '1 day');
end
$$;
comment on function plane.cleanup(bigint, integer, bigint) is
	'Store.Cleanup: deletes up to p_limit ended backends (p_min_age 0: none) and expired tokens, and passes over those that another controller is deleting. Tokens are looked for in a sixtieth of their pages, 8 MB at least and 128 MB at most, from page p_from on (null: from anywhere); next is where to go on.';

-- Certificates -----------------------------------------------------------------

create function plane.lock_certificate(p_cluster text) returns timestamptz
	language plpgsql volatile
as $$
begin
	perform pg_advisory_xact_lock(plane.key_lock('certificates', p_cluster));
	return plane.now();
end
$$;
comment on function plane.lock_certificate(text) is 'Has one transaction at a time work on a cluster''s challenges, and returns the time.';

create function plane.lease_certificate(p_cluster text, p_proxy bigint, p_term bigint, p_lately bigint) returns boolean
	language plpgsql volatile
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set jit to off
as $$
declare
	v_now timestamptz := plane.lock_certificate(p_cluster);
begin
	insert into plane.certificate as c (cluster, proxy, until) values (p_cluster, p_proxy, v_now + plane.us(p_term))
	on conflict (cluster) do update
	set proxy = excluded.proxy, until = case when c.proxy = excluded.proxy and c.until > v_now then greatest(c.until, excluded.until) else excluded.until end
	where c.proxy = excluded.proxy or c.until <= v_now
		or exists (select from plane.node n where n.id = c.proxy and not n.connected and v_now - n.seen > plane.us(p_lately));
	return found;
end
$$;
comment on function plane.lease_certificate(text, bigint, bigint, bigint) is 'ChallengeStore.LeaseCertificate. A proxy that is connected nowhere, and was not heard from for p_lately, holds nothing any more.';

create function plane.release_certificate(p_cluster text, p_proxy bigint) returns void
	language plpgsql volatile
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set jit to off
as $$
begin
	perform plane.lock_certificate(p_cluster);
	delete from plane.certificate c where c.cluster = p_cluster and c.proxy = p_proxy;
	delete from plane.challenge c where c.cluster = p_cluster and c.proxy = p_proxy;
end
$$;
comment on function plane.release_certificate(text, bigint) is 'ChallengeStore.ReleaseCertificate.';

create function plane.add_challenge(p_cluster text, p_proxy bigint, p_value text, p_life bigint, p_most integer) returns void
	language plpgsql volatile
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set jit to off
as $$
declare
	v_now timestamptz := plane.lock_certificate(p_cluster);
	v_until timestamptz := v_now + plane.us(p_life);
begin
	delete from plane.challenge c where c.cluster = p_cluster and c.until <= v_now;
	insert into plane.challenge as c (cluster, proxy, value, until) values (p_cluster, p_proxy, p_value, v_until)
	on conflict (cluster, proxy, value) do update set seq = excluded.seq, until = greatest(c.until, excluded.until);
	delete from plane.challenge c
	where c.cluster = p_cluster and c.proxy = p_proxy and c.seq <= (
		select o.seq from plane.challenge o where o.cluster = p_cluster and o.proxy = p_proxy order by o.seq desc offset p_most limit 1
	);
	update plane.certificate c set until = greatest(c.until, v_until)
	where c.cluster = p_cluster and c.proxy = p_proxy and c.until > v_now;
end
$$;
comment on function plane.add_challenge is 'ChallengeStore.AddChallenge.';

create function plane.challenges(p_clusters text[]) returns table (n bigint, value text)
	language plpgsql volatile
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set enable_hashjoin to off set enable_mergejoin to off set jit to off
as $$
#variable_conflict use_column
declare
	v_now timestamptz := plane.now();
begin
	return query
	select i.n, c.value
	from unnest(p_clusters) with ordinality as i (cluster, n)
	join plane.challenge c on c.cluster = i.cluster and c.until > v_now
	left join plane.certificate l on l.cluster = c.cluster and l.proxy = c.proxy and l.until > v_now
	order by i.n, l.proxy is null, c.seq desc;
end
$$;
comment on function plane.challenges(text[]) is 'ChallengeStore.Challenges: the values of many clusters, each with its cluster''s place.';

-- Reading ----------------------------------------------------------------------

create function plane.history(p_backend text, p_after smallint) returns setof plane.step
	language plpgsql volatile
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set jit to off
as $$
declare
	v_history plane.step[];
begin
	select b.history into v_history from plane.backend b where b.id = p_backend
	union all
	select e.history from plane.ended e where e.id = p_backend;
	if not found then
		raise exception using errcode = 'PL404', message = 'no such backend';
	end if;
	return query select h.* from unnest(v_history) h where h.status > p_after order by h.status;
end
$$;
comment on function plane.history(text, smallint) is 'Store.History: the steps after a status, in order; PL404: there is no such backend.';

create function plane.statuses(p_ids text[]) returns smallint[]
	language plpgsql volatile
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set enable_bitmapscan to off set enable_material to off
	set enable_hashjoin to off set enable_mergejoin to off set jit to off
as $$
begin
	return array(
		select coalesce(b.status, 70::smallint) from unnest(p_ids) with ordinality as i (id, n)
		left join plane.backend b on b.id = i.id
		order by i.n
	);
end
$$;
comment on function plane.statuses(text[]) is 'Store.Statuses: in the order of the names.';

create function plane.backends(
	p_id text default null, p_cluster text default null, p_after text default '', p_limit integer default 100,
	p_live boolean default true, p_ended boolean default false,
	p_statuses smallint[] default null, p_drone text default null, p_key text default null, p_namespace text default null
) returns table (
	id text, namespace text, name text, tag text, cluster text, drone text, made_at timestamptz, controller text, peer_url text,
	status smallint, at timestamptz, address text, last smallint, termination text, reason text, exit_code bigint, oom boolean, message text
)
	language plpgsql volatile
	set enable_seqscan to off set jit to off set plan_cache_mode to force_custom_plan
as $$
#variable_conflict use_column
declare
	v_drone bigint;
begin
	if p_drone is not null then
		-- Its number first: by it the planner sees whether the index is worth it.
		select n.id into v_drone from plane.node n where n.cluster = p_cluster and n.kind = 'drone' and n.name = p_drone;
		if not found then
			return;
		end if;
	end if;
	return query
	select x.id, x.namespace, x.name, x.tag, x.cluster, d.name, x.made_at,
		case when d.connected then d.controller else '' end, case when d.connected then coalesce(c.peer_url, '') else '' end,
		(x.step).status, (x.step).at, (x.step).address, (x.step).last, (x.step).termination, (x.step).reason, (x.step).exit_code, (x.step).oom, (x.step).message
	from (
		(
			select b.id, b.namespace, b.name, b.tag, b.cluster, b.drone, b.made_at, b.history[cardinality(b.history)] as step
			from plane.backend b
			where p_live and (p_id is null or b.id = p_id) and (p_cluster is null or b.cluster = p_cluster) and b.id > p_after
				and (p_statuses is null or b.status = any (p_statuses))
				and (p_key is null or b.name = p_key) and (p_namespace is null or b.namespace = p_namespace)
				and (v_drone is null or b.drone = v_drone)
			order by b.id limit p_limit
		) union all (
			select e.id, e.namespace, e.name, e.tag, e.cluster, e.drone, e.made_at, e.history[cardinality(e.history)]
			from plane.ended e
			where p_ended and (p_id is null or e.id = p_id) and (p_cluster is null or e.cluster = p_cluster) and e.id > p_after
				and (p_key is null or e.name = p_key) and (p_namespace is null or e.namespace = p_namespace)
				and (v_drone is null or e.drone = v_drone)
			order by e.id limit p_limit
		)
	) x
	join plane.node d on d.id = x.drone
	left join plane.controller c on c.name = d.controller
	order by x.id limit p_limit;
end
$$;
comment on function plane.backends is
	'Store.Backend and Store.Backends: backends in order of name, those that pass every filter that is not null. p_live and p_ended say where to look.';

-- What operators do ------------------------------------------------------------

create function plane.prevent_renew(p_backend text) returns boolean
	language plpgsql volatile
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set jit to off
as $$
declare
	v_final boolean;
begin
	select b.final into v_final from plane.backend b where b.id = p_backend for no key update;
	if not found then
		return null; -- even if it comes just now
	end if;
	perform plane.part(array[p_backend]);
	update plane.backend b set final = true where b.id = p_backend and not b.final;
	return not v_final;
end
$$;
comment on function plane.prevent_renew(text) is 'Operations.PreventRenew; null: there is no such backend, or it is terminated.';

create function plane.mark_lost(p_backend text) returns bigint
	language plpgsql volatile
	set plan_cache_mode to force_generic_plan set enable_seqscan to off set jit to off
as $$
declare
	v_end timestamptz;
begin
	perform from plane.backend b where b.id = p_backend for no key update;
	if not found then
		return null;
	end if;
	perform plane.part(array[p_backend]);
	update plane.backend b set final = true, lost = true where b.id = p_backend returning b.lease_end into v_end;
	return greatest(extract(epoch from v_end - plane.now()) * 1000000, 0)::bigint;
end
$$;
comment on function plane.mark_lost(text) is 'Operations.MarkLost: until its lease expires, in microseconds; null: there is no such backend, or it is terminated.';

create function plane.candidates(
	p_drone_lost bigint, p_proxy_gone bigint, p_lease_grace bigint, p_word_late bigint, p_skip_idle boolean, p_limit integer
) returns table (id text, why text, kind text, silent bigint)
	language plpgsql volatile
	set jit to off
as $$
#variable_conflict use_column
declare
	v_now timestamptz := plane.now();
	v_idle text[] := '{}';
begin
	if not p_skip_idle then
		v_idle := array(select i.id from plane.idle(null, true, v_now, p_proxy_gone, p_word_late) i where i.idle);
	end if;
	return query
	select x.id, x.why, x.kind, greatest(round(extract(epoch from x.silent) * 1000000), 0)::bigint
	from (
		select b.id, v_now - d.seen as silent,
			case when b.hard is not null then 'hard' when b.soft is not null then 'soft' else '' end as kind,
			case
			when b.lost then 'marked as lost'
			when e.lease_end <= v_now and v_now - d.seen > plane.us(p_drone_lost) then 'its drone is lost'
			when e.lease_end <= v_now and (b.status = 10 or v_now - e.lease_end >= plane.us(p_lease_grace)) then 'its lease expired'
			when b.final then 'its lease is renewed no more'
			when b.made + b.lifetime <= v_now then 'past its lifetime'
			when b.id = any (v_idle) then 'idle'
			when b.hard is not null or b.soft is not null then 'its end was asked for'
			end as why
		from plane.backend b join plane.node d on d.id = b.drone
		left join plane.term t on t.id = b.term
		cross join lateral (select greatest(b.lease_end, t.ends) as lease_end) e
	) x
	where x.why is not null
	order by x.id
	limit p_limit;
end
$$;
comment on function plane.candidates is 'Operations.TerminationCandidates: which backends, why, what was asked for so far, and for how many microseconds their drones have been silent.';
