"""Messages between servers and agents, and between the parts of a server."""
