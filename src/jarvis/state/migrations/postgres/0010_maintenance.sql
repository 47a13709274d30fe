-- Maintenance and reservations of nodes.
CREATE TABLE booking (id bigint PRIMARY KEY, body bytea NOT NULL);
