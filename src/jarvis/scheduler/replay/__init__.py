"""What a leader decided, written down so that it can be decided again."""
