-- Workflows, and the steps of them that have left their first state. Their ids come from the counter of tasks.
CREATE TABLE workflow (
    id bigint PRIMARY KEY,
    uuid text NOT NULL,
    project text NOT NULL,
    owner text NOT NULL,
    name text NOT NULL,
    state text NOT NULL,
    wish text NOT NULL,
    reason text NOT NULL,
    rerun_of bigint,
    submitted_at double precision NOT NULL,
    started_at double precision,
    ended_at double precision,
    output bytea,
    spec bytea NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX workflow_live ON workflow (id) WHERE ended_at IS NULL;
CREATE INDEX workflow_ended ON workflow (ended_at, id) WHERE ended_at IS NOT NULL;
CREATE TABLE step (
    workflow bigint NOT NULL,
    path text COLLATE "C" NOT NULL,
    state text NOT NULL,
    task bigint,
    reason text NOT NULL,
    started_at double precision,
    ended_at double precision,
    output bytea,
    detail bytea NOT NULL,
    PRIMARY KEY (workflow, path)
) WITH (fillfactor = 70);
