"""Small leaves that import nothing of ours."""
