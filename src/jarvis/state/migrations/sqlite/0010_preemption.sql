-- How often attempts of an element were preempted, which its policy bounds.
ALTER TABLE element ADD COLUMN preemptions INTEGER NOT NULL DEFAULT 0;
