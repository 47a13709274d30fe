-- What projects and their users may have, and what they used; owner is a user, or empty for a whole project.
CREATE TABLE quota (project TEXT NOT NULL, owner TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (project, owner)) WITHOUT ROWID;
CREATE TABLE used (project TEXT NOT NULL, owner TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (project, owner)) WITHOUT ROWID;
