-- What several servers agree on. A database of one server has these tables too: one schema, whatever opens it.
CREATE TABLE lease (one INTEGER PRIMARY KEY CHECK (one = 1), ends_at REAL NOT NULL);
INSERT INTO lease (one, ends_at) VALUES (1, 0);
CREATE TABLE replica (name TEXT PRIMARY KEY, url TEXT NOT NULL, version TEXT NOT NULL, seen_at REAL NOT NULL);
CREATE TABLE secret (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE node_replica (node INTEGER PRIMARY KEY, replica TEXT NOT NULL);
ALTER TABLE token ADD COLUMN expires_at REAL;
