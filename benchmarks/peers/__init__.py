"""Other systems, each in an environment of its own with pinned versions, run as its own documentation advises."""
