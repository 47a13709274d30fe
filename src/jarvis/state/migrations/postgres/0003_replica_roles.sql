-- What a server does in the cluster, and how far it is.
ALTER TABLE replica
    ADD COLUMN role text NOT NULL DEFAULT 'all',
    ADD COLUMN epoch bigint NOT NULL DEFAULT 0,
    ADD COLUMN seq bigint NOT NULL DEFAULT 0;
