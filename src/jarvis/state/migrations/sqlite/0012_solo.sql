-- What a task without an array says of its only element, in its own row: one row changes where two did. What is there already stays
-- in element, under index -1, until it changes.
ALTER TABLE task ADD COLUMN element BLOB;
