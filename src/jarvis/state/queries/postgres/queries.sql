-- name: schema_version
-- Whether our tables are there, whether those of another program are, and how the database keeps text.
SELECT to_regclass('jarvis_schema') IS NOT NULL, to_regclass('task') IS NOT NULL, current_setting('server_encoding');
-- name: schema_create
-- Where migrations are written down.
CREATE TABLE jarvis_schema (number integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());
-- name: schema_get
-- Those that were taken.
SELECT number FROM jarvis_schema;
-- name: schema_put
-- One more.
INSERT INTO jarvis_schema (number, name) VALUES ($1, $2);
-- name: schema_lock
-- Servers that start together migrate once.
SELECT pg_advisory_xact_lock(5136734210);
-- name: cluster_create
-- The rows of a new database.
INSERT INTO cluster (one, next_node, last_seq, dropped_seq) VALUES (1, 1, 0, 0);
-- name: leadership_create
-- Nobody leads yet.
INSERT INTO leadership (one, incarnation, epoch, holder, timeline)
VALUES (1, greatest(1, floor(jarvis_now($1))::bigint - $2), 0, '', '');
-- name: lease_create
-- And no lease runs.
INSERT INTO lease (one, ends_at, renewed_at) VALUES (1, 0, 0);
-- name: now
-- The database's clock.
SELECT jarvis_now($1);
-- name: check
-- A small write.
UPDATE cluster SET next_node = next_node;
-- name: timeline
-- Changes with every promotion of a standby.
SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8);
-- name: leadership_lock
-- A takeover locks first and looks then, in two statements: what it looks at is what holds.
SELECT incarnation, epoch, holder, timeline FROM leadership FOR UPDATE;
-- name: leadership_share
-- A leader's write: nobody takes over while it commits. A promoted standby may lack what was given last: nobody leads it yet.
SELECT incarnation, epoch, timeline = substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), solo_in_task FROM leadership FOR SHARE;
-- name: leadership_settle
-- The same, after whatever an earlier connection of the leader still commits.
SELECT incarnation, epoch, timeline = substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), solo_in_task FROM leadership FOR UPDATE;
-- name: submission_begin
-- When, and whether ids may be given: not by a standby that was just promoted, until a leader has begun its new life.
SELECT jarvis_now($1), timeline IN ('', substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)) FROM leadership;
-- name: leadership_put
-- A new leader: the epoch only grows.
UPDATE leadership SET epoch = epoch + 1, holder = $1, incarnation = $2, timeline = $3 RETURNING incarnation, epoch;
-- name: incarnation_put
-- A new life of the database.
UPDATE leadership SET incarnation = greatest(incarnation + 1, floor(jarvis_now($1))::bigint - $2) RETURNING incarnation;
-- name: task_id_jump
-- No id is given twice, whatever a lost part of history had given.
SELECT setval('task_id', (SELECT last_value - CASE WHEN is_called THEN 0 ELSE 1 END FROM task_id) + $1);
-- name: lease_get
-- Seconds until it ends, seconds since it was renewed, whether it was given up.
SELECT ends_at - jarvis_now($1), jarvis_now($1) - renewed_at, ends_at - renewed_at < 0.001 FROM lease;
-- name: takeover_put
-- Who leads from now on, and why; only the last ones are kept.
WITH old AS (DELETE FROM takeover WHERE epoch <= $2::bigint - $6::bigint)
INSERT INTO takeover (epoch, holder, at, cause, silent_s) VALUES ($2, $3, jarvis_now($1), $4, $5);
-- name: takeover_list
-- The last ones.
SELECT epoch, holder, at, cause, silent_s FROM takeover ORDER BY epoch DESC LIMIT $1;
-- name: lease_put
-- From now on, for so long.
UPDATE lease SET ends_at = jarvis_now($1) + $2, renewed_at = jarvis_now($1);
-- name: leader_get
-- holder, incarnation, epoch, seconds that the lease still runs
SELECT holder, incarnation, epoch, ends_at - jarvis_now($1) FROM leadership, lease;
-- name: session_lock
-- Held by the leader's own connection for as long as it lives.
SELECT pg_try_advisory_lock(5136734211);
-- name: session_unlock
-- Given back.
SELECT pg_advisory_unlock(5136734211);
-- name: replica_put
-- A server, as seen now.
INSERT INTO replica (name, url, version, role, epoch, seq, seen_at) VALUES ($2, $3, $4, $5, $6, $7, jarvis_now($1))
ON CONFLICT (name) DO UPDATE SET url = excluded.url, version = excluded.version, role = excluded.role,
    epoch = excluded.epoch, seq = excluded.seq, seen_at = excluded.seen_at;
-- name: replica_delete
-- Not seen for long.
DELETE FROM replica WHERE seen_at <= jarvis_now($1) - $2;
-- name: replica_list
-- Seen since.
SELECT name, url, version, role, epoch, seq, seen_at FROM replica WHERE seen_at >= jarvis_now($1) - $2 ORDER BY name COLLATE "C";
-- name: node_seen
-- Heard of, with its figures; the last word of a batch about a node wins.
UPDATE node SET seen_at = s.at, health = s.health
FROM (SELECT DISTINCT ON (id) id, at, health
      FROM unnest($1::bigint[], $2::double precision[], $3::bytea[]) WITH ORDINALITY AS u(id, at, health, n)
      ORDER BY id, n DESC) s
WHERE node.id = s.id;
-- name: node_replica_put
-- Who holds the sessions of nodes that there are.
INSERT INTO node_replica (node, replica) SELECT id, $2 FROM node WHERE id = ANY($1::bigint[])
ON CONFLICT (node) DO UPDATE SET replica = excluded.replica;
-- name: node_replica_list
-- Of the nodes whose session some replica was heard to hold.
SELECT node, replica FROM node_replica WHERE replica <> '';
-- name: secret_insert
-- The first one wins.
INSERT INTO secret (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING;
-- name: secret_get
-- What is kept.
SELECT value FROM secret WHERE name = $1;
-- name: token_put
-- An API token, as its hash.
INSERT INTO token (hash, owner, role, projects, label, expires_at) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (hash) DO UPDATE SET owner = excluded.owner, role = excluded.role, projects = excluded.projects,
    label = excluded.label, expires_at = excluded.expires_at;
-- name: token_take
-- Whoever deletes it has it.
DELETE FROM token WHERE hash = $2
RETURNING hash, owner, role, projects, label, expires_at, expires_at IS NULL OR expires_at > jarvis_now($1);
-- name: token_list
-- All that have not expired.
SELECT hash, owner, role, projects, label, expires_at FROM token
WHERE expires_at IS NULL OR expires_at > jarvis_now($1) ORDER BY hash COLLATE "C";
-- name: task_ids
-- As many new ids, in order.
SELECT nextval('task_id') FROM generate_series(1, $1);
-- name: task_insert
-- Wishes: what never changes of them.
INSERT INTO task (id, uuid, project, owner, name, queue, retry_of, submitted_at, spec)
SELECT id, uuid, project, owner, name, queue, retry_of, $9, spec
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bytea[])
    AS u(id, uuid, project, owner, name, queue, retry_of, spec);
-- name: task_insert_now
-- And their state, submitted.
INSERT INTO task_now (id, state, base, next_position, reason)
SELECT id, 'submitted', 'submitted', 0, '' FROM unnest($1::bigint[]) AS u(id);
-- name: idempotency_insert
-- Keys of a group, in the order in which every server locks them; those that were there before do not come back.
INSERT INTO idempotency (principal, project, route, key, body_hash, at, ids)
SELECT principal, project, route, key, body_hash, $7, ids
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[]) WITH ORDINALITY
    AS u(principal, project, route, key, body_hash, ids, n)
ORDER BY principal COLLATE "C", project COLLATE "C", route COLLATE "C", key COLLATE "C", n
ON CONFLICT DO NOTHING RETURNING principal, project, route, key;
-- name: idempotency_fill
-- What a key that is new is answered with.
UPDATE idempotency SET ids = $5 WHERE principal = $1 AND project = $2 AND route = $3 AND key = $4;
-- name: idempotency_list
-- What keys were answered with.
SELECT i.principal, i.project, i.route, i.key, i.body_hash, i.at, i.ids
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS u(principal, project, route, key)
JOIN idempotency i USING (principal, project, route, key);
-- name: command_insert
-- Wishes about what exists.
INSERT INTO command (at, body) SELECT jarvis_now($1), body FROM unnest($2::bytea[]) WITH ORDINALITY AS u(body, n) ORDER BY n
RETURNING id, at;
-- name: command_list_open
-- Not acted on yet.
SELECT id, at, body FROM command WHERE outcome IS NULL ORDER BY id LIMIT $1;
-- name: report_insert
-- Facts that the leader could not take directly.
INSERT INTO report (node, body)
SELECT node, body FROM unnest($1::bigint[], $2::bytea[]) WITH ORDINALITY AS u(node, body, n) ORDER BY n RETURNING id;
-- name: report_list_open
-- In order.
SELECT id, node, body FROM report ORDER BY id LIMIT $1;
-- name: task_queue_ranges
-- Fresh tasks with nothing else to say.
UPDATE task_now t SET state = 'queued' FROM unnest($1::bigint[], $2::bigint[]) AS r(first, last)
WHERE t.id BETWEEN r.first AND r.last AND t.state = 'submitted';
-- name: task_hold_ranges
-- Those that their users hold from the beginning.
UPDATE task_now t SET state = 'held', base = 'held', reason = 'JobHeldUser'
FROM unnest($1::bigint[], $2::bigint[]) AS r(first, last)
WHERE t.id BETWEEN r.first AND r.last AND t.state = 'submitted';
-- name: task_update
-- All that changes in the life of a task; what it says of its element stays where nothing new is said.
UPDATE task_now t SET state = u.state, base = u.base, counts = u.counts, next_position = u.next_position,
    reason = u.reason, started_at = u.started_at, ended_at = u.ended_at, element = coalesce(u.element, t.element)
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bytea[], $5::bigint[], $6::text[], $7::double precision[],
            $8::double precision[], $9::bytea[])
    AS u(id, state, base, counts, next_position, reason, started_at, ended_at, element)
WHERE t.id = u.id;
-- name: solo_put
-- The only elements of tasks of which nothing else changes.
UPDATE task_now t SET state = u.state, reason = u.reason, element = u.element
FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bytea[]) AS u(id, state, reason, element) WHERE t.id = u.id;
-- name: element_put
-- Elements as they stand.
INSERT INTO element (task, idx, state, attempt, token, node, failures, infra_losses, lost_on, eligible_at, reason, exit_code,
                     signal, cause, wish, preemptions)
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[],
                     $8::bigint[], $9::bytea[], $10::double precision[], $11::text[], $12::bigint[], $13::bigint[],
                     $14::text[], $15::text[], $16::bigint[])
ON CONFLICT (task, idx) DO UPDATE SET state = excluded.state, attempt = excluded.attempt, token = excluded.token,
    node = excluded.node, failures = excluded.failures, infra_losses = excluded.infra_losses, lost_on = excluded.lost_on,
    eligible_at = excluded.eligible_at, reason = excluded.reason, exit_code = excluded.exit_code, signal = excluded.signal,
    cause = excluded.cause, wish = excluded.wish, preemptions = excluded.preemptions;
-- name: attempt_insert
-- The fence of assignments: committed before a node hears of them.
INSERT INTO attempt (task, idx, attempt, token, node, number, state, cause, exit_code, signal, assigned_at, started_at,
                     ended_at, detail, result)
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[],
                     $8::text[], $9::bigint[], $10::bigint[], $11::double precision[], $12::double precision[],
                     $13::double precision[], $14::bytea[], $15::bytea[]);
-- name: attempt_update
-- Only under the tokens they were made with; how many there were.
WITH changed AS (
    UPDATE attempt a SET state = u.state, cause = u.cause, exit_code = u.exit_code, signal = u.signal,
        started_at = u.started_at, ended_at = u.ended_at, detail = u.detail, result = u.result
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::text[], $7::bigint[], $8::bigint[],
                $9::double precision[], $10::double precision[], $11::bytea[], $12::bytea[])
        AS u(task, idx, attempt, token, state, cause, exit_code, signal, started_at, ended_at, detail, result)
    WHERE a.task = u.task AND a.idx = u.idx AND a.attempt = u.attempt AND a.token = u.token
    RETURNING 1)
SELECT count(*) FROM changed;
-- name: node_put
-- Nodes as they stand.
INSERT INTO node (id, seen_at, health, body)
SELECT * FROM unnest($1::bigint[], $2::double precision[], $3::bytea[], $4::bytea[])
ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, health = excluded.health, body = excluded.body;
-- name: node_delete
-- Removed nodes; their ids are never used again.
DELETE FROM node WHERE id = ANY($1::bigint[]);
-- name: node_replica_delete
-- With the nodes.
DELETE FROM node_replica WHERE node = ANY($1::bigint[]);
-- name: node_list
-- All nodes.
SELECT seen_at, health, body FROM node ORDER BY id;
-- name: command_done
-- Acted on: empty, or why it was refused.
UPDATE command c SET outcome = u.outcome FROM unnest($1::bigint[], $2::text[]) AS u(id, outcome) WHERE c.id = u.id;
-- name: report_delete
-- The leader has them.
DELETE FROM report WHERE id = ANY($1::bigint[]);
-- name: event_insert
-- What one commit recorded.
INSERT INTO event_pack (last_seq, at, task_min, task_max, body) VALUES ($1, $2, $3, $4, $5);
-- name: cluster_advance
-- The newest event, and the next id of a node.
UPDATE cluster SET last_seq = coalesce($1, last_seq), next_node = greatest(next_node, $2);
-- name: cluster_get
-- next_node, last_seq, dropped_seq, incarnation
SELECT next_node, last_seq, dropped_seq, incarnation FROM cluster, leadership;
-- name: task_columns
-- Not asked by itself: what a task is read from.
SELECT t.id, t.uuid, t.project, t.owner, n.state, n.base, n.counts, n.next_position, n.reason, t.retry_of, t.submitted_at,
       n.started_at, n.ended_at, t.spec FROM task t JOIN task_now n ON n.id = t.id;
-- name: live_versions
-- In which life of which database, and of the first live tasks, by id: which transaction wrote the row.
SELECT (SELECT oid FROM pg_database WHERE datname = current_database()),
       substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), array_agg(id ORDER BY id), array_agg(xmin ORDER BY id)
FROM (SELECT id, xmin FROM task_now WHERE ended_at IS NULL ORDER BY id LIMIT $1) live;
-- name: outcome_list
-- Of the tasks that have ended: the last words of the last attempt.
SELECT t.id, t.project, n.state, a.cause, a.detail, a.result
FROM task t JOIN task_now n ON n.id = t.id
LEFT JOIN LATERAL (SELECT cause, detail, result FROM attempt WHERE task = t.id AND idx = -1 ORDER BY attempt DESC LIMIT 1) a
    ON true
WHERE t.id = ANY($1::bigint[]) AND n.ended_at IS NOT NULL ORDER BY t.id;
-- name: solo_columns
-- Not asked by itself: what tasks say of their only element.
SELECT id, state, reason, element FROM task_now WHERE element IS NOT NULL
-- name: element_columns
-- Not asked by itself.
SELECT task, idx, state, attempt, token, node, failures, infra_losses, lost_on, eligible_at, reason, exit_code, signal, cause,
       wish, preemptions FROM element;
-- name: attempt_columns
-- Not asked by itself.
SELECT a.task, a.idx, a.attempt, a.token, a.node, a.number, a.state, a.cause, a.exit_code, a.signal, a.assigned_at,
       a.started_at, a.ended_at, a.detail, a.result FROM attempt a;
-- name: task_counts
-- Tasks by state.
SELECT state, count(*) FROM task_now GROUP BY state;
-- name: database_bytes
-- On disk.
SELECT pg_database_size(current_database());
-- name: event_list
-- Packs that may hold events after a number, and of a task if one is asked for.
SELECT body FROM event_pack WHERE last_seq > $1 AND ($2::bigint IS NULL OR (task_min <= $2 AND task_max >= $2))
ORDER BY last_seq;
-- name: event_pack_old
-- Packs older than an instant.
SELECT last_seq FROM event_pack WHERE at < $1 ORDER BY last_seq LIMIT $2;
-- name: event_delete
-- Up to a number.
DELETE FROM event_pack WHERE last_seq <= $1;
-- name: event_dropped
-- The oldest cursor that is still valid, and the one before.
UPDATE cluster SET dropped_seq = $1 FROM (SELECT dropped_seq FROM cluster) old RETURNING old.dropped_seq;
-- name: task_list_awaiting
-- Specs of tasks that may still ask how others ended, if any has ended before an instant: those that have the name of that field in
-- them.
SELECT t.spec FROM task t JOIN task_now n ON n.id = t.id
WHERE n.ended_at IS NULL AND n.state = ANY($1::text[]) AND position('after'::bytea IN t.spec) > 0
    AND EXISTS (SELECT FROM task_now WHERE ended_at < $2);
-- name: task_list_expired
-- Ended before an instant, and nobody may still ask.
SELECT id FROM task_now WHERE ended_at < $1 AND NOT id = ANY($2::bigint[]) ORDER BY ended_at, id LIMIT $3;
-- name: attempt_delete
DELETE FROM attempt WHERE task = ANY($1::bigint[]);
-- name: element_delete
DELETE FROM element WHERE task = ANY($1::bigint[]);
-- name: task_now_delete
DELETE FROM task_now WHERE id = ANY($1::bigint[]);
-- name: task_delete
DELETE FROM task WHERE id = ANY($1::bigint[]);
-- name: idempotency_delete
-- Keys are kept for a week.
DELETE FROM idempotency WHERE at < jarvis_now($1) - $2;
-- name: command_delete
-- Done long ago.
DELETE FROM command WHERE outcome IS NOT NULL AND at < jarvis_now($1) - $2;
-- name: task_list_before
-- A page of a mark.
SELECT id, project, spec FROM task WHERE submitted_at < $1 AND id > $2 ORDER BY id LIMIT $3;
-- name: blob_get
-- Whether it is there, and how large.
SELECT size FROM blob WHERE project = $1 AND digest = $2;
-- name: blob_put
-- Whole: its chunks are in the same transaction.
INSERT INTO blob (project, digest, size, touched_at) VALUES ($2, $3, $4, jarvis_now($1))
ON CONFLICT (project, digest) DO UPDATE SET touched_at = excluded.touched_at;
-- name: blob_touch
-- As young as if it were put now.
UPDATE blob SET touched_at = jarvis_now($1) WHERE project = $2 AND digest = $3 RETURNING size;
-- name: chunk_put
-- A piece.
INSERT INTO blob_chunk (project, digest, number, data) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING;
-- name: chunk_rename
-- A stream's digest is known at its end.
UPDATE blob_chunk SET digest = $3 WHERE project = $1 AND digest = $2;
-- name: chunk_list
-- The pieces that hold a range.
SELECT number, data FROM blob_chunk WHERE project = $1 AND digest = $2 AND number BETWEEN $3 AND $4 ORDER BY number;
-- name: chunk_delete
-- With their blob.
DELETE FROM blob_chunk WHERE project = $1 AND digest = $2;
-- name: blob_delete
-- One of them.
DELETE FROM blob WHERE project = $1 AND digest = $2 RETURNING size;
-- name: blob_list_old
-- Candidates of a sweep.
SELECT project, digest FROM blob WHERE touched_at < $1 AND (project, digest) > ($2, $3) ORDER BY project, digest LIMIT $4;
-- name: blob_delete_old
-- Unless it was touched meanwhile.
DELETE FROM blob WHERE project = $1 AND digest = $2 AND touched_at < $3 RETURNING size;
-- name: blob_total
-- In all.
SELECT coalesce(sum(size), 0)::bigint FROM blob;
-- name: bus_send
-- Into a server's inbox, and a wake-up.
WITH put AS (INSERT INTO bus_entry (recipient, body) VALUES ($1, $2) RETURNING 1) SELECT pg_notify($3, $1) FROM put;
-- name: bus_take
-- The oldest ones out of an inbox.
DELETE FROM bus_entry WHERE id IN (SELECT id FROM bus_entry WHERE recipient = $1 ORDER BY id LIMIT $2) RETURNING id, body;
-- name: bus_forget
-- What an earlier life of this server left, and what others left for servers that are gone.
DELETE FROM bus_entry WHERE recipient = $1 OR at < clock_timestamp() - make_interval(secs => $2);
-- name: quota_put
-- What owners may have.
INSERT INTO quota (project, owner, body) SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[])
ON CONFLICT (project, owner) DO UPDATE SET body = excluded.body;
-- name: quota_delete
-- Owners without limits of their own.
DELETE FROM quota WHERE (project, owner) IN (SELECT * FROM unnest($1::text[], $2::text[]));
-- name: quota_list
-- All of them.
SELECT body FROM quota ORDER BY project COLLATE "C", owner COLLATE "C";
-- name: used_put
-- What owners used.
INSERT INTO used (project, owner, body) SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[])
ON CONFLICT (project, owner) DO UPDATE SET body = excluded.body;
-- name: used_list
-- Of all owners.
SELECT body FROM used ORDER BY project COLLATE "C", owner COLLATE "C";
-- name: booking_put
-- Maintenance, and reservations.
INSERT INTO booking (id, body) SELECT * FROM unnest($1::bigint[], $2::bytea[]) ON CONFLICT (id) DO UPDATE SET body = excluded.body;
-- name: booking_delete
-- They have ended.
DELETE FROM booking WHERE id = ANY($1::bigint[]);
-- name: booking_list
-- All of them.
SELECT body FROM booking ORDER BY id;
