-- name: task_ids_reserve
-- Ids for tasks that the leader makes.
SELECT nextval('task_id') FROM generate_series(1, $1::bigint);
-- name: task_insert_made
-- Tasks that the leader made for steps.
INSERT INTO task (id, uuid, project, owner, name, queue, retry_of, submitted_at, spec)
SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[],
    $8::double precision[], $9::bytea[]);
-- name: task_insert_made_now
-- The same, as they stand.
INSERT INTO task_now (id, state, base, counts, next_position, reason, started_at, ended_at)
SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bytea[], $5::bigint[], $6::text[], $7::double precision[],
    $8::double precision[]);
-- name: workflow_insert
-- A wish, in state submitted.
INSERT INTO workflow (id, uuid, project, owner, name, state, wish, reason, rerun_of, submitted_at, spec)
VALUES ($1, $2, $3, $4, $5, 'submitted', '', '', $6, $7, $8);
-- name: workflow_update
-- All that changes in the life of workflows.
UPDATE workflow w SET state = u.state, wish = u.wish, reason = u.reason, started_at = u.started_at, ended_at = u.ended_at,
    output = u.output
FROM unnest($1::text[], $2::text[], $3::text[], $4::double precision[], $5::double precision[], $6::bytea[], $7::bigint[])
    AS u(state, wish, reason, started_at, ended_at, output, id)
WHERE w.id = u.id;
-- name: workflow_columns
-- What a workflow is read from.
SELECT id, uuid, project, owner, state, wish, reason, rerun_of, submitted_at, started_at, ended_at, output, spec FROM workflow
-- name: step_put
-- Steps as they stand.
INSERT INTO step (workflow, path, state, task, reason, started_at, ended_at, output, detail)
SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::double precision[],
    $7::double precision[], $8::bytea[], $9::bytea[])
ON CONFLICT (workflow, path) DO UPDATE SET state = excluded.state, task = excluded.task, reason = excluded.reason,
    started_at = excluded.started_at, ended_at = excluded.ended_at, output = excluded.output, detail = excluded.detail;
-- name: step_columns
-- What a step is read from.
SELECT workflow, path, state, task, reason, started_at, ended_at, output, detail FROM step
-- name: workflow_list_expired
-- Ended before an instant.
SELECT id FROM workflow WHERE ended_at < $1 ORDER BY ended_at, id LIMIT $2;
-- name: workflow_delete
-- With their steps.
DELETE FROM workflow WHERE id = ANY($1::bigint[]);
-- name: step_delete
-- Of workflows.
DELETE FROM step WHERE workflow = ANY($1::bigint[]);
-- name: step_counts
-- How many of a workflow's steps are in which state.
SELECT state, count(*) FROM step WHERE workflow = $1 GROUP BY state;
-- name: kept_put
-- What steps with a cache gave.
INSERT INTO kept (project, key, workflow, task, output, result, at, expires_at)
SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::bytea[], $6::bytea[], $7::double precision[],
    $8::double precision[])
ON CONFLICT (project, key) DO UPDATE SET workflow = excluded.workflow, task = excluded.task, output = excluded.output,
    result = excluded.result, at = excluded.at, expires_at = excluded.expires_at;
-- name: kept_get
-- The last one of a key.
SELECT project, key, workflow, task, output, result, at, expires_at FROM kept WHERE project = $1 AND key = $2;
-- name: kept_delete
-- Expired, the longest ago first; how many.
WITH gone AS (
    DELETE FROM kept WHERE (project, key) IN
        (SELECT project, key FROM kept WHERE expires_at < $1 ORDER BY expires_at, project, key LIMIT $2)
    RETURNING 1
) SELECT count(*) FROM gone;
-- name: schedule_insert
-- One of a name in each project.
INSERT INTO schedule (project, name, body) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING id;
-- name: schedule_list
-- Those above an id.
SELECT id, body FROM schedule WHERE id > $1 ORDER BY id;
-- name: schedule_update
-- What changes in their life.
UPDATE schedule s SET body = u.body FROM unnest($1::bigint[], $2::bytea[]) AS u(id, body) WHERE s.id = u.id;
-- name: schedule_delete
-- Removed.
DELETE FROM schedule WHERE id = ANY($1::bigint[]);
