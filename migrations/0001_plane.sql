-- Plane's state.
--
-- Three kinds of time are kept apart, and never compared with each other:
-- * the store's clock, plane.now(), which everything that is counted (leases,
--   limits, ages) goes by: timestamptz columns, unless their comment says
--   otherwise;
-- * the wall clock, plane.wall(), and times that drones tell, for people: columns
--   whose comment says "for people";
-- * each drone's own clock: bigint columns, in milliseconds since 1970.
--
-- What lives and is written often (plane.backend, plane.action) is apart from
-- what has ended (plane.ended), which is written once. So the indexes that a
-- connect has to write to stay as small as what is alive, however long the
-- history. No foreign keys: every write would pay for looking at what the
-- functions below keep in order anyway.
--
-- The functions are Plane's own programs on the tables. Each locks rows in the
-- order of their keys (advisory locks of keys, then plane.backend, then plane.term,
-- then plane.load), so that no two of them wait for each other, and reads the
-- store's clock after that; new rows, which nobody else can hold, come last. They forbid
-- themselves plans that are good for tables as small as they were when the plan
-- was made.

-- The clock --------------------------------------------------------------------

create function plane.wall() returns timestamptz
	language sql volatile
	return clock_timestamp();
comment on function plane.wall() is
	'The wall clock of the server''s machine. It may be stepped, and after a fail-over it is another machine''s.';

create function plane.us(bigint) returns interval
	language sql immutable strict
	return $1 * interval '1 microsecond';
comment on function plane.us(bigint) is
	'So many microseconds. (The difference of two timestamps has days in it, and adding days goes by the time zone; this has none.)';

create table plane.clock (
	one boolean primary key default true check (one),
	last timestamptz not null,
	behind bigint not null
) with (fillfactor = 10);
comment on table plane.clock is
	'The store''s clock, one row. It shows greatest(last, least(wall() - behind, last + 1 s)). Each controller ticks it twice a second (plane.revocations): last becomes what it shows, and behind what it is behind the wall clock. So it follows the wall clock, but whatever happens between two ticks (an outage of any length, a step of the wall clock by any amount either way, a fail-over to a machine whose clock is another) counts for 0 to 1 s. It is slow rather than fast. A lease of 60 s on it has 58.8 s on a clock that runs 2 % fast, of which a drone needs 50 / 0.98 + 5 = 56.0: what is left, 2.8 s, is room for two such events in one term of a lease.';
comment on column plane.clock.one is 'Always true: there is one row.';
comment on column plane.clock.last is 'What the clock showed at the last tick.';
comment on column plane.clock.behind is 'How far the clock was behind the wall clock then, in microseconds; negative: ahead.';
insert into plane.clock (last, behind) values (plane.wall(), 0);

create function plane.shows(p_last timestamptz, p_behind bigint, p_wall timestamptz default plane.wall()) returns timestamptz
	language sql volatile
	return greatest(p_last, least(p_wall - plane.us(p_behind), p_last + interval '1 second'));
comment on function plane.shows(timestamptz, bigint, timestamptz) is
	'What the store''s clock shows when its row is such, and the wall clock shows p_wall.';

create function plane.now() returns timestamptz
	language plpgsql volatile
as $$
begin
	return (select plane.shows(c.last, c.behind) from plane.clock c where c.one);
end
$$;
comment on function plane.now() is
	'What the store''s clock shows. To be called in a statement of its own after row locks are taken: the snapshot of a statement that has waited has an old plane.clock.last, and makes a time that is too early.';

create table plane.turn (
	one boolean primary key default true check (one),
	began timestamptz not null
) with (fillfactor = 10);
comment on table plane.turn is 'Whose turn it is to look at all backends (plane.due), one row. Controllers come every 5 s each; who finds that a look began less than 4 s ago leaves it at that. Apart from plane.clock, which everything reads. Most of the page is left free, so that a turn writes one row and no index.';
comment on column plane.turn.one is 'Always true: there is one row.';
comment on column plane.turn.began is 'When the last complete look began.';
insert into plane.turn (began) values ('-infinity');

create sequence plane.fencing start 10000000000000;
comment on sequence plane.fencing is
	'Fencing tokens. A token is drawn while the key''s lock is held, so each acquisition of a key has a greater one than those before. Neither a crash nor a fail-over takes a committed one back: the server logs a sequence ahead of handing out its values, and that record is flushed, and sent to standbys, before the commit of whatever row has the value. It begins above the tokens of 0.5.x, which were milliseconds since 1970, so that storage that has seen those takes ours for newer.';

create sequence plane.seq;
comment on sequence plane.seq is 'Numbers tokens and revocations in one order: a revocation voids the tokens before it.';

-- Nodes ------------------------------------------------------------------------

create table plane.node (
	id bigint generated always as identity primary key,
	kind text collate "C" not null check (kind in ('drone', 'proxy')),
	cluster text collate "C" not null,
	name text collate "C" not null,
	pool text collate "C" not null,
	controller text collate "C" not null,
	connection text collate "C" not null,
	version text not null,
	git_hash text not null,
	connected boolean not null,
	seen timestamptz not null,
	beat timestamptz not null,
	local_time bigint,
	max_backends bigint not null,
	millicpus bigint not null,
	memory bigint not null,
	word timestamptz,
	constraint node_name unique (cluster, kind, name)
) with (fillfactor = 50);
comment on table plane.node is 'Drones and proxies that were ever connected. They keep their numbers; rows stay. Half of each page is left free, so that a heartbeat, which changes no indexed column, writes one row and no index.';
comment on column plane.node.id is 'The node''s number, the same for ever.';
comment on column plane.node.kind is 'drone or proxy.';
comment on column plane.node.cluster is 'The cluster that it belongs to.';
comment on column plane.node.name is 'Its name, unique for its kind in the cluster.';
comment on column plane.node.pool is 'Of a drone: its pool; empty is the default pool.';
comment on column plane.node.controller is 'The controller that it is, or was last, connected to.';
comment on column plane.node.connection is 'The connection that counts, of perhaps several at a time.';
comment on column plane.node.version is 'The version of Plane that it runs.';
comment on column plane.node.git_hash is 'And the commit that it was built from.';
comment on column plane.node.connected is 'Whether the connection that counts is up.';
comment on column plane.node.seen is 'Its last sign of life.';
comment on column plane.node.beat is 'Of a drone: its last heartbeat on the connection that counts, or its registration.';
comment on column plane.node.local_time is 'Of a drone: what its own clock showed at its last heartbeat on this connection, in milliseconds since 1970; null: it has not told yet, and gets no backends. First deadlines are counted from it.';
comment on column plane.node.max_backends is 'Of a drone: how many backends it may have; 0: any number.';
comment on column plane.node.millicpus is 'Of a drone: how many thousandths of a processor it has for backends; 0: it does not say.';
comment on column plane.node.memory is 'Of a drone: how many bytes of memory it has for backends; 0: it does not say.';
comment on column plane.node.word is 'Of a proxy: as of when its last complete list of what it uses counts; null: it has given none.';
comment on index plane.node_name is 'Finds a node by name, and the drones of a cluster for placement.';

create table plane.load (
	drone bigint not null,
	stripe smallint not null,
	draining boolean not null default false,
	backends bigint not null default 0,
	millicpus bigint not null default 0,
	memory bigint not null default 0,
	spare_backends bigint not null default 0,
	spare_millicpus bigint not null default 0,
	spare_memory bigint not null default 0,
	primary key (drone, stripe)
) with (fillfactor = 20);
comment on table plane.load is 'What drones are promised to: counted in the transactions that add and end backends, so that placement need not count. A drone has eight rows, of which each connection counts in one (plane.stripe): so transactions seldom wait for each other''s commit; what is promised is the sum. What a drone has left is shared out among its rows (plane.deal), and a placement takes what it needs out of its own row''s share, so that no two of them overbook a drone. Where that share does not do, it takes all rows, in order, looks at the sums, and shares out anew. Shares never add up to more than what is left; what ended since they were made comes on top.';
comment on column plane.load.drone is 'The drone''s number.';
comment on column plane.load.stripe is 'Which of its rows, from 0 to 7.';
comment on column plane.load.draining is 'Whether it gets no new backends any more; the same in all of its rows. Here and not in plane.node, as a drain has to wait for placements under way.';
comment on column plane.load.backends is 'How many backends it has that are not terminated: those that were added here less those whose end was counted here.';
comment on column plane.load.millicpus is 'Thousandths of a processor that these were promised.';
comment on column plane.load.memory is 'Bytes of memory that these were promised.';
comment on column plane.load.spare_backends is 'This row''s share of the backends that the drone can still take.';
comment on column plane.load.spare_millicpus is 'And of the thousandths of a processor,';
comment on column plane.load.spare_memory is 'and of the bytes of memory, that it has left.';

create view plane.promised as
	select l.drone, bool_or(l.draining) as draining, sum(l.backends)::bigint as backends, sum(l.millicpus)::bigint as millicpus, sum(l.memory)::bigint as memory
	from plane.load l group by l.drone;
comment on view plane.promised is 'The sums of plane.load.';
comment on column plane.promised.drone is 'The drone''s number.';
comment on column plane.promised.draining is 'Whether it gets no new backends any more.';
comment on column plane.promised.backends is 'How many backends it has that are not terminated.';
comment on column plane.promised.millicpus is 'Thousandths of a processor that these were promised.';
comment on column plane.promised.memory is 'Bytes of memory that these were promised.';

create table plane.controller (
	name text collate "C" primary key,
	version text not null,
	git_hash text not null,
	peer_url text not null,
	seen timestamptz not null
) with (fillfactor = 50);
comment on table plane.controller is 'Controllers that gave a sign of life; cleanup deletes those silent for a day, or for as long as ended backends are kept.';
comment on column plane.controller.name is 'Its name.';
comment on column plane.controller.version is 'The version of Plane that it runs.';
comment on column plane.controller.git_hash is 'And the commit that it was built from.';
comment on column plane.controller.peer_url is 'Where other controllers reach its API; empty: nowhere.';
comment on column plane.controller.seen is 'Its last heartbeat.';

-- Backends ---------------------------------------------------------------------

create type plane.step as (
	status smallint,
	at timestamptz,
	address text,
	last smallint,
	termination text,
	reason text,
	exit_code bigint,
	oom boolean,
	message text
);
comment on type plane.step is 'One entry of a backend''s history: a status and what belongs to it.';
comment on column plane.step.status is '10 scheduled, 20 loading, 30 starting, 40 waiting, 50 ready, 60 terminating, 65 hard-terminating, 70 terminated.';
comment on column plane.step.at is 'When, by the drone''s clock, or the wall clock where the store did it itself; for people.';
comment on column plane.step.address is 'Waiting and ready: ip:port.';
comment on column plane.step.last is 'Terminating and after: the last status before.';
comment on column plane.step.termination is 'How it is ended: soft or hard; empty: by itself.';
comment on column plane.step.reason is 'Why it is ended; empty: by itself.';
comment on column plane.step.exit_code is 'Terminated: of its process, when known.';
comment on column plane.step.oom is 'Terminated: whether memory ran out.';
comment on column plane.step.message is 'Terminated: why, in words.';

-- What renewals and sweeps look at comes first, and what has a fixed size before
-- what has not: so they need not walk through each row.
create table plane.backend (
	lease_end timestamptz not null,
	fencing bigint not null,
	drone bigint not null,
	made timestamptz not null,
	made_at timestamptz not null,
	millicpus bigint not null,
	memory bigint not null,
	status smallint not null,
	holds boolean not null default true,
	final boolean not null default false,
	lost boolean not null default false,
	swept boolean not null default false,
	place smallint,
	term bigint,
	lifetime interval,
	max_idle interval,
	ready timestamptz,
	used timestamptz,
	soft timestamptz,
	hard timestamptz,
	id text collate "C" primary key,
	namespace text collate "C" not null,
	name text collate "C" not null,
	tag text collate "C" not null,
	cluster text collate "C" not null,
	subdomain text collate "C" not null,
	static_token text collate "C" not null,
	address text not null default '',
	history plane.step[] not null
) with (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.1, autovacuum_analyze_scale_factor = 0.1);
comment on table plane.backend is 'Backends that live, with their keys and leases. At its end a backend moves to plane.ended. Renewals, states and uses change no indexed column and find room in the page, so they write one row and no index.';
comment on column plane.backend.lease_end is 'When its lease expires: from then on the key counts as free. With a term: when it would have, had the term never been extended; greatest(lease_end, plane.term.ends) counts.';
comment on column plane.backend.fencing is 'The fencing token of this acquisition of the key.';
comment on column plane.backend.drone is 'The number of its drone.';
comment on column plane.backend.made is 'When it was made.';
comment on column plane.backend.made_at is 'When it was made, by the wall clock; for people.';
comment on column plane.backend.millicpus is 'Thousandths of a processor that it was promised.';
comment on column plane.backend.memory is 'Bytes of memory that it was promised.';
comment on column plane.backend.status is 'Its present status, which only grows; numbers as in plane.step.';
comment on column plane.backend.holds is 'Whether it holds the key. It does, its lease expired or not, until another takes the key over.';
comment on column plane.backend.final is 'Whether an operator keeps its lease from being renewed.';
comment on column plane.backend.lost is 'Whether an operator has it declared lost when its lease has expired.';
comment on column plane.backend.swept is 'Whether it has passed a limit: a hard termination will follow the soft one.';
comment on column plane.backend.place is 'Which bit of plane.term.members is its own.';
comment on column plane.backend.term is 'The lease that it shares; null: it has one of its own.';
comment on column plane.backend.lifetime is 'How long it may live; null: no limit.';
comment on column plane.backend.max_idle is 'How long it may be idle; null: no limit.';
comment on column plane.backend.ready is 'When it became ready.';
comment on column plane.backend.used is 'When a proxy last used it, except for what plane.word says.';
comment on column plane.backend.soft is 'When its soft termination was first asked for.';
comment on column plane.backend.hard is 'When its hard termination was first asked for.';
comment on column plane.backend.id is 'Its name.';
comment on column plane.backend.namespace is 'The key''s namespace.';
comment on column plane.backend.name is 'The key''s name.';
comment on column plane.backend.tag is 'The key''s tag; not part of what makes a key unique.';
comment on column plane.backend.cluster is 'The cluster that it belongs to.';
comment on column plane.backend.subdomain is 'The subdomain that requests must come by; empty: any.';
comment on column plane.backend.static_token is 'Its one token; empty: each connection has its own.';
comment on column plane.backend.address is 'ip:port where it serves HTTP; empty until it is waiting.';
comment on column plane.backend.history is 'All that was ever recorded of its states, the present one last: at most one entry a status. In the row, so that a change of state is one write, and old states are nowhere in the way.';

create unique index backend_key on plane.backend (namespace, name) where holds;
comment on index plane.backend_key is 'One backend holds a key (G1).';

create table plane.term (
	id bigint generated by default as identity primary key,
	ends timestamptz not null,
	drone bigint not null,
	members bigint not null
) with (fillfactor = 20);
comment on table plane.term is 'A lease that several backends of a drone share, because they are always renewed together: so that takes one row for up to 64 of them. It is extended only where all that are still in it ask (plane.extend); else those that asked move to a new one (plane.renew). It only ever grows longer and loses members: a place that was left is not taken again, and an id is not given again. So whoever remembers which place of which term was a backend''s need not know what became of it: where the bit is still there, it is that backend that lives, holds its key and may be renewed. The last to leave deletes it. Most of each page is left free, so that extending it writes no index.';
comment on column plane.term.id is 'Its number, which is never given again.';
comment on column plane.term.ends is 'When it expires, for all in it. It never moves back.';
comment on column plane.term.drone is 'The number of the drone of all in it.';
comment on column plane.term.members is 'A bit for each of its 64 places, set while the backend is in it: those, and only those, have its id in plane.backend.term.';

create table plane.ended (
	id text collate "C" primary key,
	namespace text collate "C" not null,
	name text collate "C" not null,
	tag text collate "C" not null,
	cluster text collate "C" not null,
	drone bigint not null,
	made_at timestamptz not null,
	ended timestamptz not null,
	history plane.step[] not null
) with (autovacuum_vacuum_insert_scale_factor = 0.2);
comment on table plane.ended is 'Backends that are terminated, until cleanup deletes them.';
comment on column plane.ended.id is 'Its name.';
comment on column plane.ended.namespace is 'The namespace of the key that it had.';
comment on column plane.ended.name is 'The key''s name.';
comment on column plane.ended.tag is 'The key''s tag.';
comment on column plane.ended.cluster is 'The cluster that it belonged to.';
comment on column plane.ended.drone is 'The number of its drone.';
comment on column plane.ended.made_at is 'When it was made, by the wall clock; for people.';
comment on column plane.ended.ended is 'When it ended.';
comment on column plane.ended.history is 'All its states, the last one terminated.';
create index ended_cluster on plane.ended (cluster, id);
comment on index plane.ended_cluster is 'Pages of a cluster''s backends.';
create index ended_name on plane.ended (name);
comment on index plane.ended_name is 'What had a key. This and the next two have no more columns than the one that is looked for, so that equal entries are kept together and next to those made last: they cost the end of a backend little.';
create index ended_namespace on plane.ended (namespace);
comment on index plane.ended_namespace is 'What had keys of a namespace.';
create index ended_drone on plane.ended (drone);
comment on index plane.ended_drone is 'What ran on a drone.';
create index ended_age on plane.ended (ended);
comment on index plane.ended_age is 'Cleanup takes the oldest.';

create table plane.action (
	drone bigint not null,
	seq bigint generated always as identity,
	id text collate "C" not null,
	backend text collate "C" not null,
	kind text collate "C" not null check (kind in ('spawn', 'soft', 'hard')),
	reason text not null,
	executable text,
	renew_at bigint,
	soft_at bigint,
	hard_at bigint,
	primary key (drone, seq)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
comment on table plane.action is 'Actions that drones have not acknowledged. They are deleted when they are, and when their backend ends.';
comment on column plane.action.drone is 'The number of the drone that is to act.';
comment on column plane.action.seq is 'Oldest first.';
comment on column plane.action.id is 'The action''s name.';
comment on column plane.action.backend is 'The backend that it is about.';
comment on column plane.action.kind is 'spawn, or the kind of a termination: soft or hard.';
comment on column plane.action.reason is 'Of a termination: why; else empty.';
comment on column plane.action.executable is 'Of a spawn: what to run, byte for byte as it was given.';
comment on column plane.action.renew_at is 'Of a spawn: the lease''s first deadlines, on the drone''s own clock.';
comment on column plane.action.soft_at is 'The same, for the soft termination.';
comment on column plane.action.hard_at is 'The same, for the hard one.';
comment on constraint action_pkey on plane.action is 'A drone has few actions at a time; all that look for one go through those of its drone.';

create table plane.token (
	token bytea primary key,
	backend text collate "C" not null,
	seq bigint not null,
	secret text not null,
	username text,
	data json,
	expires timestamptz,
	cluster text,
	subdomain text,
	status smallint
) with (autovacuum_vacuum_insert_scale_factor = 0.2);
comment on table plane.token is 'Tokens that lead to backends. Those of a backend that has ended lead nowhere, since it is not in plane.backend any more. Cleanup goes through the table, a part of it each minute and all of it in an hour (up to 8 GB), and deletes those that have expired: an index of when they do would make each connect dearer by a tenth.';
comment on column plane.token.token is 'The SHA-256 digest of the token. Who reads the table, a backup of it, or what the server writes to its log about a row that is there already, can go nowhere with it.';
comment on column plane.token.backend is 'Where it leads.';
comment on column plane.token.seq is 'Its number in plane.seq: revocations with a greater one void it.';
comment on column plane.token.secret is 'What the backend is shown with each request. A secret.';
comment on column plane.token.username is 'Whose it is; null: nobody''s.';
comment on column plane.token.data is 'What the backend is told of the user, byte for byte as it was given. A secret.';
comment on column plane.token.expires is 'From when on it leads nowhere; null: a static token, which lasts as long as its backend.';
comment on column plane.token.cluster is 'Of its backend. This and the two below are set by connects to keys that are held, and for them: a plain insert can return nothing but what is in the row.';
comment on column plane.token.subdomain is 'Of its backend.';
comment on column plane.token.status is 'Of its backend, as it was then.';

create table plane.revocation (
	id bigint primary key default nextval('plane.seq'),
	backend text collate "C" not null,
	username text not null,
	at timestamptz not null
);
comment on table plane.revocation is 'Whose tokens were revoked, kept until the backend is cleaned up. A revocation is a row here and touches no token: so tokens need no index by user, and a late try of a connect cannot bring one back.';
comment on column plane.revocation.id is 'Its number in plane.seq.';
comment on column plane.revocation.backend is 'For which backend.';
comment on column plane.revocation.username is 'Whose.';
comment on column plane.revocation.at is 'When.';
create index revocation_backend on plane.revocation (backend, username, id);
comment on index plane.revocation_backend is 'Whether a token is void.';
create index revocation_at on plane.revocation (at);
comment on index plane.revocation_at is 'The latest ones, twice a second from each controller.';

-- Uses -------------------------------------------------------------------------

create table plane.word (
	proxy bigint primary key,
	at timestamptz not null,
	backends text[] collate "C" not null
) with (fillfactor = 20);
alter table plane.word alter column backends set storage external;
comment on table plane.word is 'The last complete list of each proxy of what it uses. A list as a value: where it is the same as before, which is most often so, only its time is written.';
comment on column plane.word.proxy is 'The proxy''s number.';
comment on column plane.word.at is 'When it was written: until then, all in the list were in use.';
comment on column plane.word.backends is 'The names, in order.';

create table plane.addition (
	proxy bigint not null,
	backend text collate "C" not null,
	at timestamptz not null,
	primary key (proxy, backend)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
comment on table plane.addition is 'What proxies have begun to use since their last complete lists.';
comment on column plane.addition.proxy is 'The proxy''s number.';
comment on column plane.addition.backend is 'The backend that it uses.';
comment on column plane.addition.at is 'When it last said so.';

-- Certificates -----------------------------------------------------------------

create table plane.certificate (
	cluster text collate "C" primary key,
	proxy bigint not null,
	until timestamptz not null
);
comment on table plane.certificate is 'Which proxy has the certificate lease of its cluster.';
comment on column plane.certificate.cluster is 'The cluster.';
comment on column plane.certificate.proxy is 'The number of the proxy that has the lease.';
comment on column plane.certificate.until is 'When the lease ends.';

create table plane.challenge (
	cluster text collate "C" not null,
	proxy bigint not null,
	value text collate "C" not null,
	seq bigint not null default nextval('plane.seq'),
	until timestamptz not null,
	primary key (cluster, proxy, value)
);
comment on table plane.challenge is 'TXT values for ACME challenges.';
comment on column plane.challenge.cluster is 'The cluster that they are for.';
comment on column plane.challenge.proxy is 'The number of the proxy that orders.';
comment on column plane.challenge.value is 'The value.';
comment on column plane.challenge.seq is 'Newer ones have greater numbers.';
comment on column plane.challenge.until is 'When it is answered no longer.';
