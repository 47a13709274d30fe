-- Tables of the first version. States are their names: people open this file with sqlite3 too.
CREATE TABLE cluster (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    incarnation INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    holder TEXT NOT NULL,
    next_node INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    dropped_seq INTEGER NOT NULL,
    clean INTEGER NOT NULL
);
-- A task; for one without an array the row of its only element is in element with idx -1.
CREATE TABLE task (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    uuid TEXT NOT NULL,
    project TEXT NOT NULL,
    user TEXT NOT NULL,
    name TEXT NOT NULL,
    queue TEXT NOT NULL,
    state TEXT NOT NULL,
    base TEXT NOT NULL,
    counts BLOB,
    next_position INTEGER NOT NULL,
    reason TEXT NOT NULL,
    retry_of INTEGER,
    submitted_at REAL NOT NULL,
    started_at REAL,
    ended_at REAL,
    spec BLOB NOT NULL
);
CREATE INDEX task_live ON task (state, id) WHERE ended_at IS NULL;
CREATE INDEX task_ended ON task (ended_at) WHERE ended_at IS NOT NULL;
CREATE TABLE element (
    task INTEGER NOT NULL,
    idx INTEGER NOT NULL,
    state TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    token INTEGER NOT NULL,
    node INTEGER,
    failures INTEGER NOT NULL,
    infra_losses INTEGER NOT NULL,
    lost_on BLOB,
    eligible_at REAL,
    reason TEXT NOT NULL,
    exit_code INTEGER,
    signal INTEGER,
    cause TEXT,
    wish TEXT NOT NULL,
    PRIMARY KEY (task, idx)
) WITHOUT ROWID;
CREATE TABLE attempt (
    task INTEGER NOT NULL,
    idx INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    token INTEGER NOT NULL,
    node INTEGER NOT NULL,
    number INTEGER NOT NULL,
    state TEXT NOT NULL,
    cause TEXT,
    exit_code INTEGER,
    signal INTEGER,
    assigned_at REAL NOT NULL,
    started_at REAL,
    ended_at REAL,
    detail BLOB NOT NULL,
    result BLOB,
    PRIMARY KEY (task, idx, attempt)
) WITHOUT ROWID;
CREATE TABLE node (id INTEGER PRIMARY KEY, name TEXT NOT NULL, seen_at REAL NOT NULL, health BLOB NOT NULL, body BLOB NOT NULL);
CREATE TABLE command (id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, body BLOB NOT NULL, outcome TEXT);
CREATE INDEX command_open ON command (id) WHERE outcome IS NULL;
CREATE TABLE report (id INTEGER PRIMARY KEY AUTOINCREMENT, node INTEGER NOT NULL, body BLOB NOT NULL);
-- One packed row of events a commit.
CREATE TABLE event_pack (
    last_seq INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    task_min INTEGER NOT NULL,
    task_max INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE TABLE idempotency (
    principal TEXT NOT NULL,
    project TEXT NOT NULL,
    route TEXT NOT NULL,
    key TEXT NOT NULL,
    body_hash TEXT NOT NULL,
    at REAL NOT NULL,
    ids BLOB NOT NULL,
    PRIMARY KEY (principal, project, route, key)
) WITHOUT ROWID;
CREATE TABLE token (hash TEXT PRIMARY KEY, user TEXT NOT NULL, role TEXT NOT NULL, projects BLOB NOT NULL, label TEXT NOT NULL);
