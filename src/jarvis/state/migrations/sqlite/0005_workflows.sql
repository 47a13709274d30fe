-- Workflows, and the steps of them that have left their first state. Their ids come from the counter of tasks.
CREATE TABLE workflow (
    id INTEGER PRIMARY KEY,
    uuid TEXT NOT NULL,
    project TEXT NOT NULL,
    user TEXT NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    wish TEXT NOT NULL,
    reason TEXT NOT NULL,
    rerun_of INTEGER,
    submitted_at REAL NOT NULL,
    started_at REAL,
    ended_at REAL,
    output BLOB,
    spec BLOB NOT NULL
);
CREATE INDEX workflow_live ON workflow (state, id) WHERE ended_at IS NULL;
CREATE INDEX workflow_ended ON workflow (ended_at) WHERE ended_at IS NOT NULL;
CREATE TABLE step (
    workflow INTEGER NOT NULL,
    path TEXT NOT NULL,
    state TEXT NOT NULL,
    task INTEGER,
    reason TEXT NOT NULL,
    started_at REAL,
    ended_at REAL,
    output BLOB,
    detail BLOB NOT NULL,
    PRIMARY KEY (workflow, path)
) WITHOUT ROWID;
