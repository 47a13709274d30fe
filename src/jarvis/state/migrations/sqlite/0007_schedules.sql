-- What makes tasks and workflows at nominal times.
CREATE TABLE schedule (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    project TEXT NOT NULL,
    name TEXT NOT NULL,
    body BLOB NOT NULL,
    UNIQUE (project, name)
);
