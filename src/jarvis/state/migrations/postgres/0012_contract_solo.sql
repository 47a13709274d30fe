-- Every server reads the only element of a task from the row of the task: from the next commit on it is written there alone.
ALTER TABLE leadership ALTER COLUMN solo_in_task SET DEFAULT true;
UPDATE leadership SET solo_in_task = true;
