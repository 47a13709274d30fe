-- Who began to lead when, and why.
CREATE TABLE takeover (
    epoch bigint PRIMARY KEY,
    holder text NOT NULL,
    at double precision NOT NULL,
    cause text NOT NULL,
    silent_s double precision NOT NULL
);
