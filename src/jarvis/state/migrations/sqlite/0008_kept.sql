-- What steps with a cache gave, for later ones of their project.
CREATE TABLE kept (
    project TEXT NOT NULL,
    key TEXT NOT NULL,
    workflow INTEGER NOT NULL,
    task INTEGER,
    output BLOB,
    result BLOB,
    at REAL NOT NULL,
    expires_at REAL NOT NULL,
    PRIMARY KEY (project, key)
);
CREATE INDEX kept_expires ON kept (expires_at);
