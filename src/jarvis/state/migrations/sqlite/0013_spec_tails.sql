-- What the specs of many tasks of a submission end with, once instead of in each of their rows, which are rewritten with every state.
CREATE TABLE spec_tail (
    id INTEGER PRIMARY KEY,
    body BLOB NOT NULL UNIQUE
);
ALTER TABLE task ADD COLUMN tail INTEGER;
CREATE INDEX task_tail ON task (tail) WHERE tail IS NOT NULL;
CREATE VIEW whole_task AS
SELECT id, uuid, project, user, name, queue, state, base, counts, next_position, reason, retry_of, submitted_at, started_at, ended_at,
    CASE WHEN tail IS NULL THEN spec ELSE CAST(spec || coalesce((SELECT body FROM spec_tail WHERE spec_tail.id = tail), x'') AS BLOB) END AS spec
FROM task;
