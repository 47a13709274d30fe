-- What a server does in the cluster, and how far it is.
ALTER TABLE replica ADD COLUMN role TEXT NOT NULL DEFAULT 'all';
ALTER TABLE replica ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
ALTER TABLE replica ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;
