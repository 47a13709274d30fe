-- What projects and their users may have, and what they used; owner is a user, or empty for a whole project.
CREATE TABLE quota (project text NOT NULL, owner text NOT NULL, body bytea NOT NULL, PRIMARY KEY (project, owner));
CREATE TABLE used (project text NOT NULL, owner text NOT NULL, body bytea NOT NULL, PRIMARY KEY (project, owner));
