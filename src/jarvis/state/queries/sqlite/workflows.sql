-- name: task_ids_reserve
-- Ids for tasks that the leader makes; the last one comes back.
UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'task' RETURNING seq;
-- name: task_insert_made
-- A task that the leader made for a step, as it stands.
INSERT INTO task (uuid, project, user, name, queue, retry_of, submitted_at, spec,
    state, base, counts, next_position, reason, started_at, ended_at, id)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);
-- name: workflow_insert
-- A wish, in state submitted.
INSERT INTO workflow (id, uuid, project, user, name, state, wish, reason, rerun_of, submitted_at, spec)
VALUES (?, ?, ?, ?, ?, 'submitted', '', '', ?, ?, ?);
-- name: workflow_update
-- All that changes in the life of a workflow.
UPDATE workflow SET state = ?, wish = ?, reason = ?, started_at = ?, ended_at = ?, output = ? WHERE id = ?;
-- name: workflow_list_submitted
-- Not taken by a leader yet.
SELECT id, uuid, project, user, state, wish, reason, rerun_of, submitted_at, started_at, ended_at, output, spec
FROM workflow WHERE state = 'submitted' AND ended_at IS NULL ORDER BY id LIMIT ?;
-- name: workflow_list_live
-- A page of a rebuild.
SELECT id, uuid, project, user, state, wish, reason, rerun_of, submitted_at, started_at, ended_at, output, spec
FROM workflow WHERE id > ? AND ended_at IS NULL ORDER BY id LIMIT ?;
-- name: workflow_get
-- One workflow.
SELECT id, uuid, project, user, state, wish, reason, rerun_of, submitted_at, started_at, ended_at, output, spec
FROM workflow WHERE id = ?;
-- name: workflow_list
-- Newest first; null parameters mean any.
SELECT id, uuid, project, user, state, wish, reason, rerun_of, submitted_at, started_at, ended_at, output, spec
FROM workflow
WHERE id < :before
  AND (:states IS NULL OR state IN (SELECT value FROM json_each(:states)))
  AND (:project IS NULL OR project = :project)
  AND (:projects IS NULL OR project IN (SELECT value FROM json_each(:projects)))
  AND (:user IS NULL OR user = :user)
  AND (:name IS NULL OR name = :name)
  AND (:prefix IS NULL OR substr(name, 1, length(:prefix)) = :prefix)
ORDER BY id DESC LIMIT :limit;
-- name: step_put
-- A step as it stands.
INSERT OR REPLACE INTO step (workflow, path, state, task, reason, started_at, ended_at, output, detail)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?);
-- name: step_list
-- A page of the steps of a workflow.
SELECT workflow, path, state, task, reason, started_at, ended_at, output, detail
FROM step WHERE workflow = ? AND path > ? ORDER BY path LIMIT ?;
-- name: step_get
-- One step.
SELECT workflow, path, state, task, reason, started_at, ended_at, output, detail FROM step WHERE workflow = ? AND path = ?;
-- name: workflow_list_expired
-- Ended before an instant.
SELECT id FROM workflow WHERE ended_at < ? ORDER BY ended_at, id LIMIT ?;
-- name: workflow_delete
-- With its steps.
DELETE FROM workflow WHERE id = ?;
-- name: step_delete
-- Of a workflow.
DELETE FROM step WHERE workflow = ?;
-- name: step_counts
-- How many of a workflow's steps are in which state.
SELECT state, count(*) FROM step WHERE workflow = ? GROUP BY state;
-- name: kept_put
-- What a step with a cache gave.
INSERT OR REPLACE INTO kept (project, key, workflow, task, output, result, at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?);
-- name: kept_get
-- The last one of a key.
SELECT project, key, workflow, task, output, result, at, expires_at FROM kept WHERE project = ? AND key = ?;
-- name: kept_delete
-- Expired, the longest ago first.
DELETE FROM kept WHERE (project, key) IN
    (SELECT project, key FROM kept WHERE expires_at < ? ORDER BY expires_at, project, key LIMIT ?);
-- name: schedule_insert
-- One of a name in each project.
INSERT INTO schedule (project, name, body) VALUES (?, ?, ?);
-- name: schedule_list
-- Those above an id.
SELECT id, body FROM schedule WHERE id > ? ORDER BY id;
-- name: schedule_update
-- What changes in its life.
UPDATE schedule SET body = ? WHERE id = ?;
-- name: schedule_delete
-- Removed.
DELETE FROM schedule WHERE id = ?;
