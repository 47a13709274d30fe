"""Settings: what can be chosen, its defaults, and where a value came from."""
