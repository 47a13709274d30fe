-- What steps with a cache gave, for later ones of their project.
CREATE TABLE kept (
    project text NOT NULL,
    key text NOT NULL,
    workflow bigint NOT NULL,
    task bigint,
    output bytea,
    result bytea,
    at double precision NOT NULL,
    expires_at double precision NOT NULL,
    PRIMARY KEY (project, key)
);
CREATE INDEX kept_expires ON kept (expires_at);
