-- What a task without an array says of its only element, in its own row: one row changes where two did. What is there already stays
-- in element, under index -1, until it changes. Leaders write there until solo_in_task says that every server reads here.
ALTER TABLE task_now ADD COLUMN element bytea;
ALTER TABLE leadership ADD COLUMN solo_in_task boolean NOT NULL DEFAULT false;
