-- Who began to lead when, and why.
ALTER TABLE lease ADD COLUMN renewed_at REAL NOT NULL DEFAULT 0;
CREATE TABLE takeover (epoch INTEGER PRIMARY KEY, holder TEXT NOT NULL, at REAL NOT NULL, cause TEXT NOT NULL, silent_s REAL NOT NULL);
