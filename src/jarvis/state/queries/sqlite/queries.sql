-- name: cluster_insert
-- The one row of a new database.
INSERT INTO cluster (one, incarnation, epoch, holder, next_node, last_seq, dropped_seq, clean) VALUES (1, ?, 0, '', 1, 0, 0, 1);
-- name: is_ours
-- A database of another program has no such table.
SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'cluster';
-- name: cluster_get
-- incarnation, epoch, next_node, last_seq, dropped_seq, clean
SELECT incarnation, epoch, next_node, last_seq, dropped_seq, clean FROM cluster;
-- name: cluster_set_clean
-- Whether the last owner closed it properly.
UPDATE cluster SET clean = ?;
-- name: leadership_acquire
-- A new leader: the epoch only grows.
UPDATE cluster SET epoch = epoch + 1, holder = ?;
-- name: lease_put
-- Until when nobody else may lead.
UPDATE lease SET ends_at = ?, renewed_at = ?;
-- name: leader_get
-- holder, incarnation, epoch, ends_at, renewed_at
SELECT holder, incarnation, epoch, ends_at, renewed_at FROM cluster, lease;
-- name: takeover_put
-- Who leads from now on, and why.
INSERT INTO takeover (epoch, holder, at, cause, silent_s) VALUES (?, ?, ?, ?, ?);
-- name: takeover_delete
-- Those up to an epoch.
DELETE FROM takeover WHERE epoch <= ?;
-- name: takeover_list
-- The last ones.
SELECT epoch, holder, at, cause, silent_s FROM takeover ORDER BY epoch DESC LIMIT ?;
-- name: leader_says
-- The newest number of an event and the next id of a node, from who leads: nothing changes if this epoch does not.
UPDATE cluster SET last_seq = max(last_seq, ?), next_node = max(next_node, ?) WHERE incarnation = ? AND epoch = ?;
-- name: incarnation_bump
-- A new life of the database.
UPDATE cluster SET incarnation = max(incarnation + 1, ?);
-- name: task_id_jump
-- No id is given twice, whatever a lost part of history had given.
UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'task';
-- name: task_id_least
-- The next id is above this one.
UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = 'task';
-- name: task_id_begin
-- A counter that can jump, in a database that never had a task.
INSERT INTO sqlite_sequence (name, seq) SELECT 'task', 0 WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'task');
-- name: task_insert
-- A wish, in state submitted. What is numbered is the same for all rows of a statement, and comes before them.
INSERT INTO task (uuid, project, user, name, queue, state, base, next_position, reason, retry_of, submitted_at, tail, spec)
SELECT column1, ?1, ?2, ?3, ?4, 'submitted', 'submitted', 0, '', ?5, ?6, ?7, column2 FROM (VALUES (?, ?));
-- name: spec_tail_insert
-- Unless it is known already.
INSERT INTO spec_tail (body) VALUES (?) ON CONFLICT (body) DO NOTHING;
-- name: spec_tail_get
-- The number of one.
SELECT id FROM spec_tail WHERE body = ?;
-- name: spec_tail_list
-- Those of the tasks in a json list.
SELECT DISTINCT tail FROM task WHERE id IN (SELECT value FROM json_each(?)) AND tail IS NOT NULL;
-- name: spec_tail_delete
-- Unless a task has it still.
DELETE FROM spec_tail WHERE id = ? AND NOT EXISTS (SELECT 1 FROM task WHERE task.tail = spec_tail.id);
-- name: task_last_id
-- The newest id given.
SELECT seq FROM sqlite_sequence WHERE name = 'task';
-- name: task_queue_range
-- Fresh tasks with nothing else to say, thousands in one statement.
UPDATE task SET state = 'queued' WHERE id BETWEEN ? AND ? AND state = 'submitted';
-- name: task_hold_range
-- The same for those that their users hold from the beginning.
UPDATE task SET state = 'held', base = 'held', reason = 'JobHeldUser' WHERE id BETWEEN ? AND ? AND state = 'submitted';
-- name: task_update
-- All that changes in the life of a task; what it says of its element stays where nothing new is said.
UPDATE task SET state = ?, base = ?, counts = ?, next_position = ?, reason = ?, started_at = ?, ended_at = ?,
    element = coalesce(?, element) WHERE id = ?;
-- name: task_update_alike
-- The same for the tasks in a json list.
UPDATE task SET state = ?, base = ?, counts = ?, next_position = ?, reason = ?, started_at = ?, ended_at = ?,
    element = coalesce(?, element) WHERE id IN (SELECT value FROM json_each(?));
-- name: task_list_submitted
-- By state, never by an id above a mark: allocation order is not commit order.
SELECT id, uuid, project, user, state, base, counts, next_position, reason, retry_of, submitted_at, started_at, ended_at, spec
FROM whole_task WHERE state = 'submitted' AND ended_at IS NULL ORDER BY id LIMIT ?;
-- name: task_list_live
-- A page of a rebuild.
SELECT id, uuid, project, user, state, base, counts, next_position, reason, retry_of, submitted_at, started_at, ended_at, spec
FROM whole_task WHERE id > ? AND ended_at IS NULL ORDER BY id LIMIT ?;
-- name: task_get
-- One task.
SELECT id, uuid, project, user, state, base, counts, next_position, reason, retry_of, submitted_at, started_at, ended_at, spec
FROM whole_task WHERE id = ?;
-- name: task_count_of
-- How many of the tasks in a json list there are.
SELECT count(*) FROM task WHERE id IN (SELECT value FROM json_each(?));
-- name: task_list
-- Newest first; null parameters mean any.
SELECT id, uuid, project, user, state, base, counts, next_position, reason, retry_of, submitted_at, started_at, ended_at, spec
FROM whole_task
WHERE id < :before
  AND (:states IS NULL OR state IN (SELECT value FROM json_each(:states)))
  AND (:project IS NULL OR project = :project)
  AND (:projects IS NULL OR project IN (SELECT value FROM json_each(:projects)))
  AND (:user IS NULL OR user = :user)
  AND (:queue IS NULL OR queue = :queue)
  AND (:name IS NULL OR name = :name)
  AND (:prefix IS NULL OR substr(name, 1, length(:prefix)) = :prefix)
  AND (:submitted_after IS NULL OR submitted_at > :submitted_after)
  AND (:submitted_before IS NULL OR submitted_at < :submitted_before)
  AND (:ended_after IS NULL OR ended_at > :ended_after)
ORDER BY id DESC LIMIT :limit;
-- name: task_list_live_states
-- As task_list, through the index of live tasks: the question that people ask most. No index can be named of a view.
SELECT id, uuid, project, user, state, base, counts, next_position, reason, retry_of, submitted_at, started_at, ended_at,
    CASE WHEN tail IS NULL THEN spec ELSE CAST(spec || coalesce((SELECT body FROM spec_tail WHERE spec_tail.id = tail), x'') AS BLOB) END
FROM task INDEXED BY task_live
WHERE ended_at IS NULL AND id < :before
  AND state IN (SELECT value FROM json_each(:states))
  AND (:project IS NULL OR project = :project)
  AND (:projects IS NULL OR project IN (SELECT value FROM json_each(:projects)))
  AND (:user IS NULL OR user = :user)
  AND (:queue IS NULL OR queue = :queue)
  AND (:name IS NULL OR name = :name)
  AND (:prefix IS NULL OR substr(name, 1, length(:prefix)) = :prefix)
  AND (:submitted_after IS NULL OR submitted_at > :submitted_after)
  AND (:submitted_before IS NULL OR submitted_at < :submitted_before)
ORDER BY id DESC LIMIT :limit;
-- name: task_counts
-- Tasks by state.
SELECT state, count(*) FROM task GROUP BY state;
-- name: solo_put
-- The only element of a task, of which nothing else changes.
UPDATE task SET state = ?, reason = ?, element = ? WHERE id = ?;
-- name: solo_get
-- Of the tasks in a json list: what they say of their only element.
SELECT id, state, reason, element FROM task WHERE id IN (SELECT value FROM json_each(?)) AND element IS NOT NULL ORDER BY id;
-- name: solo_list_live
-- Of the tasks in a json list that are not at their end.
SELECT id, state, reason, element FROM task
WHERE id IN (SELECT value FROM json_each(?)) AND element IS NOT NULL AND state NOT IN
('succeeded', 'failed', 'cancelled', 'timeout', 'expired', 'lost', 'skipped', 'upstream_failed') ORDER BY id;
-- name: element_put
-- An element as it stands. Numbered as above.
INSERT OR REPLACE INTO element
(task, idx, state, attempt, token, node, failures, infra_losses, lost_on, eligible_at, reason, exit_code, signal, cause, wish,
 preemptions)
SELECT ?1, column1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15 FROM (VALUES (?));
-- name: element_list_live
-- Of the tasks in a json list, those not at their end. One with index -1 is older than what its task says of it.
SELECT task, idx, state, attempt, token, node, failures, infra_losses, lost_on, eligible_at, reason, exit_code, signal, cause, wish,
       preemptions
FROM element WHERE task IN (SELECT value FROM json_each(?)) AND state NOT IN
('succeeded', 'failed', 'cancelled', 'timeout', 'expired', 'lost', 'skipped', 'upstream_failed')
AND (idx >= 0 OR NOT EXISTS (SELECT 1 FROM task t WHERE t.id = element.task AND t.element IS NOT NULL)) ORDER BY task, idx;
-- name: element_get
-- One element.
SELECT task, idx, state, attempt, token, node, failures, infra_losses, lost_on, eligible_at, reason, exit_code, signal, cause, wish,
       preemptions
FROM element WHERE task = ? AND idx = ?;
-- name: element_list
-- A page of a task's elements in some states (null: any).
SELECT task, idx, state, attempt, token, node, failures, infra_losses, lost_on, eligible_at, reason, exit_code, signal, cause, wish,
       preemptions
FROM element WHERE task = :task AND idx > :after AND (:states IS NULL OR state IN (SELECT value FROM json_each(:states)))
ORDER BY idx LIMIT :limit;
-- name: attempt_insert
-- The fence of an assignment: committed before the node hears of it. Numbered as above.
INSERT INTO attempt
(task, idx, attempt, token, node, number, state, cause, exit_code, signal, assigned_at, started_at, ended_at, detail, result)
SELECT column1, column2, ?1, ?2, ?3, column3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12 FROM (VALUES (?, ?, ?));
-- name: attempt_update
-- Only under the token it was made with; written anew, because that takes one statement for many. Numbered as above.
REPLACE INTO attempt
(task, idx, attempt, token, node, number, state, cause, exit_code, signal, assigned_at, started_at, ended_at, detail, result)
SELECT a.task, a.idx, ?6, ?7, a.node, a.number, ?1, ?2, ?3, ?4, a.assigned_at, new.column3, ?5, new.column4, new.column5
FROM (VALUES (?, ?, ?, ?, ?)) new CROSS JOIN attempt a
  ON a.task = new.column1 AND a.idx = new.column2 AND a.attempt = ?6 AND a.token = ?7;
-- name: attempt_list
-- All attempts of an element.
SELECT task, idx, attempt, token, node, number, state, cause, exit_code, signal, assigned_at, started_at, ended_at, detail, result
FROM attempt WHERE task = ? AND idx = ? ORDER BY attempt;
-- name: outcome_list
-- Of the tasks in a json list that have ended: the last words of the last attempt.
SELECT t.id, t.project, t.state, a.cause, a.detail, a.result
FROM task t LEFT JOIN attempt a
  ON a.task = t.id AND a.idx = -1 AND a.attempt = (SELECT max(attempt) FROM attempt WHERE task = t.id AND idx = -1)
WHERE t.id IN (SELECT value FROM json_each(?)) AND t.ended_at IS NOT NULL ORDER BY t.id;
-- name: attempt_list_current
-- The current attempts of the tasks in a json list. That of the only element of a task is the last one.
SELECT a.task, a.idx, a.attempt, a.token, a.node, a.number, a.state, a.cause, a.exit_code, a.signal, a.assigned_at,
       a.started_at, a.ended_at, a.detail, a.result
FROM element e JOIN attempt a ON a.task = e.task AND a.idx = e.idx AND a.attempt = e.attempt
WHERE e.task IN (SELECT value FROM json_each(:tasks)) AND e.idx >= 0
  AND e.state IN ('assigned', 'starting', 'running', 'suspended', 'cancelling')
UNION ALL
SELECT a.task, a.idx, a.attempt, a.token, a.node, a.number, a.state, a.cause, a.exit_code, a.signal, a.assigned_at,
       a.started_at, a.ended_at, a.detail, a.result
FROM task t JOIN attempt a ON a.task = t.id AND a.idx = -1
WHERE t.id IN (SELECT value FROM json_each(:tasks))
  AND t.state IN ('assigned', 'starting', 'running', 'suspended', 'cancelling')
  AND a.attempt = (SELECT max(attempt) FROM attempt WHERE task = t.id AND idx = -1) ORDER BY 1, 2;
-- name: attempt_list_ended
-- Of the tasks in a json list: the last attempt of each element that has ended, of arrays of the first few.
SELECT a.task, a.idx, a.attempt, a.token, a.node, a.number, a.state, a.cause, a.exit_code, a.signal, a.assigned_at,
       a.started_at, a.ended_at, a.detail, a.result
FROM attempt a
WHERE a.task IN (SELECT value FROM json_each(?)) AND a.idx < 8 AND a.ended_at IS NOT NULL
  AND a.attempt = (SELECT max(attempt) FROM attempt WHERE task = a.task AND idx = a.idx) ORDER BY a.task, a.idx;
-- name: node_put
-- A node as it stands.
INSERT OR REPLACE INTO node (id, name, seen_at, health, body) VALUES (?, ?, ?, ?, ?);
-- name: node_delete
-- A removed node; its id is never used again.
DELETE FROM node WHERE id = ?;
-- name: node_list
-- All nodes.
SELECT seen_at, health, body FROM node ORDER BY id;
-- name: node_seen
-- Heard of, with its figures.
UPDATE node SET seen_at = ?, health = ? WHERE id = ?;
-- name: command_insert
-- A wish about something that exists.
INSERT INTO command (at, body) VALUES (?, ?);
-- name: command_list_open
-- Not acted on yet.
SELECT id, at, body FROM command WHERE outcome IS NULL ORDER BY id LIMIT ?;
-- name: command_done
-- Acted on: empty, or why it was refused.
UPDATE command SET outcome = ? WHERE id = ?;
-- name: command_delete_done
-- Old ones.
DELETE FROM command WHERE outcome IS NOT NULL AND at < ?;
-- name: report_insert
-- A fact that the leader could not take directly.
INSERT INTO report (node, body) VALUES (?, ?);
-- name: report_list_open
-- In order.
SELECT id, node, body FROM report ORDER BY id LIMIT ?;
-- name: report_delete
-- The leader has it.
DELETE FROM report WHERE id = ?;
-- name: event_insert
-- What one commit recorded.
INSERT INTO event_pack (last_seq, at, task_min, task_max, body) VALUES (?, ?, ?, ?, ?);
-- name: event_list
-- Packs that may hold events after a number.
SELECT body FROM event_pack WHERE last_seq > ? ORDER BY last_seq;
-- name: event_list_task
-- Packs that may hold events of a task.
SELECT body FROM event_pack WHERE last_seq > ? AND task_min <= ? AND task_max >= ? ORDER BY last_seq;
-- name: event_pack_old
-- Packs older than an instant.
SELECT last_seq FROM event_pack WHERE at < ? ORDER BY last_seq LIMIT ?;
-- name: event_delete
-- Up to a number.
DELETE FROM event_pack WHERE last_seq <= ?;
-- name: event_dropped
-- The oldest cursor that is still valid.
UPDATE cluster SET dropped_seq = ?;
-- name: idempotency_get
-- What a key was answered with.
SELECT body_hash, at, ids FROM idempotency WHERE principal = ? AND project = ? AND route = ? AND key = ?;
-- name: idempotency_insert
-- In the submission's own transaction.
INSERT INTO idempotency (principal, project, route, key, body_hash, at, ids) VALUES (?, ?, ?, ?, ?, ?, ?);
-- name: idempotency_list_before
-- Some that are older than an instant.
SELECT principal, project, route, key FROM idempotency WHERE at < ? LIMIT ?;
-- name: idempotency_delete
-- One of them.
DELETE FROM idempotency WHERE principal = ? AND project = ? AND route = ? AND key = ?;
-- name: replica_put
-- A server, as seen now.
INSERT OR REPLACE INTO replica (name, url, version, role, epoch, seq, seen_at) VALUES (?, ?, ?, ?, ?, ?, ?);
-- name: replica_delete_before
-- Not seen for long.
DELETE FROM replica WHERE seen_at <= ?;
-- name: replica_list
-- Seen since.
SELECT name, url, version, role, epoch, seq, seen_at FROM replica WHERE seen_at >= ? ORDER BY name;
-- name: node_replica_put
-- Who holds the session of a node that there is.
INSERT OR REPLACE INTO node_replica (node, replica) SELECT id, ? FROM node WHERE id = ?;
-- name: node_replica_delete
-- With the node.
DELETE FROM node_replica WHERE node = ?;
-- name: node_replica_list
-- Of the nodes whose session some replica was heard to hold.
SELECT node, replica FROM node_replica WHERE replica != '';
-- name: secret_insert
-- The first one wins.
INSERT OR IGNORE INTO secret (name, value) VALUES (?, ?);
-- name: secret_get
-- What is kept.
SELECT value FROM secret WHERE name = ?;
-- name: token_put
-- An API token, as its hash.
INSERT OR REPLACE INTO token (hash, user, role, projects, label, expires_at) VALUES (?, ?, ?, ?, ?, ?);
-- name: token_get
-- One that has not expired.
SELECT hash, user, role, projects, label, expires_at FROM token WHERE hash = ? AND (expires_at IS NULL OR expires_at > ?);
-- name: token_delete
-- Whoever deletes it has it.
DELETE FROM token WHERE hash = ?;
-- name: token_list
-- All that have not expired.
SELECT hash, user, role, projects, label, expires_at FROM token WHERE expires_at IS NULL OR expires_at > ? ORDER BY hash;
-- name: task_list_expired
-- Ended before an instant, and no live task refers to them.
SELECT id FROM task WHERE ended_at < ? AND id NOT IN (SELECT value FROM json_each(?)) ORDER BY ended_at, id LIMIT ?;
-- name: task_any_expired
-- Whether there is one at all.
SELECT 1 FROM task WHERE ended_at < ? LIMIT 1;
-- name: task_list_awaiting
-- Specs of tasks with a higher id that may still ask how others ended: those that have the name of that field in them.
SELECT spec FROM whole_task
WHERE ended_at IS NULL AND id > ? AND state IN (SELECT value FROM json_each(?)) AND instr(spec, CAST('after' AS BLOB));
-- name: task_list_before
-- A page of tasks submitted before an instant, to see which bodies they refer to.
SELECT id, project, spec FROM whole_task WHERE submitted_at < ? AND id > ? ORDER BY id LIMIT ?;
-- name: attempt_list_of_tasks
-- All attempts of the tasks in a json list.
SELECT task, idx, attempt, token, node, number, state, cause, exit_code, signal, assigned_at, started_at, ended_at, detail, result
FROM attempt WHERE task IN (SELECT value FROM json_each(?));
-- name: task_delete
-- With all that hangs on it.
DELETE FROM task WHERE id = ?;
-- name: element_delete
-- Of a task.
DELETE FROM element WHERE task = ?;
-- name: attempt_delete
-- Of a task.
DELETE FROM attempt WHERE task = ?;
-- name: quota_put
-- What an owner may have.
INSERT OR REPLACE INTO quota (project, owner, body) VALUES (?, ?, ?);
-- name: quota_delete
-- An owner without limits of its own.
DELETE FROM quota WHERE project = ? AND owner = ?;
-- name: quota_list
-- All of them.
SELECT body FROM quota ORDER BY project, owner;
-- name: used_put
-- What an owner used.
INSERT OR REPLACE INTO used (project, owner, body) VALUES (?, ?, ?);
-- name: used_list
-- Of all owners.
SELECT body FROM used ORDER BY project, owner;
-- name: booking_put
-- Maintenance, or a reservation.
INSERT OR REPLACE INTO booking (id, body) VALUES (?, ?);
-- name: booking_delete
-- It has ended.
DELETE FROM booking WHERE id = ?;
-- name: booking_list
-- All of them.
SELECT body FROM booking ORDER BY id;
