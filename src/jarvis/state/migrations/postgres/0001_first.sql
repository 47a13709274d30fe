-- Tables of the first version. What changes often is narrow and apart from what never does, with room for updates in place.
CREATE FUNCTION jarvis_now(given double precision) RETURNS double precision LANGUAGE sql VOLATILE AS
    $$ SELECT coalesce(given, extract(epoch FROM clock_timestamp())::double precision) $$;
-- Every write of a leader takes this row FOR SHARE, a takeover FOR UPDATE.
CREATE TABLE leadership (
    one integer PRIMARY KEY CHECK (one = 1),
    incarnation bigint NOT NULL,
    epoch bigint NOT NULL,
    holder text NOT NULL,
    timeline text NOT NULL
);
CREATE TABLE lease (
    one integer PRIMARY KEY CHECK (one = 1),
    ends_at double precision NOT NULL,
    renewed_at double precision NOT NULL
) WITH (fillfactor = 10);
CREATE TABLE cluster (
    one integer PRIMARY KEY CHECK (one = 1),
    next_node bigint NOT NULL,
    last_seq bigint NOT NULL,
    dropped_seq bigint NOT NULL
) WITH (fillfactor = 10);
CREATE SEQUENCE task_id;
CREATE TABLE task (
    id bigint PRIMARY KEY,
    uuid text NOT NULL,
    project text NOT NULL,
    owner text NOT NULL,
    name text NOT NULL,
    queue text NOT NULL,
    retry_of bigint,
    submitted_at double precision NOT NULL,
    spec bytea NOT NULL
);
CREATE TABLE task_now (
    id bigint PRIMARY KEY,
    state text NOT NULL,
    base text NOT NULL,
    counts bytea,
    next_position bigint NOT NULL,
    reason text NOT NULL,
    started_at double precision,
    ended_at double precision
) WITH (fillfactor = 70);
CREATE INDEX task_submitted ON task_now (id) WHERE state = 'submitted' AND ended_at IS NULL;
CREATE INDEX task_live ON task_now (id) WHERE ended_at IS NULL;
CREATE INDEX task_ended ON task_now (ended_at, id) WHERE ended_at IS NOT NULL;
CREATE TABLE element (
    task bigint NOT NULL,
    idx bigint NOT NULL,
    state text NOT NULL,
    attempt bigint NOT NULL,
    token bigint NOT NULL,
    node bigint,
    failures bigint NOT NULL,
    infra_losses bigint NOT NULL,
    lost_on bytea,
    eligible_at double precision,
    reason text NOT NULL,
    exit_code bigint,
    signal bigint,
    cause text,
    wish text NOT NULL,
    PRIMARY KEY (task, idx)
) WITH (fillfactor = 70);
CREATE TABLE attempt (
    task bigint NOT NULL,
    idx bigint NOT NULL,
    attempt bigint NOT NULL,
    token bigint NOT NULL,
    node bigint NOT NULL,
    number bigint NOT NULL,
    state text NOT NULL,
    cause text,
    exit_code bigint,
    signal bigint,
    assigned_at double precision NOT NULL,
    started_at double precision,
    ended_at double precision,
    detail bytea NOT NULL,
    result bytea,
    PRIMARY KEY (task, idx, attempt)
) WITH (fillfactor = 70);
CREATE TABLE node (
    id bigint PRIMARY KEY,
    seen_at double precision NOT NULL,
    health bytea NOT NULL,
    body bytea NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE node_replica (node bigint PRIMARY KEY, replica text NOT NULL) WITH (fillfactor = 50);
CREATE TABLE command (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at double precision NOT NULL,
    body bytea NOT NULL,
    outcome text
);
CREATE INDEX command_open ON command (id) WHERE outcome IS NULL;
CREATE TABLE report (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, node bigint NOT NULL, body bytea NOT NULL);
-- One packed row of events a commit.
CREATE TABLE event_pack (
    last_seq bigint PRIMARY KEY,
    at double precision NOT NULL,
    task_min bigint NOT NULL,
    task_max bigint NOT NULL,
    body bytea NOT NULL
);
CREATE TABLE idempotency (
    principal text NOT NULL,
    project text NOT NULL,
    route text NOT NULL,
    key text NOT NULL,
    body_hash text NOT NULL,
    at double precision NOT NULL,
    ids bytea NOT NULL,
    PRIMARY KEY (principal, project, route, key)
);
CREATE INDEX idempotency_at ON idempotency (at);
CREATE TABLE token (
    hash text PRIMARY KEY,
    owner text NOT NULL,
    role text NOT NULL,
    projects bytea NOT NULL,
    label text NOT NULL,
    expires_at double precision
);
CREATE TABLE replica (
    name text PRIMARY KEY,
    url text NOT NULL,
    version text NOT NULL,
    seen_at double precision NOT NULL
) WITH (fillfactor = 50);
CREATE TABLE secret (name text PRIMARY KEY, value bytea NOT NULL);
CREATE TABLE blob (
    project text NOT NULL,
    digest text NOT NULL,
    size bigint NOT NULL,
    touched_at double precision NOT NULL,
    PRIMARY KEY (project, digest)
);
CREATE TABLE blob_chunk (
    project text NOT NULL,
    digest text NOT NULL,
    number bigint NOT NULL,
    data bytea NOT NULL,
    PRIMARY KEY (project, digest, number)
);
ALTER TABLE blob_chunk ALTER COLUMN data SET STORAGE EXTERNAL;
-- Messages between servers, which may be lost.
CREATE UNLOGGED TABLE bus_entry (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    recipient text NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    body bytea NOT NULL
);
CREATE INDEX bus_entry_recipient ON bus_entry (recipient, id);
