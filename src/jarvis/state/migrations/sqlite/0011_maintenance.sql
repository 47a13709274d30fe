-- Maintenance and reservations of nodes.
CREATE TABLE booking (id INTEGER PRIMARY KEY, body BLOB NOT NULL);
