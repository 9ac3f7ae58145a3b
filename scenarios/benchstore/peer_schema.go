package main

// peerSchema is the tables of 0.5.x that its connect touches: a row per backend
// with its present state, a key per live backend, a history of states, a row per
// event and per action, a token per connect. This is what its statements need of
// them, and what the lean peer has: primary keys and what its own queries look
// for, no foreign keys, nothing on events but their number.
var peerSchema = []string{
	`CREATE TABLE drone (
		id bigserial PRIMARY KEY, name text NOT NULL, cluster text NOT NULL, pool text NOT NULL DEFAULT '',
		ready boolean NOT NULL, draining boolean NOT NULL, last_heartbeat timestamptz NOT NULL, last_local_time timestamptz NOT NULL)`,
	`CREATE TABLE backend (
		id text PRIMARY KEY, cluster text NOT NULL, drone_id bigint NOT NULL, state jsonb NOT NULL,
		last_status text NOT NULL, last_status_time timestamptz NOT NULL, last_keepalive timestamptz NOT NULL,
		expiration_time timestamptz, allowed_idle_seconds integer, cluster_address text, static_token text, subdomain text)`,
	`CREATE INDEX backend_live ON backend (drone_id) WHERE last_status <> 'terminated'`,
	`CREATE TABLE backend_key (
		id text PRIMARY KEY, namespace text NOT NULL, key_name text NOT NULL, tag text NOT NULL,
		expires_at timestamptz NOT NULL, fencing_token bigint NOT NULL, allow_renew boolean NOT NULL DEFAULT true,
		UNIQUE (namespace, key_name))`,
	`CREATE TABLE backend_state (
		id bigserial PRIMARY KEY, backend_id text NOT NULL, state jsonb NOT NULL, created_at timestamptz NOT NULL)`,
	`CREATE INDEX backend_state_of ON backend_state (backend_id)`,
	`CREATE TABLE event (
		id bigserial PRIMARY KEY, kind text NOT NULL, key text, created_at timestamptz NOT NULL, data jsonb NOT NULL)`,
	`CREATE TABLE backend_action (
		id text PRIMARY KEY, backend_id text NOT NULL, drone_id bigint NOT NULL, action jsonb NOT NULL,
		created_at timestamptz NOT NULL, acked_at timestamptz)`,
	`CREATE INDEX backend_action_pending ON backend_action (drone_id) WHERE acked_at IS NULL`,
	`CREATE TABLE token (
		token text PRIMARY KEY, backend_id text NOT NULL, expiration_time timestamptz NOT NULL,
		username text, auth jsonb, secret_token text NOT NULL)`,
}

// peerConstraints is what those tables have besides: what each refers to, and the
// indexes that other statements of 0.5.x need. A connect pays for all of it, with
// a look at the row that is referred to, and its lock, for each reference.
var peerConstraints = []string{
	`ALTER TABLE backend ADD FOREIGN KEY (drone_id) REFERENCES drone (id)`,
	`CREATE INDEX backend_static_token ON backend (static_token)`,
	`ALTER TABLE backend_key ADD FOREIGN KEY (id) REFERENCES backend (id)`,
	`ALTER TABLE backend_state ADD FOREIGN KEY (backend_id) REFERENCES backend (id)`,
	`CREATE INDEX event_created ON event (created_at)`,
	`ALTER TABLE backend_action ADD FOREIGN KEY (backend_id) REFERENCES backend (id), ADD FOREIGN KEY (drone_id) REFERENCES drone (id)`,
	`CREATE INDEX backend_action_of ON backend_action (backend_id)`,
	`ALTER TABLE token ADD FOREIGN KEY (backend_id) REFERENCES backend (id)`,
}

// The statements of one connect, in their order.
const (
	peerFindKey = `
		SELECT k.id, k.tag, k.expires_at < now(), b.last_status, b.cluster, b.subdomain, b.static_token, b.drone_id
		FROM backend_key k JOIN backend b ON b.id = k.id
		WHERE k.namespace = $1 AND k.key_name = $2`
	peerPickDrones = `
		SELECT d.id, d.last_local_time, (SELECT count(*) FROM backend b WHERE b.drone_id = d.id AND b.last_status <> 'terminated')
		FROM (
			SELECT id, last_local_time FROM drone
			WHERE cluster = $1 AND pool = $2 AND ready AND NOT draining AND last_heartbeat > now() - $3::interval
			ORDER BY random() LIMIT $4
		) d`
	peerInsertBackend = `
		WITH b AS (
			INSERT INTO backend (id, cluster, drone_id, state, last_status, last_status_time, last_keepalive, expiration_time, allowed_idle_seconds)
			VALUES ($1, $2, $3, $4, 'scheduled', now(), current_timestamp, now() + $5::interval, $6)
			RETURNING id
		)
		INSERT INTO backend_key (id, namespace, key_name, tag, expires_at, fencing_token)
		SELECT id, $7, $8, $9, now() + $10::interval, (extract(epoch FROM now()) * 1000)::bigint FROM b
		RETURNING fencing_token`
	peerInsertState = `INSERT INTO backend_state (backend_id, state, created_at) VALUES ($1, $2, now())`
	// The notification carries what the event does.
	peerInsertEvent = `
		WITH e AS (
			INSERT INTO event (kind, key, created_at, data) VALUES ($1, $2, now(), $3) RETURNING id, created_at
		)
		SELECT pg_notify('plane_events', json_build_object('id', e.id, 'timestamp', e.created_at, 'kind', $1::text, 'key', $2::text, 'payload', $3::jsonb)::text)
		FROM e`
	peerInsertAction = `INSERT INTO backend_action (id, backend_id, drone_id, action, created_at) VALUES ($1, $2, $3, $4, now())`
	peerInsertToken  = `
		INSERT INTO token (token, backend_id, expiration_time, username, auth, secret_token)
		VALUES ($1, $2, now() + $3::interval, $4, $5, $6)`
)

// What a live backend costs at rest, a statement each.
const (
	peerRenew     = `UPDATE backend_key SET expires_at = now() + $2::interval WHERE id = $1 AND expires_at > now() AND allow_renew`
	peerKeepAlive = `UPDATE backend SET last_keepalive = now() WHERE id = $1 AND last_status <> 'terminated'`
)
