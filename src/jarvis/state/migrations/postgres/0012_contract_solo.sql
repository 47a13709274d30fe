-- Every server reads the only element of a task from the row of the task: from the next commit on it is written there alone.
UPDATE leadership SET solo_in_task = true;
